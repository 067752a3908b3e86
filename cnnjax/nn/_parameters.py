"""How the modules create and read their parameters: as flax.nnx does."""

from collections.abc import Callable, Sequence

import jax
import jax.core
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

Initializer = Callable[..., Array]

_lecun_normal: Initializer = nnx.initializers.lecun_normal()
# On CPU, LLVM takes up to a second to optimise the sampling of each new shape, which then runs once in 20 microseconds.
_lecun_normal_compiled_lightly: Initializer = jax.jit(
    _lecun_normal, static_argnums=(1, 2), compiler_options={"xla_backend_optimization_level": "1"}
)
ones_init: Initializer = nnx.initializers.ones_init()
zeros_init: Initializer = nnx.initializers.zeros_init()


def kernel_init(key: Array, shape: Sequence[int], dtype: DTypeLike = float) -> Array:
    """flax.nnx's default initialiser and its very values, compiled ten times faster on CPU."""
    # Compiler options are refused inside another traced function, and TPUs know other ones.
    if isinstance(key, jax.core.Tracer) or any(device.platform != "cpu" for device in key.devices()):
        return _lecun_normal(key, shape, dtype)
    return _lecun_normal_compiled_lightly(key, tuple(shape), dtype)


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
