"""Depthwise separable convolutions as modules."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.nn.depthwise_conv import _kernel_shape
from cnnjax.ops._arguments import Padding
from cnnjax.ops.separable_conv import separable_conv1d, separable_conv2d, separable_conv3d


class SeparableConv1d(nnx.Module):
    """Own the two kernels and the bias of `ops.separable_conv1d`.

    The same parameters as nnx.Conv with feature_group_count=in_features and without a bias, and an nnx.Conv of
    window 1 after it.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the depthwise window, an int or one an axis.
        multiplier: number of depthwise outputs a channel, at least 1.
        stride: as in `ops.separable_conv1d`.
        padding: as in `ops.separable_conv1d`.
        dilation: as in `ops.separable_conv1d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of both kernels, (*kernel_size, 1, in_features * multiplier) and
            (1, in_features * multiplier, out_features).
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> SeparableConv1d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 3))).shape
        (1, 16, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
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
        shape = _kernel_shape("SeparableConv1d", 1, in_features, kernel_size, multiplier)
        mixture = (1, shape[-1], out_features)
        self.depthwise_kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.pointwise_kernel = parameters.create(kernel_init, mixture, param_dtype, rngs)
        self.bias = parameters.create(bias_init, mixture[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.separable_conv1d` to x (N, L, C); train and key change nothing."""
        return separable_conv1d(
            *_cast(self.dtype, x, self.depthwise_kernel, self.pointwise_kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


class SeparableConv2d(nnx.Module):
    """Own the two kernels and the bias of `ops.separable_conv2d`.

    The same parameters as nnx.Conv with feature_group_count=in_features and without a bias, and an nnx.Conv of
    window 1 after it.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the depthwise window, an int or one an axis.
        multiplier: number of depthwise outputs a channel, at least 1.
        stride: as in `ops.separable_conv2d`.
        padding: as in `ops.separable_conv2d`.
        dilation: as in `ops.separable_conv2d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of both kernels, (*kernel_size, 1, in_features * multiplier) and
            (1, 1, in_features * multiplier, out_features).
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> SeparableConv2d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 32, 3))).shape
        (1, 16, 16, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
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
        shape = _kernel_shape("SeparableConv2d", 2, in_features, kernel_size, multiplier)
        mixture = (1, 1, shape[-1], out_features)
        self.depthwise_kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.pointwise_kernel = parameters.create(kernel_init, mixture, param_dtype, rngs)
        self.bias = parameters.create(bias_init, mixture[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.separable_conv2d` to x (N, H, W, C); train and key change nothing."""
        return separable_conv2d(
            *_cast(self.dtype, x, self.depthwise_kernel, self.pointwise_kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


class SeparableConv3d(nnx.Module):
    """Own the two kernels and the bias of `ops.separable_conv3d`.

    The same parameters as nnx.Conv with feature_group_count=in_features and without a bias, and an nnx.Conv of
    window 1 after it.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the depthwise window, an int or one an axis.
        multiplier: number of depthwise outputs a channel, at least 1.
        stride: as in `ops.separable_conv3d`.
        padding: as in `ops.separable_conv3d`.
        dilation: as in `ops.separable_conv3d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of both kernels, (*kernel_size, 1, in_features * multiplier) and
            (1, 1, 1, in_features * multiplier, out_features).
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> SeparableConv3d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 8, 8, 8, 3))).shape
        (1, 4, 4, 4, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
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
        shape = _kernel_shape("SeparableConv3d", 3, in_features, kernel_size, multiplier)
        mixture = (1, 1, 1, shape[-1], out_features)
        self.depthwise_kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.pointwise_kernel = parameters.create(kernel_init, mixture, param_dtype, rngs)
        self.bias = parameters.create(bias_init, mixture[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.separable_conv3d` to x (N, D, H, W, C); train and key change nothing."""
        return separable_conv3d(
            *_cast(self.dtype, x, self.depthwise_kernel, self.pointwise_kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


def _cast(
    dtype: DTypeLike | None,
    x: Array,
    depthwise_kernel: nnx.Param[Array],
    pointwise_kernel: nnx.Param[Array],
    bias: nnx.Param[Array] | None,
) -> tuple[Array, Array, Array, Array | None]:
    """All four in one dtype, as `parameters.cast`."""
    values = (x, depthwise_kernel[...], pointwise_kernel[...], None if bias is None else bias[...])
    common = dtype or jnp.result_type(*(v for v in values if v is not None))
    x, depthwise, bias_value = parameters.cast(common, x, depthwise_kernel, bias)
    return x, depthwise, pointwise_kernel[...].astype(common), bias_value
