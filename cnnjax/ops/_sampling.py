"""Reading between the pixels: which of them a point lies among, with which weights, and their weighted sum."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cnnjax.ops import _arguments as arguments


class Taps(NamedTuple):
    """The pixels of one axis that points lie among, each field (*points, taps). Those outside count as zeros."""

    pixel: Array
    inside: Array
    weight: Array


def nearest(position: Array, n: int) -> Taps:
    """The closest pixel, and of two the even one."""
    return _taps([jnp.round(position)], [jnp.ones_like(position)], n)


def linear(position: Array, n: int) -> Taps:
    """The pixels before and after."""
    low = jnp.floor(position)
    after = position - low
    return _taps([low, low + 1], [1 - after, after], n)


def cubic(position: Array, n: int, inward: Callable[[Array], Array], *, a: float = -0.75) -> Taps:
    """The two pixels before and the two after, each moved by `inward`; a is the kernel's slope at a distance of 1."""
    low = jnp.floor(position)
    after = position - low

    def near(d: Array) -> Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights = [far(after + 1), near(after), near(1 - after), far(2 - after)]
    return _taps([inward(low + step) for step in (-1, 0, 1, 2)], weights, n)


def sample(x: Array, axes: Sequence[Taps], *, groups: int = 1) -> Array:
    """Add up the weighted pixels of x (N, *spatial, C) at points (N, *points): (N, *points, C // groups), in float32
    at least.

    With groups of channels the last axis of the points is one point a group, which that group alone is read at.
    """
    spatial = x.shape[1:-1]
    taps = axes[0]
    for inner, n in zip(axes[1:], spatial[1:], strict=True):
        index = _products(operator.add, taps.pixel * n, inner.pixel)
        taps = Taps(index, *map(functools.partial(_products, operator.mul), taps[1:], inner[1:]))
    index = taps.pixel * groups + np.arange(groups, dtype=np.int32)[:, None] if groups > 1 else taps.pixel
    # Widened before it is read: the gradient of the reading is a sum over all points that read a pixel.
    pixels = arguments.wide(x).reshape(x.shape[0], math.prod(spatial) * groups, x.shape[-1] // groups)
    # Mapped over the batch, so that a batch shared out over devices is read where it lies.
    values = jax.vmap(lambda pixels, index: pixels.at[index].get(mode="promise_in_bounds"))(pixels, index)
    values = jnp.where(taps.inside[..., None], values, 0)
    # A matrix product, whose gradient XLA:CPU computes up to twenty times faster than that of a sum of products.
    return jnp.einsum("...k,...kc->...c", taps.weight.astype(values.dtype), values, precision=lax.Precision.HIGHEST)


def _taps(places: Sequence[Array], weights: Sequence[Array], n: int) -> Taps:
    place = jnp.stack(places, -1)
    inside = (place >= 0) & (place <= n - 1)
    return Taps(jnp.where(inside, place, 0).astype(jnp.int32), inside, jnp.stack(weights, -1))


def _products(combine: Callable[[Array, Array], Array], outer: Array, inner: Array) -> Array:
    """Every tap of one axis with every tap of the next, in row-major order."""
    table = combine(outer[..., :, None], inner[..., None, :])
    return table.reshape(*table.shape[:-2], outer.shape[-1] * inner.shape[-1])
