"""Normalisation of groups of channels as modules."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.ops.group_norm import group_norm, instance_norm


class GroupNorm(nnx.Module):
    """Own the scale and bias of `ops.group_norm`.

    Args:
        num_features: number of channels C.
        groups: number of groups; divides C. C // groups is what nnx calls group_size.
        eps: added to the variance.
        use_scale: whether to own a scale.
        use_bias: whether to own a bias.
        dtype: dtype of the result; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        scale_init: initialiser of the (C,) scale.
        bias_init: initialiser of the (C,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> GroupNorm(4, groups=2, rngs=nnx.Rngs(0))(jnp.array([[1.0, 3.0, 10.0, 50.0]])).round(3)
        Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        groups: int = 32,
        eps: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: parameters.Initializer = parameters.ones_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        if groups < 1 or num_features % groups:
            raise ValueError(
                f"GroupNorm: groups must divide num_features, got groups={groups} for {num_features}. Use a divisor."
            )
        shape = (num_features,)
        self.scale = parameters.create(scale_init, shape, param_dtype, rngs) if use_scale else nnx.data(None)
        self.bias = parameters.create(bias_init, shape, param_dtype, rngs) if use_bias else nnx.data(None)
        self.groups = groups
        self.eps = eps
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.group_norm` to x (N, *spatial, C); train and key change nothing."""
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        dtype = self.dtype or jnp.result_type(*(v for v in (x, scale, bias) if v is not None))
        return group_norm(jnp.asarray(x, dtype), scale, bias, groups=self.groups, eps=self.eps)


class InstanceNorm(nnx.Module):
    """Own the scale and bias of `ops.instance_norm`.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        use_scale: whether to own a scale.
        use_bias: whether to own a bias.
        dtype: dtype of the result; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        scale_init: initialiser of the (C,) scale.
        bias_init: initialiser of the (C,) bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> InstanceNorm(1, rngs=nnx.Rngs(0))(jnp.array([1.0, 1.0, 4.0]).reshape(1, 3, 1)).ravel().round(3)
        Array([-0.707, -0.707,  1.414], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: parameters.Initializer = parameters.ones_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = (num_features,)
        self.scale = parameters.create(scale_init, shape, param_dtype, rngs) if use_scale else nnx.data(None)
        self.bias = parameters.create(bias_init, shape, param_dtype, rngs) if use_bias else nnx.data(None)
        self.eps = eps
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.instance_norm` to x (N, *spatial, C); train and key change nothing."""
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        dtype = self.dtype or jnp.result_type(*(v for v in (x, scale, bias) if v is not None))
        return instance_norm(jnp.asarray(x, dtype), scale, bias, eps=self.eps)
