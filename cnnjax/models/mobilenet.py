"""MobileNetV2: most of a convolution's work saved, by taking space and channels in turn."""

from collections.abc import Sequence

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._initializers import he_fan_out, normal
from cnnjax.models._remat import chain
from cnnjax.ops._arguments import wide

# Table 2 of the paper: expansion, channels, number of blocks, stride of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(nnx.Module):
    """Classify pictures of any size with inverted residual blocks: narrow between the blocks and wide within.

    A block widens its input by 1x1 convolutions, filters every channel by itself, and narrows it again, without a ReLU
    at the end: on few channels one would lose too much.

    Args:
        width: factor of all widths, rounded to multiples of 8; the last one only grows.
        stages: (expansion, channels, number of blocks, stride of the first) of each stage; the paper's strides and
            the stem's shrink pictures to a 32nd, which for those of 32x32 is too much.
        channels: number of channels of a picture.
        num_classes: size of the result.
        dropout: rate before the last layer.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a block again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: a rate outside [0, 1].

    Example:
        >>> nnx.eval_shape(lambda: MobileNetV2(rngs=nnx.Rngs(0))(jnp.zeros((2, 224, 224, 3)))).shape
        (2, 1000)

    Source:
        Sandler, Howard, Zhu, Zhmoginov & Chen 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
        As in torchvision, strided windows are padded alike on both sides, batch-norm keeps 0.9 of its statistics (the
        paper's code 0.997), and kernels start as He et al. 2015 by fan-out, the last normal with 0.01.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        stages: Sequence[tuple[int, int, int, int]] = _STAGES,
        channels: int = 3,
        num_classes: int = 1000,
        dropout: float = 0.2,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        arguments.rate("MobileNetV2", "dropout", dropout)
        features, last = _rounded(32 * width), _rounded(1280 * max(1.0, width))
        self.stem = nn.Conv2d(
            channels, features, 3, stride=2, padding=1, use_bias=False, kernel_init=he_fan_out, dtype=dtype, rngs=rngs
        )
        self.stem_norm = nn.BatchNorm(features, decay=0.9, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List()
        for expansion, stage_channels, count, stage_stride in stages:
            out = _rounded(stage_channels * width)
            for stride in [stage_stride] + [1] * (count - 1):
                block = Block(features, out, expansion=expansion, stride=stride, dtype=dtype, rngs=rngs)
                self.blocks.append(block)
                features = out
        self.last = _pointwise(features, last, dtype, rngs)
        self.last_norm = nn.BatchNorm(last, decay=0.9, dtype=dtype, rngs=rngs)
        self.output = nn.Dense(last, num_classes, kernel_init=normal(0.01), dtype=dtype, rngs=rngs)
        self.dropout = dropout
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, H / 32, W / 32, 1280) rounded up, of pictures (N, H, W, C); key changes nothing."""
        x = jax.nn.relu6(self.stem_norm(self.stem(x), train=train))
        x = chain(self.blocks, x, train=train, remat=self.remat)
        return jax.nn.relu6(self.last_norm(self.last(x), train=train))

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from maps."""
        x = ops.global_avg_pool(f)
        if train and key is not None:
            x = ops.dropout(key, x, rate=self.dropout)
        return wide(self.output(x))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, H, W, C); without a key nothing is dropped."""
        return self.head(self.features(x, train=train), train=train, key=key)


class Block(nnx.Module):
    """Widen, filter and narrow x, and add x where the shape is still the same.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        expansion: factor of the channels within; 1 does not widen.
        stride: of the filters.
        dtype: as in `MobileNetV2`.
        rngs: source of the initialisers' keys.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        expansion: int,
        stride: int,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        inner = in_features * expansion
        same = expansion == 1
        self.widen = None if same else _pointwise(in_features, inner, dtype, rngs)
        self.widen_norm = None if same else nn.BatchNorm(inner, decay=0.9, dtype=dtype, rngs=rngs)
        self.filter = nn.DepthwiseConv2d(
            inner, 3, stride=stride, padding=1, use_bias=False, kernel_init=he_fan_out, dtype=dtype, rngs=rngs
        )
        self.filter_norm = nn.BatchNorm(inner, decay=0.9, dtype=dtype, rngs=rngs)
        self.narrow = _pointwise(inner, out_features, dtype, rngs)
        self.narrow_norm = nn.BatchNorm(out_features, decay=0.9, dtype=dtype, rngs=rngs)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the block's maps of x (N, H, W, in_features); key changes nothing."""
        y = x
        if self.widen is not None and self.widen_norm is not None:
            y = jax.nn.relu6(self.widen_norm(self.widen(y), train=train))
        y = jax.nn.relu6(self.filter_norm(self.filter(y), train=train))
        y = self.narrow_norm(self.narrow(y), train=train)
        return x + y if self.residual else y


def _pointwise(a: int, b: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.Conv2d:
    return nn.Conv2d(a, b, 1, use_bias=False, kernel_init=he_fan_out, dtype=dtype, rngs=rngs)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, which hardware likes, and never less than nine tenths of what was asked for."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
