"""The gradient of a convolution with respect to its kernel as a convolution once more, which oneDNN computes.

    gradient[k, i, o] = sum over images n and output pixels p of x[n, p + k * dilation, i] * dy[n, p, o]

Read i as the images of a batch, n as its channels, and dy as the window: then k is the pixel of the output. A few
images at a time fill the vectors, and what is the window here stays in the cache.
"""

from collections.abc import Callable, Sequence
from math import ceil, prod

import jax.numpy as jnp
from jax import Array, lax

from cnnjax.cpu.geometry import Geometry, pad, seen
from cnnjax.cpu.pieces import slabs, sum_over_pieces

_BYTES = 2 << 20  # of dy at a time
_IMAGES = 16  # at a time: as many floats as a vector holds


def pays(x: Sequence[int], dy: Sequence[int], geometry: Geometry, window: Sequence[int]) -> bool:
    """Whether this is quicker than products of shifted copies (as timed), and among what the fuzz has covered."""
    out, outputs = dy[1:-1], dy[-1]
    pixels = ceil(out[0] / _cuts(dy)) * prod(out[1:])
    covered = prod(window) <= 256 and max(geometry.dilation) <= 4 and pixels <= 4096 and out[-1] <= 64
    enough = x[0] * _cuts(dy) >= 8 and outputs >= 4 and (x[-1] * prod(window) >= 100 or len(window) == 3)
    wide = outputs * window[-1] >= 64 or pixels <= 200 or len(window) == 3
    return covered and enough and wide and len(window) > 1 < prod(window) and max(geometry.stride) == 1


def kernel_gradient(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], convolution: Callable[..., Array]
) -> Array:
    """x (N, *spatial, I) and dy (N, *out_spatial, O), the gradient of the output, to (*window, I, O)."""
    if _cuts(dy.shape) > 1:
        x, dy, geometry = slabs(x, dy, geometry, window, _cuts(dy.shape))
    out = dy.shape[1:-1]
    needed = seen(out, geometry, window)
    padding = [(low, n - low - m) for (low, _), n, m in zip(geometry.padding, needed, x.shape[1:-1], strict=True)]
    if any(max(p) >= n for p, n in zip(padding, out, strict=True)):  # wider than what is the window here
        x, padding = pad(x, padding), [(0, 0)] * len(window)
    exchanged = Geometry(geometry.dilation, tuple(padding), geometry.stride)

    def gradient(x: Array, dy: Array) -> Array:
        y = convolution(_channels_as_images(x), dy, exchanged, inputs_first=True)
        return jnp.moveaxis(y, 0, -2)

    return sum_over_pieces(gradient, x, dy, _BYTES // (prod(dy.shape[1:]) * dy.dtype.itemsize))


def _channels_as_images(x: Array) -> Array:
    """x (N, *spatial, C) to (C, *spatial, N), in two steps: XLA transposes whole matrices and moves rows quickly."""
    columns = lax.optimization_barrier(x.reshape(x.shape[0], -1).T).reshape(*x.shape[1:], -1)
    return lax.optimization_barrier(jnp.moveaxis(columns, -2, 0))


def _cuts(dy: Sequence[int]) -> int:
    """Into how many slabs to cut each image."""
    too_large = ceil(prod(dy[1:]) * 4 * _IMAGES / 2 / _BYTES)
    too_few = ceil(_IMAGES / dy[0]) if len(dy) == 5 else 1
    return min(max(too_large, too_few), dy[1])
