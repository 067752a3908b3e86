"""VGG: small windows, stacked deep, and three dense layers."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._initializers import he_fan_out, normal
from cnnjax.models._remat import chain, split
from cnnjax.ops._arguments import wide


class VGG(nnx.Module):
    """Classify pictures with stages of 3x3 convolutions, each halved by max pooling.

    Two 3x3 windows see as much as a 5x5 one, with fewer weights and a ReLU more. Most parameters are in the first
    dense layer: 102,764,544 of VGG-16's, for pictures of 224x224.

    Args:
        convs: number of convolutions of each stage.
        widths: channels of each stage.
        shape: (H, W, C) of a picture, H and W at least 2 ** number of stages; the dense layers are made for it.
        num_classes: size of the result.
        hidden: units of the dense layers before the last.
        batch_norm: whether to normalise after every convolution, as the paper could not yet.
        dropout: rate after each hidden dense layer.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a stage again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: convs and widths of different lengths, a shape too small for so many stages, a rate outside [0, 1];
            when called, pictures of another size than shape.

    Example:
        >>> nnx.eval_shape(lambda: vgg16(rngs=nnx.Rngs(0))(jnp.zeros((2, 224, 224, 3)))).shape
        (2, 1000)

    Source:
        Simonyan & Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1.
        Kernels start as He et al. 2015 (by fan-out; the dense ones normal with 0.01) instead of being trained in
        shallower nets first. Batch-norm as in torchvision: the convolutions keep biases that it takes the effect of.
    """

    def __init__(
        self,
        *,
        convs: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        shape: tuple[int, int, int] = (224, 224, 3),
        num_classes: int = 1000,
        hidden: Sequence[int] = (4096, 4096),
        batch_norm: bool = False,
        dropout: float = 0.5,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        shrunk = 2 ** len(widths)
        arguments.stages("VGG", convs=convs, widths=widths)
        arguments.picture("VGG", shape, shrunk)
        arguments.rate("VGG", "dropout", dropout)
        height, width, channels = shape
        ends = itertools.pairwise([channels, *widths])
        self.stages = nnx.List(
            Stage(a, b, convs=n, batch_norm=batch_norm, dtype=dtype, rngs=rngs)
            for n, (a, b) in zip(convs, ends, strict=True)
        )
        self.shape, self.maps = tuple(shape), (height // shrunk, width // shrunk, widths[-1])
        sizes = itertools.pairwise([math.prod(self.maps), *hidden, num_classes])
        *layers, self.output = (nn.Dense(a, b, kernel_init=normal(0.01), dtype=dtype, rngs=rngs) for a, b in sizes)
        self.hidden = nnx.List(layers)
        self.dropout = dropout
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, H // 32, W // 32, widths[-1]) of pictures (N, H, W, C), for five stages."""
        return chain(self.stages, x, train=train, remat=self.remat)

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from maps."""
        arguments.maps("VGG", f, self.maps, self.shape)
        x = ops.flatten(f)
        for layer, layer_key in zip(self.hidden, split(key, len(self.hidden), train=train), strict=True):
            x = jax.nn.relu(layer(x))
            if layer_key is not None:
                x = ops.dropout(layer_key, x, rate=self.dropout)
        return wide(self.output(x))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, H, W, C); without a key nothing is dropped."""
        return self.head(self.features(x, train=train), train=train, key=key)


class Stage(nnx.Module):
    """Convolve and rectify several times, then pool.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        convs: number of convolutions.
        batch_norm: as in `VGG`.
        dtype: as in `VGG`.
        rngs: source of the initialisers' keys.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        convs: int,
        batch_norm: bool,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        self.convs = nnx.List(
            nn.Conv2d(a, out_features, 3, kernel_init=he_fan_out, dtype=dtype, rngs=rngs)
            for a in [in_features, *[out_features] * (convs - 1)]
        )
        self.norms = nnx.List(
            nn.BatchNorm(out_features, decay=0.9, dtype=dtype, rngs=rngs) for _ in range(convs if batch_norm else 0)
        )

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Halve x (N, H, W, C); key changes nothing."""
        for conv, norm in itertools.zip_longest(self.convs, self.norms):
            x = conv(x)
            x = jax.nn.relu(x if norm is None else norm(x, train=train))
        return ops.max_pool2d(x, 2)


def vgg11(**options: Any) -> VGG:
    """Build configuration A of the paper; the options are `VGG`'s."""
    return VGG(convs=(1, 1, 2, 2, 2), **options)


def vgg13(**options: Any) -> VGG:
    """Build configuration B of the paper; the options are `VGG`'s."""
    return VGG(convs=(2, 2, 2, 2, 2), **options)


def vgg16(**options: Any) -> VGG:
    """Build configuration D of the paper; the options are `VGG`'s."""
    return VGG(convs=(2, 2, 3, 3, 3), **options)


def vgg19(**options: Any) -> VGG:
    """Build configuration E of the paper; the options are `VGG`'s."""
    return VGG(convs=(2, 2, 4, 4, 4), **options)
