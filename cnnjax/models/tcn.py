"""TCN: causal convolutions, dilated so that a few layers look far back."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._remat import chain, split
from cnnjax.nn import _parameters as parameters
from cnnjax.ops._arguments import count, wide


class TCN(nnx.Module):
    """Classify a series by its last step, with residual blocks of causal convolutions whose dilation doubles.

    No step sees a later one. With n blocks a step sees itself and the 2 * (kernel_size - 1) * (2**n - 1) before it:
    choose n such that this is the history that matters. For an answer at every step take `output(features(x))`.

    Args:
        channels: number of channels of the series.
        num_classes: size of the result.
        widths: channels of each block; block i has dilation 2**i.
        kernel_size: size of the windows.
        dropout: rate at which whole channels are zeroed after every convolution.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a block again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: no widths, a kernel_size below 1, or a rate outside [0, 1].

    Example:
        >>> model = nnx.eval_shape(lambda: TCN(rngs=nnx.Rngs(0)))
        >>> fields = explain.receptive_field(model, jax.ShapeDtypeStruct((1, 784, 1), "float32"))
        >>> fields["blocks.7.conv2"][0].size == 1 + 2 * (7 - 1) * (2**8 - 1)
        True

    Source:
        Bai, Kolter & Koltun 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
        Modeling", section 3 and figure 1; the defaults are those of the authors' code for digits read pixel by pixel.
        Directions start by fan-in, where the paper has N(0, 0.01): its signals would start small. Dropout zeroes whole
        channels as the paper says; the authors' code zeroes single values.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        num_classes: int = 10,
        widths: Sequence[int] = (25,) * 8,
        kernel_size: int = 7,
        dropout: float = 0.05,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        arguments.stages("TCN", widths=widths)
        count("TCN", "kernel_size", kernel_size)
        arguments.rate("TCN", "dropout", dropout)
        self.blocks = nnx.List(
            Block(a, b, kernel_size, dilation=2**i, dropout=dropout, dtype=dtype, rngs=rngs)
            for i, (a, b) in enumerate(itertools.pairwise([channels, *widths]))
        )
        self.output = nn.Dense(widths[-1], num_classes, dtype=dtype, rngs=rngs)
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute (N, L, widths[-1]) of series (N, L, C): what each step and those before it amount to."""
        return chain(self.blocks, x, train=train, key=key, remat=self.remat)

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from the last step; train and key change nothing."""
        return wide(self.output(f[:, -1]))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of series (N, L, C); without a key nothing is dropped."""
        return self.head(self.features(x, train=train, key=key))


class Block(nnx.Module):
    """Add to x what two causal convolutions make of it, and rectify.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the windows.
        dilation: of the windows.
        dropout: as in `TCN`.
        dtype: as in `TCN`.
        rngs: source of the initialisers' keys.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        dilation: int,
        dropout: float,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        self.conv1 = CausalConv(in_features, out_features, kernel_size, dilation=dilation, dtype=dtype, rngs=rngs)
        self.conv2 = CausalConv(out_features, out_features, kernel_size, dilation=dilation, dtype=dtype, rngs=rngs)
        same = in_features == out_features
        self.projection = None if same else nn.Conv1d(in_features, out_features, 1, dtype=dtype, rngs=rngs)
        self.dropout = dropout

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the block's maps of x (N, L, in_features); without a key nothing is dropped."""
        y = x
        for conv, conv_key in zip((self.conv1, self.conv2), split(key, 2, train=train), strict=True):
            y = jax.nn.relu(conv(y))
            if conv_key is not None:
                y = ops.spatial_dropout(conv_key, y, rate=self.dropout)
        shortcut = x if self.projection is None else self.projection(x)
        return jax.nn.relu(y + shortcut.astype(y.dtype))


class CausalConv(nnx.Module):
    """Convolve what came before, with weight normalisation: a kernel's length is a parameter apart from its direction.

    kernel = scale * direction / |direction|, a length an output channel; it starts as the direction.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window.
        dilation: of the window.
        dtype: as in `TCN`.
        rngs: source of the initialisers' keys.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        dilation: int,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        self.direction = parameters.create(
            parameters.kernel_init, (kernel_size, in_features, out_features), jnp.float32, rngs
        )
        self.scale = nnx.Param(jnp.sqrt(jnp.square(self.direction[...]).sum((0, 1))))
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32))
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv1d` to x (N, L, C); train and key change nothing."""
        direction = self.direction[...]
        kernel = direction * (self.scale[...] * lax.rsqrt(jnp.square(direction).sum((0, 1))))
        dtype = self.dtype or jnp.result_type(x, kernel)
        operands = (value.astype(dtype) for value in (x, kernel, self.bias[...]))
        return ops.conv1d(*operands, padding="CAUSAL", dilation=self.dilation)
