"""Adaptive max pooling: as many windows as asked for, whatever the size of the picture."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Int32, Real

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._adaptive import Size, place


def adaptive_max_pool1d(x: Real[Array, "N L C"], output_size: Size) -> Real[Array, "N M C"]:
    """Divide a batch of series into windows, and take the maximum of each.

    `adaptive_max_pool2d` along one axis.

    Args:
        x: (N, L, C), floating or integer.
        output_size: M, number of windows, at least 1; None keeps L.

    Returns:
        (N, M, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, L, C), or an output_size below 1.

    Example:
        >>> adaptive_max_pool1d(jnp.array([1.0, 3.0, 2.0, 0.0, 7.0]).reshape(1, 5, 1), 3).ravel()
        Array([3., 3., 7.], dtype=float32)

    Source:
        As `adaptive_max_pool2d`.
    """
    return _values("adaptive_max_pool1d", 1, x, output_size)


def adaptive_max_pool2d(x: Real[Array, "N H W C"], output_size: Size) -> Real[Array, "N Ho Wo C"]:
    """Divide a batch of pictures into windows, and take the maximum of each.

    The windows are those of `adaptive_avg_pool2d`: they share pixels where the output size does not divide the
    input size. For a single window `global_max_pool` says it more plainly. NaN wins always. The gradient goes to the
    first of equal maxima, in row-major order.

    y[n, i, j, c] = max of x[n, h, w, c] over floor(i * H / Ho) <= h < ceil((i + 1) * H / Ho), and w alike

    Args:
        x: (N, H, W, C), floating or integer.
        output_size: Ho, Wo in pixels, at least 1: an int for both, or one an axis; None keeps an axis.

    Returns:
        (N, Ho, Wo, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, H, W, C), or an output_size below 1.

    Example:
        >>> adaptive_max_pool2d(jnp.arange(15.0).reshape(1, 3, 5, 1), (2, 3))[0, :, :, 0]
        Array([[ 6.,  8.,  9.],
               [11., 13., 14.]], dtype=float32)

    Source:
        torch.nn.AdaptiveMaxPool2d.
    """
    return _values("adaptive_max_pool2d", 2, x, output_size)


def adaptive_max_pool3d(x: Real[Array, "N D H W C"], output_size: Size) -> Real[Array, "N Do Ho Wo C"]:
    """Divide a batch of volumes into windows, and take the maximum of each.

    `adaptive_max_pool2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating or integer.
        output_size: as in `adaptive_max_pool2d`, in voxels.

    Returns:
        (N, Do, Ho, Wo, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, D, H, W, C), or an output_size below 1.

    Example:
        >>> adaptive_max_pool3d(jnp.arange(12.0).reshape(1, 2, 2, 3, 1), (1, None, 2)).ravel()
        Array([ 7.,  8., 10., 11.], dtype=float32)

    Source:
        As `adaptive_max_pool2d`.
    """
    return _values("adaptive_max_pool3d", 3, x, output_size)


def adaptive_max_pool1d_with_indices(
    x: Real[Array, "N L C"], output_size: Size
) -> tuple[Real[Array, "N M C"], Int32[Array, "N M C"]]:
    """Divide a batch of series into windows, and find the maximum of each and where it is.

    `adaptive_max_pool2d_with_indices` along one axis.

    Args:
        x: (N, L, C), floating or integer.
        output_size: M, number of windows, at least 1; None keeps L.

    Returns:
        (y, indices), each (N, M, C): y in the dtype of x, indices int32, samples from the start of the series.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, L, C), or an output_size below 1.

    Example:
        >>> y, indices = adaptive_max_pool1d_with_indices(jnp.array([1.0, 3.0, 2.0, 0.0, 7.0]).reshape(1, 5, 1), 3)
        >>> y.ravel(), indices.ravel()
        (Array([3., 3., 7.], dtype=float32), Array([1, 1, 4], dtype=int32))

    Source:
        As `adaptive_max_pool2d_with_indices`.
    """
    return _values_and_indices("adaptive_max_pool1d_with_indices", 1, x, output_size)


def adaptive_max_pool2d_with_indices(
    x: Real[Array, "N H W C"], output_size: Size
) -> tuple[Real[Array, "N Ho Wo C"], Int32[Array, "N Ho Wo C"]]:
    """Divide a batch of pictures into windows, and find the maximum of each and where it is.

    `adaptive_max_pool2d`, where the indices are not wanted. Where two windows share their maximum, its index is
    there twice. Of several NaN the last one is meant.

    indices[n, i, j, c] = h * W + w of the first maximum of the window, in row-major order

    Args:
        x: (N, H, W, C), floating or integer.
        output_size: as in `adaptive_max_pool2d`.

    Returns:
        (y, indices), each (N, Ho, Wo, C): y in the dtype of x, indices int32, flat in the (H, W) plane.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, H, W, C), or an output_size below 1.

    Example:
        >>> x = jnp.array([[1.0, 5.0, 5.0], [4.0, 0.0, 2.0]]).reshape(1, 2, 3, 1)
        >>> y, indices = adaptive_max_pool2d_with_indices(x, (1, 2))
        >>> y.ravel(), indices.ravel()
        (Array([5., 5.], dtype=float32), Array([1, 1], dtype=int32))

    Source:
        torch.nn.AdaptiveMaxPool2d with return_indices, whose indices are int64.
    """
    return _values_and_indices("adaptive_max_pool2d_with_indices", 2, x, output_size)


def adaptive_max_pool3d_with_indices(
    x: Real[Array, "N D H W C"], output_size: Size
) -> tuple[Real[Array, "N Do Ho Wo C"], Int32[Array, "N Do Ho Wo C"]]:
    """Divide a batch of volumes into windows, and find the maximum of each and where it is.

    `adaptive_max_pool2d_with_indices` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating or integer.
        output_size: as in `adaptive_max_pool2d`, in voxels.

    Returns:
        (y, indices), each (N, Do, Ho, Wo, C): y in the dtype of x, indices int32, (d * H + h) * W + w.

    Raises:
        TypeError: x of a dtype without an order.
        ValueError: x that is not (N, D, H, W, C), or an output_size below 1.

    Example:
        >>> y, indices = adaptive_max_pool3d_with_indices(9 - jnp.arange(12.0).reshape(1, 2, 2, 3, 1), (1, None, 2))
        >>> y.ravel(), indices.ravel()
        (Array([9., 8., 6., 5.], dtype=float32), Array([0, 1, 3, 4], dtype=int32))

    Source:
        As `adaptive_max_pool2d_with_indices`.
    """
    return _values_and_indices("adaptive_max_pool3d_with_indices", 3, x, output_size)


def _values(op: str, rank: int, x: Array, output_size: Size) -> Array:
    x = arguments.ordered(op, "x", x)
    # The last axis first, which leaves equals in row-major order.
    for axis, bins in reversed(list(enumerate(place(op, rank, x, output_size), 1))):
        x = _largest(bins.pixels(x, axis, arguments.lowest(x)), axis + 1)
    return x


def _values_and_indices(op: str, rank: int, x: Array, output_size: Size) -> tuple[Array, Array]:
    x = arguments.ordered(op, "x", x)
    axes = place(op, rank, x, output_size)
    spatial = x.shape[1:-1]
    places = jnp.arange(math.prod(spatial), dtype=jnp.int32).reshape(1, *spatial, 1)
    for axis, bins in reversed(list(enumerate(axes, 1))):
        pixels = bins.pixels(x, axis, arguments.lowest(x))
        x = _largest(pixels, axis + 1)
        chosen = _chosen(lax.stop_gradient(pixels), axis + 1)
        places = jnp.where(chosen, bins.pixels(places, axis, 0), 0).sum(axis + 1, dtype=jnp.int32)
    return x, places


# jnp.max would share the gradient among equals, and take_along_axis scatter it element by element.


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(pixels: Array, axis: int) -> Array:
    return pixels.max(axis)


@_largest.defjvp
def _(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (pixels,), (moved,) = primals, tangents
    return _largest(pixels, axis), jnp.where(_chosen(pixels, axis), moved, 0).sum(axis, dtype=moved.dtype)


def _chosen(pixels: Array, axis: int) -> Array:
    """Mark along an axis the first maximum, or of several NaN the last, as PyTorch."""
    tap = lax.broadcasted_iota(jnp.int32, pixels.shape, axis)
    largest = pixels == pixels.max(axis, keepdims=True)
    return tap == jnp.where(pixels != pixels, tap + 1, largest).argmax(axis, keepdims=True)
