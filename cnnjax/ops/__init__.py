"""Pure functions of CNNs: arrays in, arrays out, channels last, every JAX transformation allowed.

conv      conv1d, conv2d, conv3d
max_pool  max_pool1d, max_pool2d, max_pool3d
avg_pool  avg_pool1d, avg_pool2d, avg_pool3d
global_pool  global_avg_pool, global_max_pool
dense     dense, flatten
norm      batch_norm
dropout   dropout
shapes    the integer arithmetic behind them: output sizes, paddings, receptive fields
"""

from cnnjax.ops import shapes
from cnnjax.ops.avg_pool import avg_pool1d, avg_pool2d, avg_pool3d
from cnnjax.ops.conv import conv1d, conv2d, conv3d
from cnnjax.ops.dense import dense, flatten
from cnnjax.ops.dropout import dropout
from cnnjax.ops.global_pool import global_avg_pool, global_max_pool
from cnnjax.ops.max_pool import max_pool1d, max_pool2d, max_pool3d
from cnnjax.ops.norm import batch_norm

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "global_avg_pool",
    "global_max_pool",
    "dense",
    "flatten",
    "batch_norm",
    "dropout",
    "shapes",
]
