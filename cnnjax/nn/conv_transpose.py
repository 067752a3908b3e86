"""Transposed convolutions as modules."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.ops._arguments import Padding, per_axis
from cnnjax.ops.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d


class ConvTranspose1d(nnx.Module):
    """Own the kernel and bias of `ops.conv_transpose1d`.

    Weights come from `nnx.ConvTranspose` as for `ConvTranspose2d`: kernel = theirs[::-1].

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.conv_transpose1d`.
        padding: as in `ops.conv_transpose1d`.
        output_padding: as in `ops.conv_transpose1d`.
        dilation: as in `ops.conv_transpose1d`.
        groups: as in `ops.conv_transpose1d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features, out_features // groups) kernel; None as in
            `ConvTranspose2d`.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> ConvTranspose1d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 16, 3))).shape
        (1, 32, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer | None = None,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("ConvTranspose1d", 1, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init or _kernel_init(groups), shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, (out_features,), param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv_transpose1d` to x (N, L, C); train and key change nothing."""
        return conv_transpose1d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose2d(nnx.Module):
    """Own the kernel and bias of `ops.conv_transpose2d`.

    Equal seeds give what `nnx.ConvTranspose` computes, but its kernel lies flipped: to move a state tree, set
    kernel = theirs[::-1, ::-1], or theirs.swapaxes(2, 3) if it was made with transpose_kernel. Amounts of padding
    mean something else there; see `ops.conv_transpose2d`.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.conv_transpose2d`.
        padding: as in `ops.conv_transpose2d`.
        output_padding: as in `ops.conv_transpose2d`.
        dilation: as in `ops.conv_transpose2d`.
        groups: as in `ops.conv_transpose2d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features, out_features // groups) kernel; None is
            the lecun_normal of `nnx.ConvTranspose`, with the fan-in of one group.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> ConvTranspose2d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 16, 16, 3))).shape
        (1, 32, 32, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer | None = None,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("ConvTranspose2d", 2, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init or _kernel_init(groups), shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, (out_features,), param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv_transpose2d` to x (N, H, W, C); train and key change nothing."""
        return conv_transpose2d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose3d(nnx.Module):
    """Own the kernel and bias of `ops.conv_transpose3d`.

    Weights come from `nnx.ConvTranspose` as for `ConvTranspose2d`: kernel = theirs[::-1, ::-1, ::-1].

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.conv_transpose3d`.
        padding: as in `ops.conv_transpose3d`.
        output_padding: as in `ops.conv_transpose3d`.
        dilation: as in `ops.conv_transpose3d`.
        groups: as in `ops.conv_transpose3d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features, out_features // groups) kernel; None as in
            `ConvTranspose2d`.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> ConvTranspose3d(3, 8, 5, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 4, 4, 3))).shape
        (1, 8, 8, 8, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer | None = None,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("ConvTranspose3d", 3, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init or _kernel_init(groups), shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, (out_features,), param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.conv_transpose3d` to x (N, D, H, W, C); train and key change nothing."""
        return conv_transpose3d(
            *parameters.cast(self.dtype, x, self.kernel, self.bias),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


def _kernel_init(groups: int) -> parameters.Initializer:
    """nnx's values, where our layout puts them; with groups, an output sums that many times fewer products."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        kernel = parameters.kernel_init(key, shape, dtype)
        return jnp.flip(kernel, tuple(range(kernel.ndim - 2))) * math.sqrt(groups)

    return init


def _kernel_shape(
    name: str, rank: int, in_features: int, out_features: int, kernel_size: int | Sequence[int], groups: int
) -> tuple[int, ...]:
    window = per_axis(name, "kernel_size", kernel_size, rank)
    if groups < 1 or in_features % groups or out_features % groups:
        raise ValueError(
            f"{name}: groups must divide in_features and out_features, got groups={groups} for {in_features} and"
            f" {out_features}. Use a common divisor."
        )
    return (*window, in_features, out_features // groups)
