"""A sum over images, some of them at a time, so that what it needs in between stays small and in the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax


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
