"""Architectures, one a file, built from `cnnjax.nn` and `cnnjax.ops`.

lenet  LeNet, a small net with batch-norm; LeNet5, as published in 1998
mlp    MLP, the net without convolutions to compare with

Every classifier is called `model(x, *, train=False, key=None)` on pictures in [0, 1] and has two parts: `features(x)`,
what the convolutions extract, and `head(f)`, the layers that decide.
"""

from cnnjax.models.lenet import LeNet, LeNet5
from cnnjax.models.mlp import MLP

__all__ = ["LeNet", "LeNet5", "MLP"]
