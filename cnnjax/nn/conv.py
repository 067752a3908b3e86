"""Convolutions as modules."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import ops
from cnnjax.nn import _parameters as parameters
from cnnjax.ops._arguments import Padding, per_axis


class Conv1d(nnx.Module):
    """Own the kernel and bias of `ops.conv1d`.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.conv1d`.
        padding: as in `ops.conv1d`.
        dilation: as in `ops.conv1d`.
        groups: as in `ops.conv1d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features // groups, out_features) kernel.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> Conv1d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 3))).shape
        (1, 16, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("Conv1d", 1, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv1d` to x (N, L, C); train and key change nothing."""
        return ops.conv1d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv2d(nnx.Module):
    """Own the kernel and bias of `ops.conv2d`.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.conv2d`.
        padding: as in `ops.conv2d`.
        dilation: as in `ops.conv2d`.
        groups: as in `ops.conv2d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features // groups, out_features) kernel.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> Conv2d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 32, 32, 3))).shape
        (1, 16, 16, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("Conv2d", 2, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv2d` to x (N, H, W, C); train and key change nothing."""
        return ops.conv2d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv3d(nnx.Module):
    """Own the kernel and bias of `ops.conv3d`.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.conv3d`.
        padding: as in `ops.conv3d`.
        dilation: as in `ops.conv3d`.
        groups: as in `ops.conv3d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features // groups, out_features) kernel.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> Conv3d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 8, 8, 8, 3))).shape
        (1, 4, 4, 4, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("Conv3d", 3, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv3d` to x (N, D, H, W, C); train and key change nothing."""
        return ops.conv3d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


def _kernel_shape(
    name: str, rank: int, in_features: int, out_features: int, kernel_size: int | Sequence[int], groups: int
) -> tuple[int, ...]:
    window = per_axis(name, "kernel_size", kernel_size, rank)
    if groups < 1 or in_features % groups or out_features % groups:
        raise ValueError(
            f"{name}: groups must divide in_features and out_features, got groups={groups} for {in_features} and"
            f" {out_features}. Use a common divisor."
        )
    return (*window, in_features // groups, out_features)
