"""Min pooling: one call of `lax.reduce_window`, or where dilated a comparison of strided slices."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Real

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._taps import select, smaller
from cnnjax.ops._windows import place


def min_pool1d(
    x: Real[Array, "N L C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "N M C"]:
    """Take the minimum of every window of a batch of series.

    `min_pool2d` along one axis.

    Args:
        x: (N, L, C), real.
        window: size in samples, at least 1.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (N, M, C) in the dtype of x, M = `shapes.pool_output_size(L, window, ...)`.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, L, C), or a window that does not fit or sees no pixel.

    Example:
        >>> min_pool1d(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), 2).ravel()
        Array([1., 0.], dtype=float32)

    Source:
        As `min_pool2d`.
    """
    return _min_pool("min_pool1d", 1, x, window, stride, padding, dilation, ceil_mode)


def min_pool2d(
    x: Real[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "N Ho Wo C"]:
    """Take the minimum of every window of a batch of pictures.

    The erosion of mathematical morphology by a flat rectangle; -max_pool2d(-x), where the dtype of x knows every
    -x. Padding never wins. NaN wins always. The gradient goes to
    the first of equal minima, in row-major order; where a window that reaches into the padding holds nothing but
    +inf, it may be lost to the padding.

    y[n, i, j, c] = min over k, l of x[n, i * stride - low + k * dilation, j * stride - low + l * dilation, c]

    Args:
        x: (N, H, W, C), floating or integer.
        window: as in `max_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (N, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> x = jnp.array([[3.0, 1.0, 4.0], [1.0, 5.0, 9.0], [2.0, 6.0, 5.0]]).reshape(1, 3, 3, 1)
        >>> min_pool2d(x, 2, stride=1)[0, :, :, 0]
        Array([[1., 1.],
               [1., 5.]], dtype=float32)

    Source:
        Serra 1982, "Image Analysis and Mathematical Morphology"; options as torch.nn.MaxPool2d.
    """
    return _min_pool("min_pool2d", 2, x, window, stride, padding, dilation, ceil_mode)


def min_pool3d(
    x: Real[Array, "N D H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "N Do Ho Wo C"]:
    """Take the minimum of every window of a batch of volumes.

    `min_pool2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), real.
        window: size in voxels, at least 1: an int, or one an axis.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (N, Do, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, D, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> min_pool3d(jnp.arange(24.0).reshape(1, 2, 3, 4, 1), (2, 3, 2)).ravel()
        Array([0., 2.], dtype=float32)

    Source:
        As `min_pool2d`.
    """
    return _min_pool("min_pool3d", 3, x, window, stride, padding, dilation, ceil_mode)


def _min_pool(
    op: str,
    rank: int,
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Array:
    x = arguments.ordered(op, "x", x)
    windows = place(op, rank, x, window, stride, padding, dilation, ceil_mode)
    if max(windows.dilation) > 1:
        # JAX differentiates no dilated reduce_window.
        (y,) = select((x,), windows, _highest(x), smaller)
        return y
    return lax.reduce_window(
        x,
        _highest(x),
        lax.min,
        (1, *windows.size, 1),
        (1, *windows.stride, 1),
        [(0, 0), *windows.pairs, (0, 0)],
    )


def _highest(x: Array) -> np.ndarray:
    """The identity of the minimum in the dtype of x."""
    return np.array(np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).max, x.dtype)
