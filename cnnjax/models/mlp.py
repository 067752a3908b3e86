"""A multi-layer perceptron: what a picture classifier is without convolutions."""

import itertools
import math
from collections.abc import Sequence

import jax
from flax import nnx
from jax import Array

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._remat import split


class MLP(nnx.Module):
    """Classify flattened pictures with dense layers.

    Every pixel has its own weight to every unit: 28 x 28 pixels and 256 units are 200,704 weights in the first layer
    alone, and a digit moved by one pixel is new to all of them.

    Args:
        shape: (H, W, C) of a picture, or any shape of an example.
        num_classes: size of the result.
        hidden: units of each hidden layer.
        dropout: rate after each hidden layer.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: a rate outside [0, 1].

    Example:
        >>> MLP(shape=(28, 28, 1), num_classes=10, rngs=nnx.Rngs(0))(jax.numpy.zeros((2, 28, 28, 1))).shape
        (2, 10)

    Source:
        Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".
    """

    def __init__(
        self,
        *,
        shape: Sequence[int] = (28, 28, 1),
        num_classes: int = 10,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.2,
        rngs: nnx.Rngs,
    ):
        arguments.rate("MLP", "dropout", dropout)
        sizes = [math.prod(shape), *hidden]
        self.hidden = nnx.List([nn.Dense(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)])
        self.output = nn.Dense(sizes[-1], num_classes, rngs=rngs)
        self.dropout = dropout

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the last hidden layer (N, hidden[-1]) of pictures (N, H, W, C)."""
        x = ops.flatten(x)
        for layer, layer_key in zip(self.hidden, split(key, len(self.hidden), train=train), strict=True):
            x = jax.nn.relu(layer(x))
            if layer_key is not None:
                x = ops.dropout(layer_key, x, rate=self.dropout)
        return x

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from features; train and key change nothing."""
        return self.output(f)

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, H, W, C); without a key nothing is dropped."""
        return self.head(self.features(x, train=train, key=key))
