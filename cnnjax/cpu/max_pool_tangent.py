"""Forward mode through max and min pools: `select_and_gather_add`.

The rules of `max_pool_gradient`, but for padding: it is passed over, and the search starts from -inf (max) or inf (min)
with the tangent 0. Stock visits the places of some unevenly padded windows in another order than row-major, so that
forward and reverse mode disagree on ties there; here they agree.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array, lax
from jax import numpy as jnp

from cnnjax.cpu import taps
from cnnjax.cpu.max_pool_gradient import LIMIT, PREFERENCES
from cnnjax.cpu.taps import Pads, Sizes


def choose_gather(
    tangents: Any,
    operand: Any,
    *,
    select_prim: Any,
    window_dimensions: Sizes,
    window_strides: Sizes,
    padding: Pads,
    base_dilation: Sizes,
    window_dilation: Sizes,
) -> Callable[[Array, Array], Array] | None:
    """A faster `select_and_gather_add` for these arguments, or None."""
    geometry = window_dimensions, window_strides, padding, base_dilation, window_dilation
    if not taps.is_covered(operand, *geometry) or math.prod(window_dimensions) > LIMIT:
        return None
    prefers, worst = PREFERENCES[select_prim]
    window = window_dimensions, window_strides, window_dilation
    inside = _inside(operand.shape, *geometry)

    def gather(tangents: Array, operand: Array) -> Array:
        values = taps.taps(taps.pad(operand, worst, padding, base_dilation), *window)
        slopes = taps.taps(taps.pad(tangents, 0.0, padding, base_dilation), *window)
        sizes = taps.counts(operand.shape, *geometry)
        best, slope = jnp.full(sizes, worst, operand.dtype), jnp.zeros(sizes, tangents.dtype)
        for value, its_slope, is_inside in zip(values, slopes, inside, strict=True):
            keep = prefers(best, value)
            # Only a NaN can tell: any element replaces it, but padding does not.
            keep = keep if is_inside.all() else keep | ~is_inside
            best, slope = lax.select(keep, best, value), lax.select(keep, slope, its_slope)
        return slope

    return gather


def _inside(
    shape: Sizes, window: Sizes, stride: Sizes, padding: Pads, base: Sizes, dilation: Sizes
) -> list[np.ndarray]:
    """For each place of the window, which windows see an element there, not padding."""
    sizes = taps.counts(shape, window, stride, padding, base, dilation)
    inside = []
    for place in taps.places(window):
        axes = zip(place, shape, stride, padding, base, dilation, sizes, strict=True)
        position = np.ix_(*(np.arange(m) * s + p * d - lo for p, _, s, (lo, _), _, d, m in axes))
        limits = zip(position, shape, base, strict=True)
        elements = [(i >= 0) & (i <= (n - 1) * b) & (i % b == 0) for i, n, b in limits]
        inside.append(functools.reduce(np.logical_and, elements))
    return inside
