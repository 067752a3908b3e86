"""A residual net for raw waveforms."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._initializers import he_fan_out
from cnnjax.models._remat import chain
from cnnjax.ops._arguments import wide


class ResNet1d(nnx.Module):
    """Classify sounds or other series, of 1021 samples or more, without a spectrogram.

    The first windows are 80 samples long, a hundredth of a second at 8 kHz: they learn a bank of band-pass filters.
    They and a pool make the series 16 times shorter before the first block, so a deep net costs little. The default is
    the paper's M34-res with 4 million parameters; with blocks=(1, 1, 1, 1) and width=16 there are 100,000.

    Args:
        blocks: number of blocks of each stage; a stage has twice the channels of the one before, at a quarter the rate.
        width: channels of the first stage.
        channels: number of channels of the series.
        num_classes: size of the result.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a block again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: no stage, or a stage without blocks.

    Example:
        >>> nnx.eval_shape(lambda: ResNet1d(rngs=nnx.Rngs(0))(jnp.zeros((2, 8000, 1)))).shape
        (2, 10)

    Source:
        Dai, Dai, Qu, Li & Das 2017, "Very Deep Convolutional Neural Networks for Raw Waveforms", table 1. Where the
        channels double, the shortcut repeats each of them: no parameters. Convolutions before a batch-norm have no
        bias; kernels start as He et al. 2015 by fan-out, where the paper takes Glorot's, and the last scale of a block
        at 0 as in `ResNet`.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 48,
        channels: int = 1,
        num_classes: int = 10,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        arguments.stages("ResNet1d", blocks=blocks)
        self.stem = nn.Conv1d(
            channels, width, 80, stride=4, use_bias=False, kernel_init=he_fan_out, dtype=dtype, rngs=rngs
        )
        self.norm = nn.BatchNorm(width, decay=0.9, dtype=dtype, rngs=rngs)
        self.stages = nnx.List()
        features = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            ends = itertools.pairwise([features, *[out] * count])
            self.stages.append(nnx.List(Block(a, b, dtype=dtype, rngs=rngs) for a, b in ends))
            features = out
        self.output = nn.Dense(features, num_classes, dtype=dtype, rngs=rngs)
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, ceil(L / 4) // 256, 8 * width) of series (N, L, C), for four stages; key changes nothing."""
        x = jax.nn.relu(self.norm(self.stem(x), train=train))
        for blocks in self.stages:
            x = chain(blocks, ops.max_pool1d(x, 4), train=train, remat=self.remat)
        return x

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from maps; train and key change nothing."""
        return wide(self.output(ops.global_avg_pool(f)))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of series (N, L, C); key changes nothing."""
        return self.head(self.features(x, train=train))


class Block(nnx.Module):
    """Add to x what two convolutions make of it, and rectify.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result, as many or twice as many.
        dtype: as in `ResNet1d`.
        rngs: source of the initialisers' keys.
    """

    def __init__(self, in_features: int, out_features: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs):
        self.conv1 = _conv(in_features, out_features, dtype, rngs)
        self.norm1 = nn.BatchNorm(out_features, decay=0.9, dtype=dtype, rngs=rngs)
        self.conv2 = _conv(out_features, out_features, dtype, rngs)
        zeros = nnx.initializers.zeros
        self.norm2 = nn.BatchNorm(out_features, decay=0.9, scale_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the block's maps of x (N, L, in_features); key changes nothing."""
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        shortcut = x if x.shape == y.shape else jnp.concatenate([x, x], -1)
        return jax.nn.relu(shortcut + y)


def _conv(a: int, b: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.Conv1d:
    return nn.Conv1d(a, b, 3, use_bias=False, kernel_init=he_fan_out, dtype=dtype, rngs=rngs)
