"""Global pooling: one number a channel, whatever the size of the picture."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Inexact, Real

from cnnjax.ops import _arguments as arguments


def global_avg_pool(x: Inexact[Array, "N *spatial C"]) -> Inexact[Array, "N C"]:
    """Take the mean of every channel over all its pixels.

    Makes the head of a classifier independent of the picture's size. Half precision is summed in float32.

    y[n, c] = mean over all pixels of x[n, ..., c]

    Args:
        x: (N, *spatial, C), floating or complex, one to any number of spatial axes.

    Returns:
        (N, C) in the dtype of x.

    Raises:
        TypeError: an integer x.
        ValueError: x without spatial axes or without pixels.

    Example:
        >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2))
        Array([[3., 4.]], dtype=float32)

    Source:
        Lin, Chen & Yan 2013, "Network In Network", section 3.2.
    """
    x = arguments.inexact("global_avg_pool", "x", x)
    _check("global_avg_pool", x)
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


def global_max_pool(x: Real[Array, "N *spatial C"]) -> Real[Array, "N C"]:
    """Take the maximum of every channel over all its pixels.

    NaN wins always. The gradient goes to the first of equal maxima.

    y[n, c] = max over all pixels of x[n, ..., c]

    Args:
        x: (N, *spatial, C), real, one to any number of spatial axes.

    Returns:
        (N, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x without spatial axes or without pixels.

    Example:
        >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2))
        Array([[6., 7.]], dtype=float32)

    Source:
        Oquab et al. 2015, "Is object localization for free?", section 3.
    """
    x = arguments.ordered("global_max_pool", "x", x)
    _check("global_max_pool", x)
    window = (1, *x.shape[1:-1], 1)
    return lax.reduce_window(x, arguments.lowest(x), lax.max, window, window, "VALID").reshape(x.shape[0], x.shape[-1])


def _check(op: str, x: Array) -> None:
    if x.ndim < 3:
        raise ValueError(f"{op}: x must be (N, *spatial, C), got shape {x.shape}. Add the axes that are missing.")
    if 0 in x.shape[1:-1]:
        raise ValueError(f"{op}: x must have pixels, got shape {x.shape}. Only the batch axis may be empty.")
