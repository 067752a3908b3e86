"""cnnjax: the functional CNN toolkit for JAX.

ops      pure functions: convolution, pooling, dense layers, normalisation, dropout
nn       Flax NNX modules that own parameters and call one op each
models   architectures built from them
train    pure train and eval steps, parallel wrappers, the loop, checkpoints
data     named data sets to NumPy, batches, augmentation
explain  pictures of what a net does
cpu      how XLA compiles convolution and pooling for CPU: accelerate()

Data flows one way: data -> ops and nn -> train -> experiments.
"""

from cnnjax import data, explain, models, nn, ops, train
from cnnjax.cpu import Acceleration, accelerate

__version__ = "0.1.0"

__all__ = ["ops", "nn", "models", "train", "data", "explain", "accelerate", "Acceleration"]
