"""Sums over images, some of them or parts of them at a time, so that what they need in between stays in the cache."""

from collections.abc import Callable, Sequence
from math import ceil

import jax
import jax.numpy as jnp
from jax import Array, lax

from cnnjax.cpu.geometry import Geometry, pad, seen


def sum_over_pieces(gradient: Callable[[Array, Array], Array], x: Array, dy: Array, images: int) -> Array:
    """The sum of gradient(x, dy) over pieces of about so many images, one after the other."""
    n = x.shape[0]
    most = min(max(images, 1), n)
    size = next((m for m in range(most, most // 2, -1) if n % m == 0), most)
    count, rest = divmod(n, size)
    if count == 1:
        total = gradient(x[:size], dy[:size])
    else:

        def add(i: Array, total: Array) -> Array:
            return total + gradient(*(lax.dynamic_slice_in_dim(array, i * size, size) for array in (x, dy)))

        result = jax.eval_shape(gradient, x[:size], dy[:size])
        total = lax.fori_loop(0, count, add, jnp.zeros(result.shape, result.dtype))
    return total + gradient(x[n - rest :], dy[n - rest :]) if rest else total


def slabs(x: Array, dy: Array, geometry: Geometry, window: Sequence[int], count: int) -> tuple[Array, Array, Geometry]:
    """Large images as several with less of the first axis: the same sum in smaller parts."""
    thick = ceil(dy.shape[1] / count)
    count = ceil(dy.shape[1] / thick)
    rest = [(0, 0)] * (len(window) - 1)
    dy = pad(dy, [(0, count * thick - dy.shape[1]), *rest])
    stride, low = geometry.stride[0], geometry.padding[0][0]
    all_of_x = seen(dy.shape[1:-1], geometry, window)[0]
    x = pad(x, [(low, all_of_x - low - x.shape[1]), *rest])
    of_slab = seen([thick, *dy.shape[2:-1]], geometry, window)[0]
    x = jnp.stack([x[:, i * thick * stride : i * thick * stride + of_slab] for i in range(count)], axis=1)
    dy = dy.reshape(-1, thick, *dy.shape[2:])
    inside = Geometry(geometry.stride, ((0, 0), *geometry.padding[1:]), geometry.dilation)
    return x.reshape(-1, *x.shape[2:]), dy, inside
