"""Taps: what each place of a window sees of an array, and the way back from the windows to the array."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax import numpy as jnp

Sizes = Sequence[int]
Pads = Sequence[tuple[int, int]]
FLOATS = ("float32", "float64", "bfloat16", "float16")
# More terms than this in one loop are computed axis by axis.
AT_ONCE = 12


def counts(shape: Sizes, window: Sizes, stride: Sizes, padding: Pads, base: Sizes, dilation: Sizes) -> list[int]:
    """How many windows fit along each axis."""
    axes = zip(shape, window, stride, padding, base, dilation, strict=True)
    return [((n - 1) * b + lo + hi - (k - 1) * d) // s + 1 for n, k, s, (lo, hi), b, d in axes]


def pad(x: Array, value: float, padding: Pads, base: Sizes | None = None) -> Array:
    """Put `padding` at the ends of each axis, and `base - 1` values between neighbours."""
    base = base or (1,) * x.ndim
    config = [(lo, hi, b - 1) for (lo, hi), b in zip(padding, base, strict=True)]
    return lax.pad(x, jnp.asarray(value, x.dtype), config) if any(map(any, config)) else x


def apart(f: Callable[..., Array], *arrays: Array) -> Array:
    """f(*arrays), held in memory: XLA would otherwise compute it anew inside each of its uses."""
    shape = jax.eval_shape(f, *arrays)
    # XLA drops a barrier around an array before it fuses, but fuses nothing into or out of a conditional.
    always = lax.optimization_barrier(jnp.array(True))
    return lax.cond(always, f, lambda *_: jnp.zeros(shape.shape, shape.dtype), *arrays)


def places(window: Sizes) -> Iterator[tuple[int, ...]]:
    """The places of a window in row-major order."""
    return itertools.product(*map(range, window))


def taps(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Iterator[Array]:
    """For each place of the window, what all windows of x see there."""
    axes = list(zip(x.shape, window, stride, dilation, strict=True))
    span = [(n - (k - 1) * d - 1) // s * s + 1 for n, k, s, d in axes]
    for place in places(window):
        start = [p * d for p, d in zip(place, dilation, strict=True)]
        yield lax.slice(x, start, [a + b for a, b in zip(start, span, strict=True)], stride)


def fold(op: Any, start: float, x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """Reduce each window of x by an `op` whose neutral element is `start`."""
    if math.prod(window) <= AT_ONCE:
        return functools.reduce(op, taps(x, window, stride, dilation))
    ones = [1] * x.ndim
    fits = counts(x.shape, window, stride, [(0, 0)] * x.ndim, ones, dilation)
    if all((m == 1 or k == s) and d == 1 for m, k, s, d in zip(fits, window, stride, dilation, strict=True)):
        whole = lax.slice(x, [0] * x.ndim, [m * k for m, k in zip(fits, window, strict=True)])
        split = whole.reshape([n for mk in zip(fits, window, strict=True) for n in mk])
        return lax.reduce(split, jnp.asarray(start, x.dtype), op, range(1, 2 * x.ndim, 2))
    for axis, (k, s, d) in enumerate(zip(window, stride, dilation, strict=True)):
        if k > 1 or s > 1:
            x = apart(functools.partial(_fold_axis, op, axis, k, s, d), x)
    return x


def _fold_axis(op: Any, axis: int, window: int, stride: int, dilation: int, x: Array) -> Array:
    """Reduce the windows along one axis; a long window as its two halves."""

    def see(x: Array, window: int, stride: int, dilation: int) -> Iterator[Array]:
        return taps(x, *([n if a == axis else 1 for a in range(x.ndim)] for n in (window, stride, dilation)))

    if window <= AT_ONCE:
        return functools.reduce(op, see(x, window, stride, dilation))
    half = window // 2
    halves = apart(functools.partial(_fold_axis, op, axis, half, 1, dilation), x)
    pair = functools.reduce(op, see(halves, 2, stride, half * dilation))
    if window % 2 == 0:
        return pair
    last = lax.slice_in_dim(x, (window - 1) * dilation, None, stride, axis)
    return op(lax.slice_in_dim(pair, 0, last.shape[axis], axis=axis), last)


class Cover(NamedTuple):
    """Which windows of one axis cover which of its `size` positions.

    Window o covers the positions o * stride - offset + (0 ... window - 1). Position i lies in the block
    q = (i + offset) // stride, at the phase that remains. The windows q, q - 1, ... q - reach + 1 may cover it: to
    them it is the place phase, phase + stride, ...
    """

    size: int
    window: int
    stride: int
    offset: int

    @property
    def reach(self) -> int:
        """How many windows may cover one position."""
        return -(-self.window // self.stride)

    @property
    def blocks(self) -> int:
        """How many blocks hold the positions."""
        return -(-(self.offset % self.stride + self.size) // self.stride)

    def around(self, windows: int) -> tuple[int, int]:
        """How many windows to add to (0 ... windows - 1) at both ends, so that each block has its `reach`."""
        before = self.reach - 1 - self.offset // self.stride
        return before, self.blocks + self.reach - 1 - before - windows

    def padding(self, windows: int) -> tuple[int, int]:
        """The padding of the positions in which (0 ... windows - 1) and those `around` them lie."""
        before, after = self.around(windows)
        low = self.offset + before * self.stride
        return low, max(0, (before + windows + after - 1) * self.stride + self.window - low - self.size)


def cover(size: int, window: int, stride: int, offset: int, windows: int) -> Cover:
    """The cover of one axis; a window alone there has no stride, and is taken for one that reaches all at once."""
    return Cover(size, window, stride if windows > 1 else max(stride, window), offset)


def spread(term: Callable[..., Array], covers: Sequence[Cover], *arrays: Array) -> Array:
    """Sum, at each position, `term(place, *values)` over the windows that may cover it.

    Each array has a value for each window, `Cover.around` included. The place within the window is given axis by
    axis, and lies beyond the window where the window does not cover the position.
    """
    split = [n for c in covers for n in (c.blocks, c.stride)]

    def phase(axis: int, stride: int) -> Array | int:
        along = [stride if a == 2 * axis + 1 else 1 for a in range(len(split))]
        return lax.broadcasted_iota(jnp.int32, along, 2 * axis + 1) if stride > 1 else 0

    phases = [phase(axis, c.stride) for axis, c in enumerate(covers)]
    terms = []
    for back in places([c.reach for c in covers]):
        place = [p + j * c.stride for p, j, c in zip(phases, back, covers, strict=True)]
        start = [c.reach - 1 - j for j, c in zip(back, covers, strict=True)]
        stop = [a + c.blocks for a, c in zip(start, covers, strict=True)]
        values = [lax.slice(x, start, stop).reshape([n for c in covers for n in (c.blocks, 1)]) for x in arrays]
        terms.append(term(place, *values))
    whole = jnp.broadcast_to(functools.reduce(lax.add, terms), split).reshape([c.blocks * c.stride for c in covers])
    start = [c.offset % c.stride for c in covers]
    return lax.slice(whole, start, [a + c.size for a, c in zip(start, covers, strict=True)])


def in_float32(formulation: Callable[..., Array]) -> Callable[..., Array]:
    """The formulation, computed in float32 where its operands have half of that: as exact, and vectorised."""

    def wide(*operands: Array) -> Array:
        dtype = operands[0].dtype
        return formulation(*(x.astype(jnp.promote_types(dtype, jnp.float32)) for x in operands)).astype(dtype)

    return wide


def is_covered(operand: Any, window: Sizes, stride: Sizes, padding: Pads, base: Sizes, dilation: Sizes) -> bool:
    """Whether the operand and the result hold floating-point numbers."""
    fits = counts(operand.shape, window, stride, padding, base, dilation)
    return operand.dtype.name in FLOATS and min(*operand.shape, *fits, 1) > 0


def is_line(window: Sizes) -> bool:
    """Whether the window is a short one along a single axis: stock vectorises that as well as anyone."""
    return sum(k > 1 for k in window) <= 1 and max(window) <= AT_ONCE
