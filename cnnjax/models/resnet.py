"""ResNet: blocks that learn what to add to their input, so that a hundred layers train."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._initializers import he_fan_out
from cnnjax.models._remat import chain
from cnnjax.ops._arguments import wide


class ResNet(nnx.Module):
    """Classify pictures of any size with stages of residual blocks, each stage at half the resolution.

    Args:
        blocks: number of blocks of each stage.
        bottleneck: whether a block is 1x1, 3x3 and 1x1 with four times the width at its end, instead of two 3x3.
        widths: channels of each stage, at the 3x3 convolutions.
        stem: "imagenet" quarters the picture first, by a 7x7 convolution and a max pool; "cifar" keeps the size, with
            a 3x3 convolution.
        channels: number of channels of a picture.
        num_classes: size of the result.
        zero_init: whether the last scale of every block starts at 0, so that the block first hands on its input alone:
            the deeper, the more it helps the first steps. False starts it at 1, as the paper.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a block again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: a stem that is neither, or blocks and widths of different lengths.

    Example:
        >>> nnx.eval_shape(lambda: resnet50(rngs=nnx.Rngs(0))(jnp.zeros((2, 224, 224, 3)))).shape
        (2, 1000)
        >>> nnx.eval_shape(lambda: resnet18(stem="cifar", rngs=nnx.Rngs(0)).features(jnp.zeros((2, 32, 32, 3)))).shape
        (2, 4, 4, 512)

    Source:
        He, Zhang, Ren & Sun 2015, "Deep Residual Learning for Image Recognition", table 1, with projections where the
        shape changes (option B). A bottleneck strides in its 3x3 convolution, as PyTorch's ResNet "v1.5", not in its
        first. Strided windows are padded alike on both sides, again as there; batch-norm keeps 0.9 of its statistics.
        Kernels start as He et al. 2015 by fan-out, cut off at 2.27 deviations, the dense one by fan-in as `nn.Dense`.
        zero_init is Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1. With the CIFAR stem these widths
        are the variant in wide use; the paper's own nets for CIFAR (section 4.2) have three stages of 16, 32 and 64.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        bottleneck: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: str = "imagenet",
        channels: int = 3,
        num_classes: int = 1000,
        zero_init: bool = True,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"ResNet: stem must be imagenet or cifar, got {stem!r}.")
        arguments.stages("ResNet", blocks=blocks, widths=widths)
        self.pooled = stem == "imagenet"
        window, stride = (7, 2) if self.pooled else (3, 1)
        self.stem = _conv(channels, widths[0], window, stride, dtype, rngs)
        self.norm = nn.BatchNorm(widths[0], decay=0.9, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List()
        features = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                basic = [(width, 3, stride), (width, 3, 1)]
                layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)] if bottleneck else basic
                self.blocks.append(Block(features, layers, zero_init=zero_init, dtype=dtype, rngs=rngs))
                features = layers[-1][0]
        self.output = nn.Dense(features, num_classes, dtype=dtype, rngs=rngs)
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, H / 32, W / 32, C) rounded up, or H / 8, W / 8 with the CIFAR stem; key changes nothing."""
        x = jax.nn.relu(self.norm(self.stem(x), train=train))
        if self.pooled:
            x = ops.max_pool2d(x, 3, stride=2, padding=1)
        return chain(self.blocks, x, train=train, remat=self.remat)

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from maps; train and key change nothing."""
        return wide(self.output(ops.global_avg_pool(f)))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, H, W, C); key changes nothing."""
        return self.head(self.features(x, train=train))


class Block(nnx.Module):
    """Add to x what a few convolutions make of it, and rectify.

    Args:
        in_features: number of channels of x.
        layers: (channels, window, stride) of each convolution.
        zero_init: as in `ResNet`.
        dtype: as in `ResNet`.
        rngs: source of the initialisers' keys.
    """

    def __init__(
        self,
        in_features: int,
        layers: Sequence[tuple[int, int, int]],
        *,
        zero_init: bool,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        widths = [width for width, _, _ in layers]
        self.convs = nnx.List(
            _conv(a, b, window, stride, dtype, rngs)
            for a, (b, window, stride) in zip([in_features, *widths[:-1]], layers, strict=True)
        )
        ones, last = nnx.initializers.ones, nnx.initializers.zeros if zero_init else nnx.initializers.ones
        self.norms = nnx.List(
            nn.BatchNorm(width, decay=0.9, scale_init=scale, dtype=dtype, rngs=rngs)
            for width, scale in zip(widths, [ones] * (len(widths) - 1) + [last], strict=True)
        )
        stride = math.prod(stride for _, _, stride in layers)
        same = stride == 1 and in_features == widths[-1]
        self.projection = None if same else _conv(in_features, widths[-1], 1, stride, dtype, rngs)
        self.projection_norm = None if same else nn.BatchNorm(widths[-1], decay=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the block's maps of x (N, H, W, in_features); key changes nothing."""
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y if number == 0 else jax.nn.relu(y)), train=train)
        if self.projection is not None and self.projection_norm is not None:
            x = self.projection_norm(self.projection(x), train=train)
        return jax.nn.relu(x + y)


def resnet18(**options: Any) -> ResNet:
    """Build the paper's 18 layers; the options are `ResNet`'s."""
    return ResNet(blocks=(2, 2, 2, 2), **options)


def resnet34(**options: Any) -> ResNet:
    """Build the paper's 34 layers; the options are `ResNet`'s."""
    return ResNet(blocks=(3, 4, 6, 3), **options)


def resnet50(**options: Any) -> ResNet:
    """Build the paper's 50 layers, with bottlenecks; the options are `ResNet`'s."""
    return ResNet(blocks=(3, 4, 6, 3), bottleneck=True, **options)


def _conv(a: int, b: int, window: int, stride: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.Conv2d:
    return nn.Conv2d(
        a, b, window, stride=stride, padding=window // 2, use_bias=False, kernel_init=he_fan_out, dtype=dtype, rngs=rngs
    )
