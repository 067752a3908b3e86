"""The gradient of a convolution with respect to its kernel: matrix products of shifted copies, a piece at a time.

    gradient[k, i, o] = sum over images and output pixels p of x[p * stride + k * dilation, i] * dy[p, o]

One product serves all taps k when copies of x or of dy, each shifted for one tap, lie side by side as columns. A tap
may shift either: with a 3x3 window, three copies of x (along W) against three of dy (along H) make nine taps of six
copies, where copies of x alone (im2col) would be nine. Pieces of some images keep all copies in the cache.
"""

from collections.abc import Sequence
from itertools import chain, product
from math import ceil, prod

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu import exchanged
from cnnjax.cpu.geometry import Geometry, pad, seen, take
from cnnjax.cpu.grouped import together
from cnnjax.cpu.library import Library
from cnnjax.cpu.pieces import slabs, sum_over_pieces

_BYTES = 8 << 20  # of copies at a time
_PRODUCT = 0.02  # the time of a multiplication and addition, where copying a number takes 1


def kernel_gradient(x: Array, dy: Array, geometry: Geometry, window: Sequence[int], library: Library) -> Array:
    """x (N, *spatial, I) and dy (N, *out_spatial, O), the gradient of the output, to (*window, I, O)."""
    if library.convolution is not None and exchanged.pays(x.shape, dy.shape, geometry, window):
        return exchanged.kernel_gradient(x, dy, geometry, window, library.convolution)
    shifts_x = _axes_that_shift_x(geometry, dy.shape[1:-1], window, x.shape[-1], dy.shape[-1])
    shifts_nothing = prod(window) == prod(geometry.stride) == 1
    copied = 0 if shifts_nothing else _columns(window, shifts_x, x.shape[-1], 0 if all(shifts_x) else dy.shape[-1])
    bytes_an_image = copied * prod(dy.shape[1:-1]) * x.dtype.itemsize
    if bytes_an_image > 2 * _BYTES:
        x, dy, geometry = slabs(x, dy, geometry, window, ceil(bytes_an_image / _BYTES))
        bytes_an_image = _BYTES
    out = dy.shape[1:-1]
    needed = list(seen(out, geometry, window))
    in_runs = shifts_x[-1] and _in_runs(window[-1], geometry.stride[-1], geometry.dilation[-1], x.shape[-1])
    if in_runs:
        needed[-1] = _needed_for_runs(out[-1], window[-1], geometry.stride[-1])
    padding = [(low, n - low - m) for (low, _), n, m in zip(geometry.padding, needed, x.shape[1:-1], strict=True)]

    def gradient(x: Array, dy: Array) -> Array:
        """That of some images."""
        a = _columns_of_x(pad(x, padding), out, geometry, window, shifts_x, in_runs)
        b = _columns_of_dy(dy, geometry, window, shifts_x)
        return _in_order(library.matmul(a, b, transpose_a=True), window, shifts_x)

    return sum_over_pieces(gradient, x, dy, _BYTES // max(bytes_an_image, 1))


def grouped_kernel_gradient(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], groups: int, library: Library
) -> Array:
    """As `kernel_gradient`, for a convolution in groups: (*window, I // groups, O)."""
    inputs, outputs = x.shape[-1] // groups, dy.shape[-1] // groups
    members = together(x.shape[-1], groups)

    def block(first: int) -> Array:
        full = kernel_gradient(
            x[..., first * inputs : (first + members) * inputs],
            dy[..., first * outputs : (first + members) * outputs],
            geometry,
            window,
            library,
        )
        full = full.reshape(*window, members, inputs, members, outputs)
        # Of the products of all groups of the block with all, those of each group with itself.
        return jnp.diagonal(full, axis1=-4, axis2=-2).swapaxes(-1, -2).reshape(*window, inputs, members * outputs)

    return jnp.concatenate([block(first) for first in range(0, groups, members)], axis=-1)


def _axes_that_shift_x(
    geometry: Geometry, out: Sequence[int], window: Sequence[int], inputs: int, outputs: int
) -> tuple[bool, ...]:
    """For each spatial axis whether its taps shift x (else dy): the choice that takes the least time."""

    def time(shifts_x: Sequence[bool]) -> float:
        # Shifting dy takes all pixels of x, also those that only padding or the window's ends see.
        beyond = [(k - 1) * d for k, d in zip(window, geometry.dilation, strict=True)]
        pixels = prod(o if shifts else o + n for o, n, shifts in zip(out, beyond, shifts_x, strict=True))
        products = prod(window) * inputs * outputs
        return pixels * (_columns(window, shifts_x, inputs, outputs) + products * _PRODUCT)

    # Where x is strided over, the pixels of dy and of x do not match.
    return min(product(*((True, False) if s == 1 else (True,) for s in geometry.stride)), key=time)


