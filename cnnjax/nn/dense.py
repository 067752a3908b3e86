"""The fully connected layer as a module."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import ops
from cnnjax.nn import _parameters as parameters


class Dense(nnx.Module):
    """Own the kernel and bias of `ops.dense`.

    Args:
        in_features: size of the last axis of x.
        out_features: size of the last axis of the result.
        use_bias: whether to add a bias.
        dtype: dtype of the computation; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        kernel_init: initialiser of the (in_features, out_features) kernel.
        bias_init: initialiser of the (out_features,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> Dense(3, 2, rngs=nnx.Rngs(0))(jnp.ones((4, 3))).shape
        (4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: parameters.Initializer = parameters.kernel_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        self.kernel = parameters.create(kernel_init, (in_features, out_features), param_dtype, rngs)
        self.bias = parameters.create(bias_init, (out_features,), param_dtype, rngs) if use_bias else nnx.data(None)
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.dense` to x (..., in_features); train and key change nothing."""
        return ops.dense(*parameters.cast(self.dtype, x, self.kernel, self.bias))
