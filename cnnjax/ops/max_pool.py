"""Max pooling: one call of `lax.reduce_window`, or where dilated a comparison of strided slices."""

from collections.abc import Sequence

from jax import Array, lax
from jaxtyping import Real

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._taps import larger, select
from cnnjax.ops._windows import place


def max_pool1d(
    x: Real[Array, "N L C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "N M C"]:
    """Take the maximum of every window of a batch of series.

    `max_pool2d` along one axis.

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
        >>> max_pool1d(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), 2).ravel()
        Array([3., 2.], dtype=float32)

    Source:
        As `max_pool2d`.
    """
    return _max_pool("max_pool1d", 1, x, window, stride, padding, dilation, ceil_mode)


def max_pool2d(
    x: Real[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "N Ho Wo C"]:
    """Take the maximum of every window of a batch of pictures.

    Padding never wins. NaN wins always. The gradient goes to the first of equal maxima, in row-major order; where a
    window that reaches into the padding holds nothing but -inf, it may be lost to the padding.

    y[n, i, j, c] = max over k, l of x[n, i * stride - low + k * dilation, j * stride - low + l * dilation, c]

    Args:
        x: (N, H, W, C), floating or integer.
        window: size in pixels, at least 1: an int, or one an axis.
        stride: step of the window in pixels, at least 1: an int, or one an axis; None is the window.
        padding: "VALID", "SAME" (an odd pixel at the end), "SAME_LOWER" (at the start) in any case, or amounts: an
            int, one an axis, or a nested (low, high) pair an axis.
        dilation: distance between neighbouring taps in pixels, at least 1: an int, or one an axis.
        ceil_mode: round the output size up. The last window may then hang over the end, if it starts inside the
            input or the padding before it.

    Returns:
        (N, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> max_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
        Array([[ 5.,  7.],
               [13., 15.]], dtype=float32)

    Source:
        Ranzato et al. 2007, "Unsupervised Learning of Invariant Feature Hierarchies"; ceil_mode as
        torch.nn.MaxPool2d.
    """
    return _max_pool("max_pool2d", 2, x, window, stride, padding, dilation, ceil_mode)


def max_pool3d(
    x: Real[Array, "N D H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "N Do Ho Wo C"]:
    """Take the maximum of every window of a batch of volumes.

    `max_pool2d` with a depth axis.

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
        >>> max_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2, 1), 2).ravel()
        Array([7.], dtype=float32)

    Source:
        As `max_pool2d`.
    """
    return _max_pool("max_pool3d", 3, x, window, stride, padding, dilation, ceil_mode)


def _max_pool(
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
        (y,) = select((x,), windows, arguments.lowest(x), larger)
        return y
    return lax.reduce_window(
        x,
        arguments.lowest(x),
        lax.max,
        (1, *windows.size, 1),
        (1, *windows.stride, 1),
        [(0, 0), *windows.pairs, (0, 0)],
    )
