"""Pools tap by tap, one axis after the other: for what `lax.reduce_window` cannot do, or JAX not differentiate."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cnnjax.ops._windows import Windows


def slices(x: Array, windows: Windows, axis: int, fill: np.ndarray) -> list[Array]:
    """What each tap sees, over all windows along a spatial axis of x: a strided slice each, `fill` in the padding."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis + 1] = (*windows.pairs[axis], 0)
    padded = lax.pad(x, fill, edges)
    stride = windows.stride[axis]
    reach = (windows.output[axis] - 1) * stride + 1
    starts = [tap * windows.dilation[axis] for tap in range(windows.size[axis])]
    return [lax.slice_in_dim(padded, start, start + reach, stride, axis + 1) for start in starts]


def select(
    arrays: tuple[Array, ...], windows: Windows, fill: np.ndarray, beats: Callable[[Array, Array], Array]
) -> tuple[Array, ...]:
    """Take from every window the element of the first array that none beats, and those beside it in the others.

    As if the elements came in row-major order, each to beat the best so far; the first pixel of a window has nothing
    to beat. `fill` must beat nothing, and is never taken.
    """
    fills = (fill, *(np.zeros((), array.dtype) for array in arrays[1:]))
    rank = len(windows.size)
    for axis in reversed(range(rank)):
        parts = [slices(array, windows, axis, value) for array, value in zip(arrays, fills, strict=True)]
        taps = zip(*parts, strict=True)
        opening = _opening(windows, axis, arrays[0].shape[axis + 1])
        arrays = next(taps)
        for tap, opens in zip(taps, opening[1:], strict=True):
            better = beats(tap[0], arrays[0])
            if opens.any():
                better |= opens.reshape(-1, *(1,) * (rank - axis))
            arrays = tuple(jnp.where(better, new, old) for new, old in zip(tap, arrays, strict=True))
    return arrays


def larger(new: Array, old: Array) -> Array:
    """Whether the new element beats the old one as a maximum: NaN always does. Not lax.max, which shares gradients."""
    return (new > old) | (new != new)


def smaller(new: Array, old: Array) -> Array:
    """Whether the new element beats the old one as a minimum: NaN always does."""
    return (new < old) | (new != new)


def _opening(windows: Windows, axis: int, n: int) -> np.ndarray:
    """For every tap and window along an axis of n pixels, whether it is the window's first on a pixel."""
    starts = np.arange(windows.output[axis]) * windows.stride[axis] - windows.pairs[axis][0]
    places = starts + np.arange(windows.size[axis])[:, None] * windows.dilation[axis]
    inside = (places >= 0) & (places < n)
    return inside & (np.cumsum(inside, axis=0) == 1)
