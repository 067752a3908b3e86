"""Sums over windows: `reduce_window_sum`, the forward and, with a dilated operand, the backward of average pools."""

import math
from collections.abc import Callable
from typing import Any

from jax import Array, lax
from jax import numpy as jnp

from cnnjax.cpu import taps
from cnnjax.cpu.taps import Cover, Pads, Sizes

# Where more elements than this overlap, zeros are put between them instead.
LIMIT = 27


def choose_sum(
    operand: Any,
    *,
    window_dimensions: Sizes,
    window_strides: Sizes,
    padding: Pads,
    base_dilation: Sizes,
    window_dilation: Sizes,
) -> Callable[[Array], Array] | None:
    """A faster `reduce_window_sum` for these arguments, or None."""
    geometry = window_dimensions, window_strides, padding, base_dilation, window_dilation
    if not taps.is_covered(operand, *geometry):
        return None
    covers = _covers(operand.shape, *geometry)
    overlap = math.prod(c.reach for c in covers)
    if taps.is_line(window_dimensions) and overlap > 1:
        return None
    one_by_one = all(s == d == 1 for s, d in zip(window_strides, window_dilation, strict=True))
    if one_by_one and any(c.stride > 1 for c in covers) and overlap <= LIMIT:
        return taps.in_float32(_spread_sum(covers))

    def pool(x: Array) -> Array:
        padded = taps.pad(x, 0.0, padding, base_dilation)
        return taps.fold(lax.add, 0.0, padded, window_dimensions, window_strides, window_dilation)

    return taps.in_float32(pool)


def _covers(shape: Sizes, window: Sizes, stride: Sizes, padding: Pads, base: Sizes, dilation: Sizes) -> list[Cover]:
    """The sum as the way back from a pool: element o of the operand goes to the positions its window covers."""
    sizes = taps.counts(shape, window, stride, padding, base, dilation)
    axes = zip(sizes, window, base, padding, shape, strict=True)
    return [taps.cover(n, k, b, k - 1 - lo, m) for n, k, b, (lo, _), m in axes]


def _spread_sum(covers: list[Cover]) -> Callable[[Array], Array]:
    ragged = [axis for axis, c in enumerate(covers) if c.window % c.stride]

    def term(place: list[Any], x: Array) -> Array:
        for axis in ragged:
            x = jnp.where(place[axis] < covers[axis].window, x, 0)
        return x

    def summed(x: Array) -> Array:
        around = [c.around(n) for c, n in zip(covers, x.shape, strict=True)]
        return taps.spread(term, covers, taps.pad(x, 0.0, around))

    return summed
