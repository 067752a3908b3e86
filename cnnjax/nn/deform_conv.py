"""Deformable convolution as a module."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.nn.conv import _kernel_shape
from cnnjax.ops._arguments import Padding
from cnnjax.ops.deform_conv import deform_conv2d


class DeformConv2d(nnx.Module):
    """Own the kernel and bias of `ops.deform_conv2d`.

    Offset and mask are inputs, as in torchvision: compute them from x with a `Conv2d` of the same stride and padding,
    and kernel_init=nnx.initializers.zeros_init(), so that training starts from a plain convolution.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        kernel_size: size of the window, an int or one an axis.
        stride: as in `ops.deform_conv2d`.
        padding: as in `ops.deform_conv2d`.
        dilation: as in `ops.deform_conv2d`.
        groups: as in `ops.deform_conv2d`.
        offset_groups: as in `ops.deform_conv2d`.
        use_bias: whether to add a bias.
        dtype: dtype of the computation but for the offset; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (*kernel_size, in_features // groups, out_features) kernel.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> x, rngs = jnp.ones((1, 32, 32, 3)), nnx.Rngs(0)
        >>> offset = nn.Conv2d(3, 2 * 9, 3, stride=2, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        >>> DeformConv2d(3, 8, 3, stride=2, rngs=rngs)(x, offset(x)).shape
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
        offset_groups: int = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = _kernel_shape("DeformConv2d", 2, in_features, out_features, kernel_size, groups)
        self.kernel = parameters.create(kernel_init, shape, param_dtype, rngs)
        self.bias = parameters.create(bias_init, shape[-1:], param_dtype, rngs) if use_bias else nnx.data(None)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.offset_groups = offset_groups
        self.dtype = dtype

    def __call__(
        self, x: Array, offset: Array, mask: Array | None = None, *, train: bool = False, key: Array | None = None
    ) -> Array:
        """Apply `ops.deform_conv2d` to x (N, H, W, C); train and key change nothing."""
        x, kernel, bias = parameters.cast(self.dtype, x, self.kernel, self.bias)
        return deform_conv2d(
            x,
            kernel,
            offset,
            None if mask is None else mask.astype(x.dtype),
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            offset_groups=self.offset_groups,
        )
