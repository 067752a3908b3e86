"""The gradient of a convolution with respect to its kernel: matrix products of shifted copies, a piece at a time.

    gradient[k, i, o] = sum over images and output pixels p of x[p * stride + k * dilation, i] * dy[p, o]

One product serves all taps k when copies of x or of dy, each shifted for one tap, lie side by side as columns. A tap
may shift either: with a 3x3 window, three copies of x (along W) against three of dy (along H) make nine taps of six
copies, where copies of x alone (im2col) would be nine. Pieces of some images keep all copies in the cache.
"""

from collections.abc import Callable, Sequence
from itertools import chain, product
from math import ceil, prod

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, pad, take
from cnnjax.cpu.pieces import sum_over_pieces

_BYTES = 4 << 20  # of columns at a time
_BLOCK = 16  # channels that a grouped gradient computes at least at once: fewer do not fill a vector

Matmul = Callable[..., Array]


def kernel_gradient(x: Array, dy: Array, geometry: Geometry, window: Sequence[int], matmul: Matmul) -> Array:
    """x (N, *spatial, I) and dy (N, *out_spatial, O), the gradient of the output, to (*window, I, O)."""
    shifts_x = _axes_that_shift_x(geometry, window, x.shape[-1], dy.shape[-1])
    out = dy.shape[1:-1]
    needed = [
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(out, geometry.stride, window, geometry.dilation, strict=True)
    ]
    padding = [(low, n - low - m) for (low, _), n, m in zip(geometry.padding, needed, x.shape[1:-1], strict=True)]
    rows = prod(o if shifts else n for o, n, shifts in zip(out, needed, shifts_x, strict=True))
    columns = _columns(window, shifts_x, x.shape[-1], dy.shape[-1])

    def gradient(x: Array, dy: Array) -> Array:
        return _one_product(pad(x, padding), dy, geometry, window, shifts_x, matmul)

    return sum_over_pieces(gradient, x, dy, _BYTES // (rows * columns * x.dtype.itemsize))


def grouped_kernel_gradient(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], groups: int, matmul: Matmul
) -> Array:
    """As `kernel_gradient`, for a convolution in groups: (*window, I // groups, O)."""
    inputs, outputs = x.shape[-1] // groups, dy.shape[-1] // groups
    together = next(m for m in range(min(ceil(_BLOCK / inputs), groups), 0, -1) if groups % m == 0)

    def block(first: int) -> Array:
        full = kernel_gradient(
            x[..., first * inputs : (first + together) * inputs],
            dy[..., first * outputs : (first + together) * outputs],
            geometry,
            window,
            matmul,
        )
        full = full.reshape(*window, together, inputs, together, outputs)
        # Of the products of all groups of the block with all, those of each group with itself.
        return jnp.diagonal(full, axis1=-4, axis2=-2).swapaxes(-1, -2).reshape(*window, inputs, together * outputs)

    return jnp.concatenate([block(first) for first in range(0, groups, together)], axis=-1)


def _axes_that_shift_x(geometry: Geometry, window: Sequence[int], inputs: int, outputs: int) -> tuple[bool, ...]:
    """For each spatial axis whether its taps shift x (else dy): the choice with the fewest columns."""
    # Shifting dy needs as many pixels of dy as of x.
    choices = product(*((True, False) if s == 1 else (True,) for s in geometry.stride))
    return min(choices, key=lambda shifts_x: _columns(window, shifts_x, inputs, outputs))


def _columns(window: Sequence[int], shifts_x: Sequence[bool], inputs: int, outputs: int) -> int:
    of_x = prod(k for k, shifts in zip(window, shifts_x, strict=True) if shifts)
    return inputs * of_x + outputs * (prod(window) // of_x)


def _one_product(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], shifts_x: Sequence[bool], matmul: Matmul
) -> Array:
    """The gradient of some images; x has its padding, and no pixel that no window sees."""
    rank = len(window)
    rows = [o if shifts else n for o, n, shifts in zip(dy.shape[1:-1], x.shape[1:-1], shifts_x, strict=True)]
    window_x = [k if shifts else 1 for k, shifts in zip(window, shifts_x, strict=True)]
    window_dy = [1 if shifts else k for k, shifts in zip(window, shifts_x, strict=True)]
    around = [(k - 1) * d for k, d in zip(window_dy, geometry.dilation, strict=True)]
    a = _side_by_side(
        x,
        [[k * d for k, d in zip(tap, geometry.dilation, strict=True)] for tap in product(*map(range, window_x))],
        rows,
        geometry.stride,
    )
    b = _side_by_side(
        pad(dy, [(n, n) for n in around]),
        [
            [n - k * d for n, k, d in zip(around, tap, geometry.dilation, strict=True)]
            for tap in product(*map(range, window_dy))
        ],
        rows,
        (1,) * rank,
    )
    y = matmul(a, b, transpose_a=True).reshape(*window_x, x.shape[-1], *window_dy, dy.shape[-1])
    taps = chain.from_iterable((i, rank + 1 + i) for i in range(rank))
    return y.transpose(*taps, rank, 2 * rank + 1).reshape(*window, x.shape[-1], dy.shape[-1])


def _side_by_side(x: Array, starts: list[list[int]], size: Sequence[int], step: Sequence[int]) -> Array:
    """Copies of x (N, *spatial, C) from each start as columns: (N * prod(size), len(starts) * C)."""
    if all(n == 1 for n in size) and len(starts) == prod(x.shape[1:-1]):
        return x.reshape(x.shape[0], -1)
    columns = jnp.concatenate([take(x, start, size, step) for start in starts], axis=-1)
    return columns.reshape(-1, columns.shape[-1])
