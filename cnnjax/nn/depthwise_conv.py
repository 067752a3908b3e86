"""Depthwise convolutions as modules."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.ops._arguments import Padding, count, per_axis
from cnnjax.ops.depthwise_conv import depthwise_conv1d, depthwise_conv2d, depthwise_conv3d


class DepthwiseConv1d(nnx.Module):
    """Own the kernel and bias of `ops.depthwise_conv1d`.

    The same parameters as nnx.Conv with feature_group_count=in_features.

    Args:
        in_features: number of channels of x.
        kernel_size: size of the window, an int or one an axis.
        multiplier: number of outputs a channel, at least 1.
        stride: as in `ops.depthwise_conv1d`.
        padding: as in `ops.depthwise_conv1d`.
        dilation: as in `ops.depthwise_conv1d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, 1, in_features * multiplier) kernel.
        bias_init: initialiser of the (in_features * multiplier,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> DepthwiseConv1d(3, 5, multiplier=2, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 3))).shape
        (1, 16, 6)
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int | Sequence[int],
        *,
        multiplier: int = 1,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("DepthwiseConv1d", 1, in_features, kernel_size, multiplier)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.depthwise_conv1d` to x (N, L, C); train and key change nothing."""
        return depthwise_conv1d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


class DepthwiseConv2d(nnx.Module):
    """Own the kernel and bias of `ops.depthwise_conv2d`.

    The same parameters as nnx.Conv with feature_group_count=in_features.

    Args:
        in_features: number of channels of x.
        kernel_size: size of the window, an int or one an axis.
        multiplier: number of outputs a channel, at least 1.
        stride: as in `ops.depthwise_conv2d`.
        padding: as in `ops.depthwise_conv2d`.
        dilation: as in `ops.depthwise_conv2d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, 1, in_features * multiplier) kernel.
        bias_init: initialiser of the (in_features * multiplier,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> DepthwiseConv2d(3, 5, multiplier=2, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 32, 3))).shape
        (1, 16, 16, 6)
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int | Sequence[int],
        *,
        multiplier: int = 1,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("DepthwiseConv2d", 2, in_features, kernel_size, multiplier)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.depthwise_conv2d` to x (N, H, W, C); train and key change nothing."""
        return depthwise_conv2d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


class DepthwiseConv3d(nnx.Module):
    """Own the kernel and bias of `ops.depthwise_conv3d`.

    The same parameters as nnx.Conv with feature_group_count=in_features.

    Args:
        in_features: number of channels of x.
        kernel_size: size of the window, an int or one an axis.
        multiplier: number of outputs a channel, at least 1.
        stride: as in `ops.depthwise_conv3d`.
        padding: as in `ops.depthwise_conv3d`.
        dilation: as in `ops.depthwise_conv3d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, 1, in_features * multiplier) kernel.
        bias_init: initialiser of the (in_features * multiplier,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> DepthwiseConv3d(3, 5, multiplier=2, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 8, 8, 8, 3))).shape
        (1, 4, 4, 4, 6)
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int | Sequence[int],
        *,
        multiplier: int = 1,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("DepthwiseConv3d", 3, in_features, kernel_size, multiplier)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.depthwise_conv3d` to x (N, D, H, W, C); train and key change nothing."""
        return depthwise_conv3d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


def _kernel_shape(
    name: str, rank: int, in_features: int, kernel_size: int | Sequence[int], multiplier: int
) -> tuple[int, ...]:
    window = per_axis(name, "kernel_size", kernel_size, rank)
    outputs = count(name, "in_features", in_features) * count(name, "multiplier", multiplier)
    return (*window, 1, outputs)
