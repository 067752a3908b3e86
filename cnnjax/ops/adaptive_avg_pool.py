"""Adaptive average pooling: as many windows as asked for, whatever the size of the picture."""

import functools

import numpy as np
from jax import Array
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._adaptive import Size, place


def adaptive_avg_pool1d(x: Inexact[Array, "N L C"], output_size: Size) -> Inexact[Array, "N M C"]:
    """Divide a batch of series into windows, and take the mean of each.

    `adaptive_avg_pool2d` along one axis.

    Args:
        x: (N, L, C), floating or complex.
        output_size: M, number of windows, at least 1; None keeps L.

    Returns:
        (N, M, C) in the dtype of x.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, L, C), or an output_size below 1.

    Example:
        >>> adaptive_avg_pool1d(jnp.array([1.0, 3.0, 2.0, 0.0, 7.0]).reshape(1, 5, 1), 3).ravel()
        Array([2.       , 1.6666666, 3.5      ], dtype=float32)

    Source:
        As `adaptive_avg_pool2d`.
    """
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(x: Inexact[Array, "N H W C"], output_size: Size) -> Inexact[Array, "N Ho Wo C"]:
    """Divide a batch of pictures into windows, and take the mean of each.

    Gives a head of fixed size to pictures of any. Where the output size does not divide the input size, neighbouring
    windows share pixels and differ in size by up to one; an output larger than the input repeats pixels. For a
    single window `global_avg_pool` says it more plainly. Half precision is summed in float32 and rounded once.

    y[n, i, j, c] = mean of x[n, h, w, c] over floor(i * H / Ho) <= h < ceil((i + 1) * H / Ho), and w alike

    Args:
        x: (N, H, W, C), floating or complex.
        output_size: Ho, Wo in pixels, at least 1: an int for both, or one an axis; None keeps an axis.

    Returns:
        (N, Ho, Wo, C) in the dtype of x.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, H, W, C), or an output_size below 1.

    Example:
        >>> adaptive_avg_pool2d(jnp.arange(15.0).reshape(1, 3, 5, 1), (2, 3))[0, :, :, 0]
        Array([[ 3. ,  4.5,  6. ],
               [ 8. ,  9.5, 11. ]], dtype=float32)

    Source:
        torch.nn.AdaptiveAvgPool2d.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, x, output_size)


def adaptive_avg_pool3d(x: Inexact[Array, "N D H W C"], output_size: Size) -> Inexact[Array, "N Do Ho Wo C"]:
    """Divide a batch of volumes into windows, and take the mean of each.

    `adaptive_avg_pool2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating or complex.
        output_size: as in `adaptive_avg_pool2d`, in voxels.

    Returns:
        (N, Do, Ho, Wo, C) in the dtype of x.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, D, H, W, C), or an output_size below 1.

    Example:
        >>> adaptive_avg_pool3d(jnp.arange(12.0).reshape(1, 2, 2, 3, 1), (1, None, 2)).ravel()
        Array([3.5, 4.5, 6.5, 7.5], dtype=float32)

    Source:
        As `adaptive_avg_pool2d`.
    """
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, x, output_size)


def _adaptive_avg_pool(op: str, rank: int, x: Array, output_size: Size) -> Array:
    x = arguments.inexact(op, "x", x)
    axes = place(op, rank, x, output_size)
    total = arguments.wide(x)
    for axis, bins in enumerate(axes, 1):
        # Not a product with a matrix of ones and zeros: 0 * NaN would reach every window.
        total = bins.pixels(total, axis, 0).sum(axis + 1)
    divisor = functools.reduce(np.multiply.outer, [bins.size for bins in axes])[..., None]
    return (total / divisor.astype(total.dtype)).astype(x.dtype)
