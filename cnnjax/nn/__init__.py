"""Flax NNX modules: each owns its parameters and calls one op of `cnnjax.ops`.

conv   Conv1d, Conv2d, Conv3d
dense  Dense
norm   BatchNorm

Names, shapes, defaults and initial values of the parameters equal those of `flax.nnx`, so a state tree moves between
the two. Every module is called `module(x, *, train=False, key=None)`, also where it needs neither: any of them is a
model, and a plain loop can chain them. What has no parameters is an op, not a module.
"""

from cnnjax.nn.conv import Conv1d, Conv2d, Conv3d
from cnnjax.nn.dense import Dense
from cnnjax.nn.norm import BatchNorm

__all__ = ["Conv1d", "Conv2d", "Conv3d", "Dense", "BatchNorm"]
