"""Normalisation as modules."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import ops
from cnnjax.nn import _parameters as parameters


class BatchNorm(nnx.Module):
    """Own the scale and bias of `ops.batch_norm`, and the statistics that it remembers.

    Called with train=True it updates `mean` and `var` in place, as nnx.BatchNorm does; inside a train step they
    come back as part of the model's state.

    Args:
        num_features: number of channels C.
        decay: share of the remembered statistics that a step keeps (nnx's momentum; 1 - PyTorch's).
        eps: added to the variance.
        use_scale: whether to own a scale.
        use_bias: whether to own a bias.
        dtype: dtype of the result; None is what x and the parameters promote to.
        param_dtype: dtype of scale and bias; the statistics are float32 or wider.
        scale_init: initialiser of the (C,) scale.
        bias_init: initialiser of the (C,) bias.
        axis_name: mapped axis over which training statistics are averaged; `train.parallel` sets it.
        rngs: source of the initialisers' keys.

    Example:
        >>> norm = BatchNorm(2, decay=0.9, rngs=nnx.Rngs(0))
        >>> _ = norm(jnp.array([[1.0, 2.0], [3.0, 2.0]]), train=True)
        >>> norm.mean[...]
        Array([0.2, 0.2], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        decay: float = 0.99,
        eps: float = 1e-5,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        scale_init: parameters.Initializer = parameters.ones_init,
        bias_init: parameters.Initializer = parameters.zeros_init,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (num_features,)
        wide = jnp.promote_types(param_dtype, jnp.float32)
        self.mean = nnx.BatchStat(jnp.zeros(shape, wide))
        self.var = nnx.BatchStat(jnp.ones(shape, wide))
        self.scale = parameters.create(scale_init, shape, param_dtype, rngs) if use_scale else nnx.data(None)
        self.bias = parameters.create(bias_init, shape, param_dtype, rngs) if use_bias else nnx.data(None)
        self.decay = decay
        self.eps = eps
        self.dtype = dtype
        self.axis_name = axis_name

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Apply `ops.batch_norm` to x (N, *spatial, C); key changes nothing."""
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        dtype = self.dtype or jnp.result_type(*(v for v in (x, scale, bias) if v is not None))
        y, mean, var = ops.batch_norm(
            jnp.asarray(x, dtype),
            scale,
            bias,
            self.mean[...],
            self.var[...],
            train=train,
            decay=self.decay,
            eps=self.eps,
            axis_name=self.axis_name,
        )
        if train:
            self.mean[...] = mean
            self.var[...] = var
        return y
