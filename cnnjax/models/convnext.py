"""ConvNeXt: a convolutional net with what vision transformers taught."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._initializers import normal
from cnnjax.models._remat import chain, split
from cnnjax.ops._arguments import wide


class ConvNeXt(nnx.Module):
    """Classify pictures of 32x32 or more with blocks of a 7x7 depthwise convolution and two dense layers a pixel.

    Nothing looks at the batch: layer norms along the channels stand where batch-norms would, one a block.

    Args:
        depths: number of blocks of each stage.
        widths: channels of each stage.
        patch: size of the squares that the stem cuts the picture into; each later stage halves what is left, so
            pictures need patch * 2 ** (stages - 1) pixels a side.
        channels: number of channels of a picture.
        num_classes: size of the result.
        drop_path: rate at which the last block is left out for an example; from the first block on it rises evenly.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a block again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: depths and widths of different lengths, or a rate outside [0, 1].

    Example:
        >>> nnx.eval_shape(lambda: convnext_tiny(rngs=nnx.Rngs(0))(jnp.zeros((2, 224, 224, 3)))).shape
        (2, 1000)

    Source:
        Liu, Mao, Wu, Feichtenhofer, Darrell & Xie 2022, "A ConvNet for the 2020s", sections 2 and A.1. Kernels are
        normal with 0.02, cut off at 2.27 standard deviations (the authors' code cuts off at 2.0, which is never).
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        widths: Sequence[int] = (96, 192, 384, 768),
        patch: int = 4,
        channels: int = 3,
        num_classes: int = 1000,
        drop_path: float = 0.1,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        arguments.stages("ConvNeXt", depths=depths, widths=widths)
        arguments.rate("ConvNeXt", "drop_path", drop_path)
        ends = itertools.pairwise([channels, *widths])
        self.shrink = nnx.List(
            nn.Conv2d(a, b, size, stride=size, padding="VALID", kernel_init=normal(0.02), dtype=dtype, rngs=rngs)
            for (a, b), size in zip(ends, [patch] + [2] * (len(widths) - 1), strict=True)
        )
        # The stem is normalised after its convolution, the later stages before theirs.
        self.norms = nnx.List(nn.LayerNorm(w, dtype=dtype, rngs=rngs) for w in [widths[0], *widths[:-1]])
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nnx.List(
            nnx.List(Block(width, drop_path=next(rates), dtype=dtype, rngs=rngs) for _ in range(depth))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], dtype=dtype, rngs=rngs)
        self.output = nn.Dense(widths[-1], num_classes, kernel_init=normal(0.02), dtype=dtype, rngs=rngs)
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, H // 32, W // 32, widths[-1]) of pictures (N, H, W, C), for four stages and a patch of 4."""
        keys = split(key, len(self.stages), train=train)
        for number, (conv, norm, blocks) in enumerate(zip(self.shrink, self.norms, self.stages, strict=True)):
            x = norm(conv(x)) if number == 0 else conv(norm(x))
            x = chain(blocks, x, train=train, key=keys[number], remat=self.remat)
        return x

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from maps; train and key change nothing."""
        return wide(self.output(self.norm(ops.global_avg_pool(f))))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, H, W, C); without a key no block is left out."""
        return self.head(self.features(x, train=train, key=key))


class Block(nnx.Module):
    """Add to x what a 7x7 window and then every pixel's own layers make of it, scaled down.

    Args:
        num_features: number of channels.
        drop_path: rate at which the block is left out for an example.
        dtype: as in `ConvNeXt`.
        rngs: source of the initialisers' keys.
    """

    def __init__(self, num_features: int, *, drop_path: float, dtype: DTypeLike | None, rngs: nnx.Rngs):
        options: dict[str, Any] = {"kernel_init": normal(0.02), "dtype": dtype, "rngs": rngs}
        self.filter = nn.DepthwiseConv2d(num_features, 7, **options)
        self.norm = nn.LayerNorm(num_features, dtype=dtype, rngs=rngs)
        self.widen = nn.Dense(num_features, 4 * num_features, **options)
        self.narrow = nn.Dense(4 * num_features, num_features, **options)
        self.scale = nnx.Param(jnp.full(num_features, 1e-6, jnp.float32))
        self.drop_path = drop_path

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the block's maps of x (N, H, W, num_features); without a key it is never left out."""
        y = self.narrow(jax.nn.gelu(self.widen(self.norm(self.filter(x))), approximate=False))
        y = y * self.scale[...].astype(y.dtype)
        if train and key is not None:
            y = ops.drop_path(key, y, rate=self.drop_path)
        return x + y


def convnext_tiny(**options: Any) -> ConvNeXt:
    """Build the paper's smallest net; the options are `ConvNeXt`'s."""
    return ConvNeXt(depths=(3, 3, 9, 3), **options)
