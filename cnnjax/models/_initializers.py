"""Normal initialisers with the standard deviations that the papers ask for, without tails.

Draws are cut off at two deviations and then scaled up to have the one asked for: the cut is at 2.27 of that.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from cnnjax.nn import _parameters as parameters


def normal(std: float) -> parameters.Initializer:
    """An initialiser with that standard deviation."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        # nn's own draw, scaled: it has the deviation 1 / sqrt(fan-in), and compiles quickly on CPU.
        return parameters.kernel_init(key, shape, dtype) * (std * math.sqrt(math.prod(shape[:-1])))

    return init


def he_fan_in(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """He et al. 2015, equation 10: activations keep their size on the way forward through ReLUs."""
    return normal(math.sqrt(2 / math.prod(shape[:-1])))(key, shape, dtype)


def he_fan_out(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """He et al. 2015, equation 14: gradients keep their size on the way back through ReLUs."""
    return normal(math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1])))(key, shape, dtype)
