"""How the modules create and read their parameters: as flax.nnx does."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

Initializer = Callable[..., Array]

kernel_init: Initializer = nnx.initializers.lecun_normal()
ones_init: Initializer = nnx.initializers.ones_init()
zeros_init: Initializer = nnx.initializers.zeros_init()


def create(init: Initializer, shape: Sequence[int], dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Param[Array]:
    """A parameter with its own key: the keys are drawn in flax.nnx's order, so equal seeds give equal values."""
    return nnx.Param(init(rngs.params(), tuple(shape), dtype))


def cast(
    dtype: DTypeLike | None, x: Array, kernel: nnx.Param[Array], bias: nnx.Param[Array] | None
) -> tuple[Array, Array, Array | None]:
    """The operands in one dtype: the one asked for, else the one that they promote to."""
    kernel_value, bias_value = kernel[...], None if bias is None else bias[...]
    common = dtype or jnp.result_type(*(v for v in (x, kernel_value, bias_value) if v is not None))
    return (
        jnp.asarray(x, common),
        kernel_value.astype(common),
        None if bias_value is None else bias_value.astype(common),
    )
