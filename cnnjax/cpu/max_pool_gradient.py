"""The way back through max and min pools: `select_and_scatter_add`.

Stock keeps its best element while that is >= (max) or <= (min) the next one, in row-major order: the first of equals
wins, and a NaN loses to whatever comes after it. Padding takes part as -inf or inf; where it wins, nothing is sent.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jax import Array, lax
from jax import numpy as jnp

from cnnjax.cpu import taps
from cnnjax.cpu.taps import Pads, Sizes

# A window of more places than this, or positions in more windows, keep the stock rule: it compiles faster.
LIMIT = 64
PREFERENCES = {lax.ge_p: (lax.ge, -jnp.inf), lax.le_p: (lax.le, jnp.inf)}


def choose_scatter(
    source: Any, operand: Any, *, select_prim: Any, window_dimensions: Sizes, window_strides: Sizes, padding: Pads
) -> Callable[[Array, Array], Array] | None:
    """A faster `select_and_scatter_add` for these arguments, or None."""
    ones = [1] * len(window_dimensions)
    if not taps.is_covered(operand, window_dimensions, window_strides, padding, ones, ones):
        return None
    axes = zip(operand.shape, window_dimensions, window_strides, padding, source.shape, strict=True)
    covers = [taps.cover(n, k, s, lo, m) for n, k, s, (lo, _), m in axes]
    if max(math.prod(window_dimensions), math.prod(c.reach for c in covers)) > LIMIT:
        return None
    around = [c.around(m) for c, m in zip(covers, source.shape, strict=True)]
    ends = [c.padding(m) for c, m in zip(covers, source.shape, strict=True)]
    code = _code([c.reach * c.stride for c in covers])
    prefers, worst = PREFERENCES[select_prim]

    def winner(x: Array) -> Array:
        best, *others = taps.taps(x, window_dimensions, window_strides, ones)
        here, *places = (jnp.full(best.shape, code(place)) for place in taps.places(window_dimensions))
        for other, there in zip(others, places, strict=True):
            keep = prefers(best, other)
            best, here = lax.select(keep, best, other), lax.select(keep, here, there)
        return here

    def term(place: Sequence[Array | int], won: Array, gradient: Array) -> Array:
        return jnp.where(won == code(place), gradient, jnp.zeros((), gradient.dtype))

    def scatter(source: Array, operand: Array) -> Array:
        # The windows around the given ones have no gradient: whatever wins there.
        won = taps.apart(winner, taps.pad(operand, worst, ends))
        return taps.spread(term, covers, won, taps.pad(source, 0.0, around))

    return taps.in_float32(scatter)


def _code(lengths: Sizes) -> Callable[[Sequence[Any]], Array]:
    """Number the places of a box of these lengths, in the smallest type that holds them."""
    weights = [math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
    dtype = jnp.int8 if math.prod(lengths) <= 128 else jnp.int32
    return lambda place: jnp.asarray(sum(p * w for p, w in zip(place, weights, strict=True))).astype(dtype)
