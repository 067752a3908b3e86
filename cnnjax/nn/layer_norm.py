"""Normalisation along axes as modules."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters
from cnnjax.ops.layer_norm import layer_norm, rms_norm


class LayerNorm(nnx.Module):
    """Own the scale and bias of `ops.layer_norm`.

    For a scale a channel where axes besides the channels are normalised (nnx's reduction_axes=(1, 2, 3) with
    feature_axes=-1) take `GroupNorm` with groups=1.

    Args:
        num_features: size of the normalised axis, or one size an axis.
        axis: as in `ops.layer_norm`.
        eps: added to the variance.
        use_scale: whether to own a scale.
        use_bias: whether to own a bias.
        dtype: dtype of the result; None is what x and the parameters promote to.
        param_dtype: dtype of the parameters.
        scale_init: initialiser of the scale.
        bias_init: initialiser of the bias.
        rngs: source of the initialisers' keys.

    Example:
        >>> LayerNorm(3, rngs=nnx.Rngs(0))(jnp.array([[1.0, 1.0, 4.0]])).round(3)
        Array([[-0.707, -0.707,  1.414]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int | Sequence[int],
        *,
        axis: int | Sequence[int] = -1,
        eps: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: parameters.Initializer = parameters.ones_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        rngs: nnx.Rngs,
    ):
        shape = tuple(num_features) if isinstance(num_features, Sequence) else (num_features,)
        self.scale = parameters.create(scale_init, shape, param_dtype, rngs) if use_scale else nnx.data(None)
        self.bias = parameters.create(bias_init, shape, param_dtype, rngs) if use_bias else nnx.data(None)
        self.axis = axis
        self.eps = eps
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.layer_norm` to x; train and key change nothing."""
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        dtype = self.dtype or jnp.result_type(*(v for v in (x, scale, bias) if v is not None))
        return layer_norm(jnp.asarray(x, dtype), scale, bias, axis=self.axis, eps=self.eps)


class RMSNorm(nnx.Module):
    """Own the scale of `ops.rms_norm`.

    Args:
        num_features: size of the normalised axis, or one size an axis.
        axis: as in `ops.layer_norm`.
        eps: added to the mean square.
        use_scale: whether to own a scale.
        dtype: dtype of the result; None is what x and the scale promote to.
        param_dtype: dtype of the scale.
        scale_init: initialiser of the scale.
        rngs: source of the initialiser's key.

    Example:
        >>> RMSNorm(4, rngs=nnx.Rngs(0))(jnp.array([[1.0, 1.0, 5.0, 3.0]])).round(3)
        Array([[0.333, 0.333, 1.667, 1.   ]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int | Sequence[int],
        *,
        axis: int | Sequence[int] = -1,
        eps: float = 1e-6,
        use_scale: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: parameters.Initializer = parameters.ones_init,
        rngs: nnx.Rngs,
    ):
        shape = tuple(num_features) if isinstance(num_features, Sequence) else (num_features,)
        self.scale = parameters.create(scale_init, shape, param_dtype, rngs) if use_scale else nnx.data(None)
        self.axis = axis
        self.eps = eps
        self.dtype = dtype

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.rms_norm` to x; train and key change nothing."""
        scale = None if self.scale is None else self.scale[...]
        dtype = self.dtype or jnp.result_type(*(v for v in (x, scale) if v is not None))
        return rms_norm(jnp.asarray(x, dtype), scale, axis=self.axis, eps=self.eps)
