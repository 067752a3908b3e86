"""Locally connected layers as modules."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.ops._arguments import Padding, per_axis
from cnnjax.ops.local_conv import _places, local_conv1d, local_conv2d


def kernel_init(key: Array, shape: Sequence[int], dtype: DTypeLike = float) -> Array:
    """Draw every place's kernel as `Conv2d` would its own: lecun_normal, of the inputs that one output has."""
    *places, taken, outputs = shape
    flat = parameters.kernel_init(key, (taken, math.prod(places) * outputs), dtype)
    return jnp.moveaxis(flat.reshape(taken, *places, outputs), 0, -2)


class LocalConv1d(nnx.Module):
    """Own the kernel and bias of `ops.local_conv1d`.

    The same parameters as flax.linen.ConvLocal, initialised so that outputs are as large as those of `Conv1d`.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        input_size: spatial size of x in samples, an int or one an axis; it fixes how many places there are.
        stride: as in `ops.local_conv1d`.
        padding: as in `ops.local_conv1d`.
        dilation: as in `ops.local_conv1d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*places, in_features * prod(kernel_size), out_features) kernel. Those of
            jax.nn.initializers count the places as inputs unless told otherwise: batch_axis=0.
        bias_init: initialiser of the (*places, out_features) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> LocalConv1d(3, 8, 5, input_size=32, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 3))).shape
        (1, 16, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        input_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        self.window = per_axis("LocalConv1d", "kernel_size", kernel_size, 1)
        spatial = per_axis("LocalConv1d", "input_size", input_size, 1)
        _, places = _places("LocalConv1d", "kernel_size", spatial, self.window, stride, padding, dilation)
        shape = (*places, in_features * math.prod(self.window), out_features)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        bias_shape = (*places, out_features)
        self.bias = parameters.create(bias_init, bias_shape, param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.local_conv1d` to x (N, L, C) of the size asked for; train and key change nothing."""
        return local_conv1d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            window=self.window,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


class LocalConv2d(nnx.Module):
    """Own the kernel and bias of `ops.local_conv2d`.

    The same parameters as flax.linen.ConvLocal, initialised so that outputs are as large as those of `Conv2d`.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        input_size: spatial size of x in pixels, an int or one an axis; it fixes how many places there are.
        stride: as in `ops.local_conv2d`.
        padding: as in `ops.local_conv2d`.
        dilation: as in `ops.local_conv2d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*places, in_features * prod(kernel_size), out_features) kernel. Those of
            jax.nn.initializers count the places as inputs unless told otherwise: batch_axis=(0, 1).
        bias_init: initialiser of the (*places, out_features) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> LocalConv2d(3, 8, 5, input_size=32, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 32, 3))).shape
        (1, 16, 16, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        input_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        self.window = per_axis("LocalConv2d", "kernel_size", kernel_size, 2)
        spatial = per_axis("LocalConv2d", "input_size", input_size, 2)
        _, places = _places("LocalConv2d", "kernel_size", spatial, self.window, stride, padding, dilation)
        shape = (*places, in_features * math.prod(self.window), out_features)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        bias_shape = (*places, out_features)
        self.bias = parameters.create(bias_init, bias_shape, param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.local_conv2d` to x (N, H, W, C) of the size asked for; train and key change nothing."""
        return local_conv2d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            window=self.window,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
