"""Maximum and minimum over windows: `reduce_window_max` and `reduce_window_min`."""

from collections.abc import Callable
from typing import Any

from jax import Array, lax
from jax import numpy as jnp

from cnnjax.cpu import taps
from cnnjax.cpu.taps import Pads, Sizes

Formulation = Callable[[Array], Array]


def choose_max(operand: Any, **params: Any) -> Formulation | None:
    """A faster `reduce_window_max` for these arguments, or None."""
    return _choose(lax.max, -jnp.inf, operand, **params)


def choose_min(operand: Any, **params: Any) -> Formulation | None:
    """A faster `reduce_window_min` for these arguments, or None."""
    return _choose(lax.min, jnp.inf, operand, **params)


def _choose(
    op: Any,
    worst: float,
    operand: Any,
    *,
    window_dimensions: Sizes,
    window_strides: Sizes,
    padding: Pads,
    base_dilation: Sizes,
    window_dilation: Sizes,
) -> Formulation | None:
    geometry = window_dimensions, window_strides, padding, base_dilation, window_dilation
    if taps.is_line(window_dimensions) or not taps.is_covered(operand, *geometry):
        return None

    def pool(x: Array) -> Array:
        padded = taps.pad(x, worst, padding, base_dilation)
        return taps.fold(op, worst, padded, window_dimensions, window_strides, window_dilation)

    return taps.in_float32(pool)
