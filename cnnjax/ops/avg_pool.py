"""Average pooling: one call of `lax.reduce_window` and a division by what counts."""

import functools
from collections.abc import Sequence

import numpy as np
from jax import Array, lax
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._windows import place, taps


def avg_pool1d(
    x: Inexact[Array, "N L C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Inexact[Array, "N M C"]:
    """Take the mean of every window of a batch of series.

    `avg_pool2d` along one axis.

    Args:
        x: (N, L, C), floating or complex.
        window: size in samples, at least 1.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.
        count_include_pad: as in `avg_pool2d`.

    Returns:
        (N, M, C) in the dtype of x, M = `shapes.pool_output_size(L, window, ...)`.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, L, C), or a window that does not fit or sees no pixel.

    Example:
        >>> avg_pool1d(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), 2).ravel()
        Array([2., 1.], dtype=float32)

    Source:
        As `avg_pool2d`.
    """
    return _avg_pool("avg_pool1d", 1, x, window, stride, padding, dilation, ceil_mode, count_include_pad)


def avg_pool2d(
    x: Inexact[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Inexact[Array, "N Ho Wo C"]:
    """Take the mean of every window of a batch of pictures.

    Half precision is summed in float32 and rounded once.

    y[n, i, j, c] = sum over the window of x / number of taps that count

    Args:
        x: (N, H, W, C), floating or complex.
        window: as in `max_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`; adds zeros.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`; what hangs over beyond the padding never counts.
        count_include_pad: whether taps on the padding count in the divisor.

    Returns:
        (N, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> avg_pool2d(jnp.ones((1, 2, 2, 1)), 2, padding=1, count_include_pad=True)[0, :, :, 0]
        Array([[0.25, 0.25],
               [0.25, 0.25]], dtype=float32)

    Source:
        LeCun et al. 1998, section II.B (without its trained coefficient); options as torch.nn.AvgPool2d. Keras
        and ONNX leave the padding out of the divisor by default.
    """
    return _avg_pool("avg_pool2d", 2, x, window, stride, padding, dilation, ceil_mode, count_include_pad)


def avg_pool3d(
    x: Inexact[Array, "N D H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Inexact[Array, "N Do Ho Wo C"]:
    """Take the mean of every window of a batch of volumes.

    `avg_pool2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating or complex.
        window: size in voxels, at least 1: an int, or one an axis.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.
        count_include_pad: as in `avg_pool2d`.

    Returns:
        (N, Do, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, D, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> avg_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2, 1), 2).ravel()
        Array([3.5], dtype=float32)

    Source:
        As `avg_pool2d`.
    """
    return _avg_pool("avg_pool3d", 3, x, window, stride, padding, dilation, ceil_mode, count_include_pad)


def _avg_pool(
    op: str,
    rank: int,
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    x = arguments.inexact(op, "x", x)
    windows = place(op, rank, x, window, stride, padding, dilation, ceil_mode)
    wide = arguments.wide(x)
    total = lax.reduce_window(
        wide,
        np.zeros((), wide.dtype),
        lax.add,
        (1, *windows.size, 1),
        (1, *windows.stride, 1),
        [(0, 0), *windows.pairs, (0, 0)],
        window_dilation=(1, *windows.dilation, 1),
    )
    margin = windows.counted if count_include_pad else [(0, 0)] * rank
    counts = taps(windows, x.shape[1:-1], margin)
    divisor = functools.reduce(np.multiply.outer, counts)[..., None]
    return (total / divisor.astype(total.dtype)).astype(x.dtype)