def _columns(window: Sequence[int], shifts_x: Sequence[bool], inputs: int, outputs: int) -> int:
    of_x = prod(k for k, shifts in zip(window, shifts_x, strict=True) if shifts)
    return inputs * of_x + outputs * (prod(window) // of_x)


def _columns_of_x(
    x: Array, out: Sequence[int], geometry: Geometry, window: Sequence[int], shifts_x: Sequence[bool], in_runs: bool
) -> Array:
    """(pixels, taps that shift x * I). x has its padding, and where its taps shift dy, all its pixels are taken."""
    size = [o if shifts else n for o, n, shifts in zip(out, x.shape[1:-1], shifts_x, strict=True)]
    taps = [k if shifts else 1 for k, shifts in zip(window, shifts_x, strict=True)]
    step, dilation = list(geometry.stride), geometry.dilation
    if in_runs:
        x = _runs(x, out[-1], window[-1], step[-1])
        taps[-1] = step[-1] = 1
    if all(n == 1 for n in size) and prod(taps) == prod(x.shape[1:-1]):
        return x.reshape(x.shape[0], -1)
    starts = [[k * d for k, d in zip(tap, dilation, strict=True)] for tap in product(*map(range, taps))]
    copies = jnp.concatenate([take(x, start, size, step) for start in starts], axis=-1)
    return copies.reshape(-1, copies.shape[-1])


def _columns_of_dy(dy: Array, geometry: Geometry, window: Sequence[int], shifts_x: Sequence[bool]) -> Array:
    """(pixels, taps that shift dy * O), for as many pixels as there are of x."""
    taps = [1 if shifts else k for k, shifts in zip(window, shifts_x, strict=True)]
    around = [(k - 1) * d for k, d in zip(taps, geometry.dilation, strict=True)]
    size = [o + n for o, n in zip(dy.shape[1:-1], around, strict=True)]
    dy = pad(dy, [(n, n) for n in around])
    starts = [
        [n - k * d for n, k, d in zip(around, tap, geometry.dilation, strict=True)]
        for tap in product(*map(range, taps))
    ]
    copies = jnp.concatenate([take(dy, start, size, [1] * len(size)) for start in starts], axis=-1)
    return copies.reshape(-1, copies.shape[-1])


def _in_order(products: Array, window: Sequence[int], shifts_x: Sequence[bool]) -> Array:
    """(taps that shift x * I, taps that shift dy * O) to (*window, I, O)."""
    rank = len(window)
    of_x = [k if shifts else 1 for k, shifts in zip(window, shifts_x, strict=True)]
    of_dy = [1 if shifts else k for k, shifts in zip(window, shifts_x, strict=True)]
    inputs, outputs = products.shape[0] // prod(of_x), products.shape[1] // prod(of_dy)
    taps = chain.from_iterable((i, rank + 1 + i) for i in range(rank))
    split = products.reshape(*of_x, inputs, *of_dy, outputs)
    return split.transpose(*taps, rank, 2 * rank + 1).reshape(*window, inputs, outputs)


# What the taps of the last axis see of a row are neighbours in memory: one run, copied faster than tap by tap. The runs
# of all windows overlap, but those of every m-th do not, and are the row cut into equal parts.


def _in_runs(window: int, stride: int, dilation: int, channels: int) -> bool:
    return dilation == 1 and window > 1 and ceil(window / stride) <= 5 and window * channels >= 3


def _needed_for_runs(out: int, window: int, stride: int) -> int:
    """How many pixels of a row the runs are cut from."""
    m = ceil(window / stride)
    return (m - 1) * stride + ceil(out / m) * m * stride


def _runs(x: Array, out: int, window: int, stride: int) -> Array:
    """x (N, ..., W, C) to (N, ..., out, window * C): for each place of the window what it sees along the last axis."""
    m = ceil(window / stride)
    count, apart = ceil(out / m), m * stride
    parts = (x[..., r * stride : r * stride + count * apart, :] for r in range(m))
    cut = [part.reshape(*x.shape[:-2], count, -1)[..., : window * x.shape[-1]] for part in parts]
    return jnp.stack(cut, axis=-2).reshape(*x.shape[:-2], count * m, -1)[..., :out, :]
