"""The gradient of a convolution with respect to its kernel as a convolution once more, which oneDNN computes.

    gradient[k, l, i, o] = sum over images n, rows p and pixels q of x[n, p + k, q + l, i] * dy[n, p, q, o]

Read the pixels q of all images as channels, and dy as a window that spans the rows p: then k is the pixel of the output
along these. Along the other axis of the image lie l and i: a copy of x for each l, of which the window sees one pixel.
So oneDNN takes long sums, for many pixels and outputs at a time. In volumes, p runs through planes and their rows.
"""

from collections.abc import Callable, Sequence
from math import ceil, prod

import jax.numpy as jnp
from jax import Array, lax

from cnnjax.cpu import onednn
from cnnjax.cpu.geometry import Geometry, pad, seen
from cnnjax.cpu.pieces import slabs, sum_over_pieces

_BYTES = 4 << 20  # of operands at a time
_LEAST = 16  # copies of a channel of x, and channels: what a vector holds


def pays(x: Sequence[int], dy: Sequence[int], geometry: Geometry, window: Sequence[int]) -> bool:
    """Whether this is quicker than products of shifted copies (as timed), and among what the fuzz has covered."""
    if len(window) == 1 or prod(window) == 1:
        return False
    spans = (ceil(dy[1] / _cuts(x, dy, geometry, window)), *dy[2:-2], 1)
    image, kernel = (1, x[0] * dy[-2]), (*spans, x[0] * dy[-2], dy[-1])
    enough = min(x[-1] * window[-1], x[0] * dy[-2]) >= _LEAST
    return enough and onednn.covers(image, kernel, _exchanged(geometry, [(0, 0)] * len(spans[:-1])))


def kernel_gradient(
    x: Array, dy: Array, geometry: Geometry, window: Sequence[int], convolution: Callable[..., Array]
) -> Array:
    """x (N, *spatial, I) and dy (N, *out_spatial, O), the gradient of the output, to (*window, I, O)."""
    bytes_an_image = _bytes_an_image(x.shape, dy.shape, geometry, window)
    cuts = _cuts(x.shape, dy.shape, geometry, window)
    if cuts > 1:
        x, dy, geometry = slabs(x, dy, geometry, window, cuts)
    out, rank = dy.shape[1:-1], len(window)
    needed = seen(out, geometry, window)
    padding = [(low, n - low - m) for (low, _), n, m in zip(geometry.padding, needed, x.shape[1:-1], strict=True)]
    *by_onednn, along_copies = padding
    if any(max(p) >= n for p, n in zip(by_onednn, out, strict=False)):  # wider than what is the window here
        by_onednn = [(0, 0)] * (rank - 1)
    else:
        padding = [*[(0, 0)] * (rank - 1), along_copies]

    def gradient(x: Array, dy: Array) -> Array:
        """That of some images."""
        image = _copies(pad(x, padding), out[-1], geometry, window[-1])
        kernel = jnp.moveaxis(dy, 0, -3).reshape(*out[:-1], 1, -1, dy.shape[-1])
        y = convolution(image, kernel, _exchanged(geometry, by_onednn))
        return y.reshape(*window, x.shape[-1], dy.shape[-1])

    return sum_over_pieces(gradient, x, dy, _BYTES * cuts // bytes_an_image)


def _copies(x: Array, out: int, geometry: Geometry, taps: int) -> Array:
    """x (N, *spatial, I) to (1, *spatial[:-1], taps * I, N * out): what each tap of the last axis sees of it."""
    *spatial, pixels, channels = range(1, x.ndim)
    stride, starts = geometry.stride[-1], range(0, taps * geometry.dilation[-1], geometry.dilation[-1])
    seen = (lax.slice_in_dim(x, start, start + (out - 1) * stride + 1, stride, axis=-2) for start in starts)
    copies = jnp.concatenate([tap.transpose(*spatial, channels, 0, pixels) for tap in seen], axis=-3)
    return copies.reshape(1, *copies.shape[:-2], -1)


def _exchanged(geometry: Geometry, padding: Sequence[tuple[int, int]]) -> Geometry:
    """Stride and dilation change places along the axes that the window spans."""
    return Geometry((*geometry.dilation[:-1], 1), (*padding, (0, 0)), (*geometry.stride[:-1], 1))


def _cuts(x: Sequence[int], dy: Sequence[int], geometry: Geometry, window: Sequence[int]) -> int:
    """Into how many slabs to cut each image."""
    too_large = ceil(_bytes_an_image(x, dy, geometry, window) / _BYTES)
    too_long = ceil(prod(dy[1:-2]) / onednn.MOST_TAPS)
    return min(max(too_large, too_long), dy[1])


def _bytes_an_image(x: Sequence[int], dy: Sequence[int], geometry: Geometry, window: Sequence[int]) -> int:
    rows = prod(seen(dy[1:-1], geometry, window)[:-1])
    return 4 * dy[-2] * (rows * window[-1] * x[-1] + prod(dy[1:-2]) * dy[-1])
