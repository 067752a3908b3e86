"""Which pixels every output of a resized axis sees, and with which weights: tables in NumPy, built while tracing."""

import functools
import math
import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")

_UNROLLED = 16
"""Taps that are gathered one by one, which XLA fuses into one pass; unrolling more takes seconds to compile."""


class Table(NamedTuple):
    """A sparse matrix: for every output its taps, (outputs, taps) indices and weights. Index `pixels` means no tap."""

    indices: np.ndarray
    weights: np.ndarray
    pixels: int

    def columns(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """The first taps of all outputs, then the second, and so on."""
        return zip(self.indices.T, self.weights.T, strict=True)

    def transposed(self) -> "Table":
        """For every pixel the outputs that see it."""
        outputs, taps = np.nonzero(self.indices < self.pixels)
        seen = self.indices[outputs, taps]
        order = np.argsort(seen, kind="stable")
        counts = np.bincount(seen, minlength=self.pixels)
        place = seen[order], np.arange(seen.size) - np.repeat(np.cumsum(counts) - counts, counts)
        indices = np.full((self.pixels, counts.max()), len(self.indices))
        weights = np.zeros(indices.shape)
        indices[place], weights[place] = outputs[order], self.weights[outputs, taps][order]
        return Table(indices, weights, len(self.indices))

    def grouped(self) -> tuple["Table", int]:
        """A table of at most `_UNROLLED` taps, and how many of its rows add up to one of this."""
        rows, taps = self.indices.shape
        groups = -(-taps // _UNROLLED)
        width = -(-taps // groups)
        margin = [(0, 0), (0, groups * width - taps)]
        indices = np.pad(self.indices, margin, constant_values=self.pixels).reshape(rows * groups, width)
        weights = np.pad(self.weights, margin).reshape(rows * groups, width)
        return Table(indices, weights, self.pixels), groups


class Grid(NamedTuple):
    """Where the outputs of an axis lie: positions in pixels, 0 the centre of the first, and the step between two."""

    position: np.ndarray
    step: float


def grid(pixels: int, outputs: int, scale: float | None, coordinates: str) -> Grid:
    """Lay the outputs over the pixels. Products before quotients: what is a whole number comes out as one."""
    i = np.arange(outputs)
    if coordinates == "align_corners":
        intervals = max(outputs - 1, 1)
        return Grid(i * (pixels - 1) / intervals, (pixels - 1) / intervals if outputs > 1 else 0.0)
    size, resized = (pixels, outputs) if scale is None else (1, scale)
    match coordinates:
        case "asymmetric":
            position = i * size / resized
        case "half_pixel_symmetric" if scale is not None:
            position = (i + 0.5 - outputs / 2) * size / resized + pixels / 2 - 0.5
        case "pytorch_half_pixel" if outputs == 1:
            position = np.zeros(1)
        case _:
            position = (i + 0.5) * size / resized - 0.5
    return Grid(position, size / resized)


def nearest(grid: Grid, pixels: int, rounding: str) -> Table:
    """One pixel an output: the first or the second of the two that it lies between."""
    first = np.floor(grid.position)
    after = grid.position - first
    seconds = {"floor": False, "ceil": after > 0, "round_prefer_floor": after > 0.5, "round_prefer_ceil": after >= 0.5}
    return _picked(pixels, first + seconds[rounding])


def torch_nearest(pixels: int, outputs: int, scale: float | None, *, exact: bool) -> Table:
    """PyTorch's pixels: floor(i * step), or floor((i + 0.5) * step), in float32 whatever the dtype of x."""
    step = np.float32(pixels) / np.float32(outputs) if scale is None else np.float32(1 / scale)
    if outputs == 2 * pixels and not exact:
        step = np.float32(0.5)
    edges = (np.arange(outputs) + 0.5 * exact) * np.float64(step)
    return _picked(pixels, np.floor(edges.astype(np.float32)))


def _picked(pixels: int, indices: np.ndarray) -> Table:
    indices = np.clip(indices, 0, pixels - 1).astype(int)[:, None]
    return Table(indices, np.ones(indices.shape), pixels)


def area(pixels: int, outputs: int) -> Table:
    """The mean over the pixels that an output's share of the axis touches."""
    i = np.arange(outputs)
    first, last = i * pixels // outputs, -((i + 1) * pixels // -outputs)
    counts = (last - first)[:, None]
    indices = first[:, None] + np.arange(counts.max())
    present = indices < last[:, None]
    return Table(np.where(present, indices, pixels), present / counts, pixels)


def filtered(
    grid: Grid,
    pixels: int,
    kernel: Callable[[np.ndarray], np.ndarray],
    radius: int,
    *,
    antialias: bool,
    exclude_outside: bool,
) -> Table:
    """Weights from a kernel around each position, which `antialias` stretches to the step between two.

    A tap outside the axis stands for the pixel at the edge, or is left out and the others make up for it.
    """
    stretch = max(grid.step, 1.0) if antialias else 1.0
    reach = radius * stretch
    position = grid.position[:, None]
    indices = np.floor(position - reach).astype(int) + np.arange(1, math.ceil(2 * reach) + 1)
    present = indices <= position + reach
    if exclude_outside:
        present &= (indices >= 0) & (indices < pixels)
    weights = kernel((indices - position) / stretch) * present
    if antialias or exclude_outside:
        weights /= weights.sum(1, keepdims=True)
    return Table(np.where(present, np.clip(indices, 0, pixels - 1), pixels), weights, pixels)


def triangle(distance: np.ndarray) -> np.ndarray:
    """The kernel of linear interpolation, of radius 1."""
    return np.maximum(1 - np.abs(distance), 0)


def cubic(distance: np.ndarray, *, a: float) -> np.ndarray:
    """The kernel of cubic convolution, of radius 2 and with slope a at a distance of 1."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


# The gradient that JAX derives for a gather is a scatter, up to a hundred times slower on CPU, and on GPU a sum in no
# fixed order. So the tangent is written as the scatter, whose transpose gathers.


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def resample(x: Array, axis: int, table: Table) -> Array:
    """Sum the weighted taps along one axis. Pixels without a weight in the table are not read: no 0 * NaN."""
    parts, groups = table.grouped()
    taps = (x.at[_at(axis, i)].get(mode="fill", fill_value=0) * _along(x, axis, w) for i, w in parts.columns())
    y = functools.reduce(operator.add, taps)
    return y.reshape(*x.shape[:axis], len(table.indices), groups, *x.shape[axis + 1 :]).sum(axis + 1)


@resample.defjvp
def _(axis: int, table: Table, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = resample(x, axis, table)
    parts, groups = table.transposed().grouped()
    dx, dy = jnp.repeat(dx, groups, axis), jnp.zeros_like(y)
    for i, w in parts.columns():
        dy = dy.at[_at(axis, i)].add(dx * _along(x, axis, w), mode="drop")
    return y, dy


def _at(axis: int, indices: np.ndarray) -> tuple[slice | np.ndarray, ...]:
    return (*[slice(None)] * axis, indices)


def _along(x: Array, axis: int, weights: np.ndarray) -> np.ndarray:
    """The weights in the dtype of x, shaped to multiply it along an axis."""
    return weights.astype(x.dtype).reshape(-1, *[1] * (x.ndim - axis - 1))
