"""Pure functions of CNNs: arrays in, arrays out, channels last, every JAX transformation allowed.

Convolution
    conv                  conv1d | 2d | 3d
    conv_transpose        conv_transpose1d | 2d | 3d
    depthwise_conv        depthwise_conv1d | 2d | 3d
    separable_conv        separable_conv1d | 2d | 3d
    local_conv            local_conv1d | 2d
    deform_conv           deform_conv2d
Pooling
    max_pool              max_pool1d | 2d | 3d
    max_pool_with_indices max_pool1d_with_indices | 2d | 3d
    max_unpool            max_unpool1d | 2d | 3d
    min_pool              min_pool1d | 2d | 3d
    avg_pool              avg_pool1d | 2d | 3d
    lp_pool               lp_pool1d | 2d | 3d
    global_pool           global_avg_pool, global_max_pool
    adaptive_avg_pool     adaptive_avg_pool1d | 2d | 3d
    adaptive_max_pool     adaptive_max_pool1d | 2d | 3d, adaptive_max_pool1d_with_indices | 2d | 3d
    blur_pool             blur_pool2d
    fractional_max_pool   fractional_max_pool2d, fractional_max_pool2d_with_indices
    stochastic_pool       stochastic_pool2d
    spatial_pyramid_pool  spatial_pyramid_pool2d
Dense layers
    dense                 dense, flatten
Normalisation
    batch_norm            batch_norm
    layer_norm            layer_norm, rms_norm
    group_norm            group_norm, instance_norm
    local_response_norm   local_response_norm
    weight_standardize    weight_standardize
Regularisation
    dropout               dropout, spatial_dropout, drop_block2d, drop_path
Pixels
    pad                   pad
    resize                resize
    grid_sample           grid_sample2d | 3d
    pixel_shuffle         pixel_shuffle, pixel_unshuffle
    patches               unfold, fold
Arithmetic
    shapes                output sizes, paddings, receptive fields: the integers behind all of it

docs/ops.md lists them beside the ops of PyTorch, JAX, Keras and ONNX.
"""

from cnnjax.ops import shapes
from cnnjax.ops.adaptive_avg_pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from cnnjax.ops.adaptive_max_pool import (
    adaptive_max_pool1d,
    adaptive_max_pool1d_with_indices,
    adaptive_max_pool2d,
    adaptive_max_pool2d_with_indices,
    adaptive_max_pool3d,
    adaptive_max_pool3d_with_indices,
)
from cnnjax.ops.avg_pool import avg_pool1d, avg_pool2d, avg_pool3d
from cnnjax.ops.batch_norm import batch_norm
from cnnjax.ops.blur_pool import blur_pool2d
from cnnjax.ops.conv import conv1d, conv2d, conv3d
from cnnjax.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from cnnjax.ops.deform_conv import deform_conv2d
from cnnjax.ops.dense import dense, flatten
from cnnjax.ops.depthwise_conv import depthwise_conv1d, depthwise_conv2d, depthwise_conv3d
from cnnjax.ops.dropout import drop_block2d, drop_path, dropout, spatial_dropout
from cnnjax.ops.fractional_max_pool import fractional_max_pool2d, fractional_max_pool2d_with_indices
from cnnjax.ops.global_pool import global_avg_pool, global_max_pool
from cnnjax.ops.grid_sample import grid_sample2d, grid_sample3d
from cnnjax.ops.group_norm import group_norm, instance_norm
from cnnjax.ops.layer_norm import layer_norm, rms_norm
from cnnjax.ops.local_conv import local_conv1d, local_conv2d
from cnnjax.ops.local_response_norm import local_response_norm
from cnnjax.ops.lp_pool import lp_pool1d, lp_pool2d, lp_pool3d
from cnnjax.ops.max_pool import max_pool1d, max_pool2d, max_pool3d
from cnnjax.ops.max_pool_with_indices import max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices
from cnnjax.ops.max_unpool import max_unpool1d, max_unpool2d, max_unpool3d
from cnnjax.ops.min_pool import min_pool1d, min_pool2d, min_pool3d
from cnnjax.ops.pad import pad
from cnnjax.ops.patches import fold, unfold
from cnnjax.ops.pixel_shuffle import pixel_shuffle, pixel_unshuffle
from cnnjax.ops.resize import resize
from cnnjax.ops.separable_conv import separable_conv1d, separable_conv2d, separable_conv3d
from cnnjax.ops.spatial_pyramid_pool import spatial_pyramid_pool2d
from cnnjax.ops.stochastic_pool import stochastic_pool2d
from cnnjax.ops.weight_standardize import weight_standardize

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "separable_conv1d",
    "separable_conv2d",
    "separable_conv3d",
    "local_conv1d",
    "local_conv2d",
    "deform_conv2d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool1d_with_indices",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "min_pool1d",
    "min_pool2d",
    "min_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "global_avg_pool",
    "global_max_pool",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d_with_indices",
    "blur_pool2d",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "stochastic_pool2d",
    "spatial_pyramid_pool2d",
    "dense",
    "flatten",
    "batch_norm",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "instance_norm",
    "local_response_norm",
    "weight_standardize",
    "dropout",
    "spatial_dropout",
    "drop_block2d",
    "drop_path",
    "pad",
    "resize",
    "grid_sample2d",
    "grid_sample3d",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
    "fold",
    "shapes",
]
