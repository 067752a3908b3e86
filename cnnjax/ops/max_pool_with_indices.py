"""Max pooling that also says where each maximum lies: a comparison of strided slices, one axis after the other."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int32, Real

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._taps import larger, select
from cnnjax.ops._windows import place


def max_pool1d_with_indices(
    x: Real[Array, "N L C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Real[Array, "N M C"], Int32[Array, "N M C"]]:
    """Take the maximum of every window of a batch of series, and its place.

    `max_pool2d_with_indices` along one axis.

    Args:
        x: (N, L, C), real.
        window: size in samples, at least 1.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (y, indices), both (N, M, C), M = `shapes.pool_output_size(L, window, ...)`: y in the dtype of x, indices
        int32 in [0, L).

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, L, C), or a window that does not fit or sees no pixel.

    Example:
        >>> y, indices = max_pool1d_with_indices(jnp.array([1.0, 3.0, 2.0, 2.0]).reshape(1, 4, 1), 2)
        >>> y.ravel(), indices.ravel()
        (Array([3., 2.], dtype=float32), Array([1, 2], dtype=int32))

    Source:
        As `max_pool2d_with_indices`.
    """
    return _with_indices("max_pool1d_with_indices", 1, x, window, stride, padding, dilation, ceil_mode)


def max_pool2d_with_indices(
    x: Real[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Real[Array, "N Ho Wo C"], Int32[Array, "N Ho Wo C"]]:
    """Take the maximum of every window of a batch of pictures, and its place.

    The values are those of `max_pool2d`, and `max_unpool2d` puts values back to such places. An index is flat in
    the plane of its own picture and channel, before padding. Of equal maxima it is the first in row-major order,
    of several NaN the last; it never lies in the padding. The gradient goes to the indexed element alone.

    y[n, i, j, c] = x[n, h, w, c] with indices[n, i, j, c] = h * W + w

    ONNX counts over the whole (N, C, H, W) tensor: its Indices are (n * C + c) * H * W + index, and
    Indices % (H * W) leads back. With storage_order=1 it counts down the columns: h + w * H for index.

    Args:
        x: (N, H, W, C), floating or integer.
        window: as in `max_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (y, indices), both (N, Ho, Wo, C) with sizes `shapes.pool_output_size(n, k, ...)` an axis: y in the dtype
        of x, indices int32 in [0, H * W).

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> x = jnp.array([[1.0, 5.0, 2.0, 2.0], [0.0, 5.0, 2.0, 3.0]]).reshape(1, 2, 4, 1)
        >>> y, indices = max_pool2d_with_indices(x, 2)
        >>> y.ravel(), indices.ravel()
        (Array([5., 3.], dtype=float32), Array([1, 7], dtype=int32))

    Source:
        torch.nn.MaxPool2d with return_indices; the "switches" of Zeiler & Fergus 2014, "Visualizing and
        Understanding Convolutional Networks", section 2.1.
    """
    return _with_indices("max_pool2d_with_indices", 2, x, window, stride, padding, dilation, ceil_mode)


def max_pool3d_with_indices(
    x: Real[Array, "N D H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Real[Array, "N Do Ho Wo C"], Int32[Array, "N Do Ho Wo C"]]:
    """Take the maximum of every window of a batch of volumes, and its place.

    `max_pool2d_with_indices` with a depth axis: an index is (d * H + h) * W + w.

    Args:
        x: (N, D, H, W, C), real, of less than 2^31 voxels a channel.
        window: size in voxels, at least 1: an int, or one an axis.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (y, indices), both (N, Do, Ho, Wo, C) with sizes `shapes.pool_output_size(n, k, ...)` an axis: y in the
        dtype of x, indices int32 in [0, D * H * W).

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, D, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> x = jnp.array([1.0, 0.0, 2.0, 7.0, 3.0, 7.0, 4.0, 5.0]).reshape(1, 2, 2, 2, 1)
        >>> y, indices = max_pool3d_with_indices(x, 2)
        >>> y.item(), indices.item()
        (7.0, 3)

    Source:
        As `max_pool2d_with_indices`.
    """
    return _with_indices("max_pool3d_with_indices", 3, x, window, stride, padding, dilation, ceil_mode)


def _with_indices(
    op: str,
    rank: int,
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> tuple[Array, Array]:
    x = arguments.ordered(op, "x", x)
    windows = place(op, rank, x, window, stride, padding, dilation, ceil_mode)
    spatial = x.shape[1:-1]
    places = jnp.arange(math.prod(spatial), dtype=jnp.int32).reshape(1, *spatial, 1)
    y, indices = select((x, places), windows, arguments.lowest(x), larger)
    return y, jnp.broadcast_to(indices, y.shape)
