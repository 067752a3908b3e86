"""Depthwise convolution, in which each channel has a window of its own: sums of shifted products, and its gradient."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from math import ceil
from operator import add

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, of_low_images, pad, seen, take
from cnnjax.cpu.pieces import slabs, sum_over_pieces

_BYTES = 4 << 20  # of x and dy at a time
_LONGEST = 512  # products along the last axis, which oneDNN writes out: many more make a program that is too long


def depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """x (N, *spatial, C) with kernel (*window, 1, C * multiplier), in plain JAX: XLA makes one loop of it."""
    window, out = kernel.shape[:-2], geometry.out(x.shape[1:-1], kernel.shape[:-2])
    x = pad(repeated(x, kernel.shape[-1]), geometry.padding)
    starts = {tap: [k * d for k, d in zip(tap, geometry.dilation, strict=True)] for tap in product(*map(range, window))}
    return reduce(add, (take(x, start, out, geometry.stride) * kernel[(*tap, 0)] for tap, start in starts.items()))


def depthwise_kernel_gradient(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], convolution: Callable[..., Array] | None
) -> Array:
    """x (N, *spatial, C) and dy (N, *out_spatial, C * multiplier), the gradient of the output, to (*window, 1, O).

    It is itself a depthwise convolution of x, in which dy is the window. Several images are one high image, whose
    window is as high, with zeros between their parts.
    """
    x = repeated(x, dy.shape[-1])
    if len(window) == 1 and convolution is not None:
        return _of_series(x, dy, geometry, window, convolution)
    out = dy.shape[1:-1]
    needed = seen(out, geometry, window)
    padding = [(low, n - low - m) for (low, _), n, m in zip(geometry.padding, needed, x.shape[1:-1], strict=True)]
    if convolution is None or out[-1] * window[-1] > _LONGEST:
        return _sums(pad(x, padding), dy, geometry, window)
    gap = -needed[0] % geometry.stride[0]
    padding[0] = (padding[0][0], padding[0][1] + gap)
    between = (needed[0] + gap) // geometry.stride[0] - out[0]
    rest = [(0, 0)] * (len(out) - 1)
    exchanged = Geometry(geometry.dilation, ((0, 0), *rest), geometry.stride)

    def gradient(x: Array, dy: Array) -> Array:
        x = pad(x, padding).reshape(1, -1, *needed[1:], x.shape[-1])
        dy = pad(dy, [(0, between), *rest]).reshape(-1, *out[1:], 1, dy.shape[-1])
        dy = dy[: dy.shape[0] - between]
        return convolution(x, dy, exchanged, x.shape[-1])[0][: window[0], ..., None, :]

    size = (x.size + dy.size) // x.shape[0] * x.dtype.itemsize
    return sum_over_pieces(gradient, x, dy, _BYTES // size)


def _of_series(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], convolution: Callable[..., Array]
) -> Array:
    """Series as low images, long ones in parts."""
    cuts = ceil(dy.shape[1] * window[0] / _LONGEST)
    if cuts > 1:
        x, dy, geometry = slabs(x, dy, geometry, window, cuts)
    return depthwise_kernel_gradient(x[:, None], dy[:, None], of_low_images(geometry), (1, *window), convolution)[0]


def _sums(x: Array, dy: Array, geometry: Geometry, window: Sequence[int]) -> Array:
    """The same in plain JAX: one sum for each tap."""
    axes = tuple(range(x.ndim - 1))
    starts = [[k * d for k, d in zip(tap, geometry.dilation, strict=True)] for tap in product(*map(range, window))]
    sums = [jnp.sum(take(x, start, dy.shape[1:-1], geometry.stride) * dy, axes) for start in starts]
    return jnp.stack(sums).reshape(*window, 1, dy.shape[-1])


def repeated(x: Array, outputs: int) -> Array:
    """x with each channel as often as it has windows."""
    return x if x.shape[-1] == outputs else jnp.repeat(x, outputs // x.shape[-1], axis=-1)
