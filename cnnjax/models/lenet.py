"""LeNet: the convolutional net that read digits, as published and as one would build it today."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments


class LeNet(nnx.Module):
    """Classify small pictures with three convolutions, batch-norm and max pooling.

    Each block convolves, pools, normalises and rectifies, in that order: pooling first leaves a quarter of the pixels
    to normalise, and rectifying commutes with the maximum.

    Args:
        shape: (H, W, C) of a picture, H and W at least 8.
        num_classes: size of the result.
        widths: channels of the three convolutions.
        dropout: rate before the last layer.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: a shape below 8x8, a rate outside [0, 1]; when called, pictures of another size than shape.

    Example:
        >>> LeNet(rngs=nnx.Rngs(0))(jnp.zeros((2, 28, 28, 1))).shape
        (2, 10)

    Source:
        LeCun et al. 1998 for the plan; Ioffe & Szegedy 2015 for batch-norm, Srivastava et al. 2014 for dropout.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (28, 28, 1),
        num_classes: int = 10,
        widths: tuple[int, int, int] = (16, 32, 64),
        dropout: float = 0.3,
        rngs: nnx.Rngs,
    ):
        arguments.picture("LeNet", shape, 8)
        arguments.rate("LeNet", "dropout", dropout)
        height, width, channels = shape
        ends = [channels, *widths]
        self.convs = nnx.List([nn.Conv2d(a, b, 3, use_bias=False, rngs=rngs) for a, b in itertools.pairwise(ends)])
        self.norms = nnx.List([nn.BatchNorm(b, decay=0.9, rngs=rngs) for b in widths])
        self.shape, self.maps = tuple(shape), (height // 8, width // 8, widths[-1])
        self.hidden = nn.Dense(math.prod(self.maps), 128, rngs=rngs)
        self.output = nn.Dense(128, num_classes, rngs=rngs)
        self.dropout = dropout

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute activation maps (N, H // 8, W // 8, widths[-1]) of pictures (N, H, W, C)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.relu(norm(ops.max_pool2d(conv(x), 2), train=train))
        return x

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from activation maps."""
        arguments.maps("LeNet", f, self.maps, self.shape)
        x = jax.nn.relu(self.hidden(ops.flatten(f)))
        if train and key is not None:
            x = ops.dropout(key, x, rate=self.dropout)
        return self.output(x)

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, H, W, C); without a key nothing is dropped."""
        return self.head(self.features(x, train=train), train=train, key=key)


# Table I of the paper: the maps of S2 that each of the 16 maps of C3 is connected to.
_C3_INPUTS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class LeNet5(nnx.Module):
    """Classify 28x28 digits as in 1998: 60,000 parameters up to the last hidden layer.

    C1 (6 maps, 5x5), S2 (averages with a trained coefficient and bias a map), C3 (16 maps, each connected to some of
    the 6: 60 kernels in all), S4, C5 (120 units), F6 (84 units), all squashed by 1.7159 tanh(2 x / 3). The last layer
    here is a dense one with 850 parameters; the paper compares F6 with a fixed 7x12 bitmap a class.

    Args:
        num_classes: size of the result.
        rngs: source of the initialisers' keys.

    Example:
        >>> LeNet5(rngs=nnx.Rngs(0))(jnp.zeros((2, 28, 28, 1))).shape
        (2, 10)

    Source:
        LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B.
    """

    def __init__(self, *, num_classes: int = 10, rngs: nnx.Rngs):
        self.c1 = nn.Conv2d(1, 6, 5, padding=2, kernel_init=_uniform_by_fan_in, rngs=rngs)
        self.s2 = Subsampling(6)
        self.c3 = PartialConv(rngs=rngs)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5, padding="VALID", kernel_init=_uniform_by_fan_in, rngs=rngs)
        self.f6 = nn.Dense(120, 84, kernel_init=_uniform_by_fan_in, rngs=rngs)
        self.output = nn.Dense(84, num_classes, kernel_init=_uniform_by_fan_in, rngs=rngs)

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute C5 (N, 1, 1, 120) of digits (N, 28, 28, 1) in [0, 1]; train and key change nothing."""
        # The paper's grey levels, which make the mean of a picture about 0 and its variance about 1.
        x = x * 1.275 - 0.1
        x = self.s2(_squash(self.c1(x)))
        x = self.s4(_squash(self.c3(x)))
        return _squash(self.c5(x))

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from C5; train and key change nothing."""
        return self.output(_squash(self.f6(ops.flatten(f))))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of digits (N, 28, 28, 1) in [0, 1]; train and key change nothing."""
        return self.head(self.features(x))


class Subsampling(nnx.Module):
    """Average 2x2 pixels, then scale and shift each map: two parameters a map.

    Args:
        num_features: number of maps.
    """

    def __init__(self, num_features: int):
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))

    def __call__(self, x: Array) -> Array:
        """Halve x (N, H, W, C) and squash it."""
        return _squash(ops.avg_pool2d(x, 2) * self.scale[...] + self.bias[...])


class PartialConv(nnx.Module):
    """Convolve with the 60 kernels of C3: a full one, zero where a map is not connected.

    Args:
        rngs: source of the initialisers' keys.
    """

    def __init__(self, *, rngs: nnx.Rngs):
        bound = np.concatenate([[2.4 / (25 * len(maps))] * len(maps) for maps in _C3_INPUTS]).astype(np.float32)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), (5, 5, bound.size), minval=-bound, maxval=bound))
        self.bias = nnx.Param(jnp.zeros(len(_C3_INPUTS)))

    def __call__(self, x: Array) -> Array:
        """Convolve x (N, H, W, 6) to (N, H - 4, W - 4, 16)."""
        inputs = np.concatenate(_C3_INPUTS)
        outputs = np.repeat(np.arange(len(_C3_INPUTS)), [len(maps) for maps in _C3_INPUTS])
        kernel = jnp.zeros((5, 5, 6, 16)).at[:, :, inputs, outputs].set(self.kernel[...])
        return ops.conv2d(x, kernel, self.bias[...], padding="VALID")


def _squash(x: Array) -> Array:
    return 1.7159 * jnp.tanh(x * 2 / 3)


def _uniform_by_fan_in(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    bound = 2.4 / np.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)
