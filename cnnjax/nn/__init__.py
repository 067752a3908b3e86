"""Flax NNX modules: each owns its parameters and calls one op of `cnnjax.ops`.

conv            Conv1d, Conv2d, Conv3d
conv_transpose  ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
depthwise_conv  DepthwiseConv1d, DepthwiseConv2d, DepthwiseConv3d
separable_conv  SeparableConv1d, SeparableConv2d, SeparableConv3d
local_conv      LocalConv1d, LocalConv2d
deform_conv     DeformConv2d
dense           Dense
batch_norm      BatchNorm
layer_norm      LayerNorm, RMSNorm
group_norm      GroupNorm, InstanceNorm

Names, shapes, defaults and initial values of the parameters equal those of `flax.nnx`, so a state tree moves between
the two; but the kernels of transposed convolutions lie flipped there. Every module is called
`module(x, *, train=False, key=None)`, also where it needs neither: any of them is a model, and a plain loop can chain
them. What has no parameters is an op, not a module.
"""

from cnnjax.nn.batch_norm import BatchNorm
from cnnjax.nn.conv import Conv1d, Conv2d, Conv3d
from cnnjax.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from cnnjax.nn.deform_conv import DeformConv2d
from cnnjax.nn.dense import Dense
from cnnjax.nn.depthwise_conv import DepthwiseConv1d, DepthwiseConv2d, DepthwiseConv3d
from cnnjax.nn.group_norm import GroupNorm, InstanceNorm
from cnnjax.nn.layer_norm import LayerNorm, RMSNorm
from cnnjax.nn.local_conv import LocalConv1d, LocalConv2d
from cnnjax.nn.separable_conv import SeparableConv1d, SeparableConv2d, SeparableConv3d

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DepthwiseConv1d",
    "DepthwiseConv2d",
    "DepthwiseConv3d",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
    "LocalConv1d",
    "LocalConv2d",
    "DeformConv2d",
    "Dense",
    "BatchNorm",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "InstanceNorm",
]
