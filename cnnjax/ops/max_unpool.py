"""Max unpooling: values go back to the places that a max pool took them from."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Real

from cnnjax.ops import _arguments as arguments


def max_unpool1d(
    x: Real[Array, "N M C"],
    indices: Int[Array, "N M C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_size: int | Sequence[int] | None = None,
) -> Real[Array, "N L C"]:
    """Put every value of a batch of pooled series back to its place, among zeros.

    `max_unpool2d` along one axis.

    Args:
        x: (N, M, C), real.
        indices: (N, M, C), integer in [0, L): those of `max_pool1d_with_indices`.
        window: size of the pool's window in samples, at least 1.
        stride: as in `max_unpool2d`.
        padding: as in `max_unpool2d`.
        output_size: L, in samples; None is the formula's.

    Returns:
        (N, L, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order, or indices that are no integers.
        ValueError: shapes that do not fit each other, or an output_size that no such pool leads back to.

    Example:
        >>> y, indices = ops.max_pool1d_with_indices(jnp.array([1.0, 3.0, 2.0, 0.0, 4.0]).reshape(1, 5, 1), 2)
        >>> max_unpool1d(y, indices, 2, output_size=5).ravel()
        Array([0., 3., 2., 0., 0.], dtype=float32)

    Source:
        As `max_unpool2d`.
    """
    return _max_unpool("max_unpool1d", 1, x, indices, window, stride, padding, output_size)


def max_unpool2d(
    x: Real[Array, "N Ho Wo C"],
    indices: Int[Array, "N Ho Wo C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_size: int | Sequence[int] | None = None,
) -> Real[Array, "N H W C"]:
    """Put every value of a batch of pooled pictures back to its place, among zeros.

    A partial inverse of `max_pool2d_with_indices`: all but the maxima is lost. Window, stride and padding give
    the size of the output alone. An index outside the output is dropped. Equal indices, which overlapping windows
    give, should bring equal values; of different ones, which is kept is left open. The gradient is gathered from
    the places: each of equal indices receives all of it, as in PyTorch.

    y[n, h, w, c] = x[n, i, j, c] where indices[n, i, j, c] = h * W + w, else 0

    ONNX counts over the whole (N, C, H, W) tensor: its I % (H * W) are our indices. In ONNX Runtime its output_shape
    is (N, C, *output_size), and H and W are those. Its published example counts in the formula's plane and adds
    zeros at the end: leave output_size out, and pad.

    Args:
        x: (N, Ho, Wo, C), floating or integer.
        indices: (N, Ho, Wo, C), integer, in [0, H * W), flat in the plane of the output.
        window: size of the pool's window in pixels, at least 1: an int, or one an axis. Of a dilated pool it is
            the span, `shapes.effective_size(k, dilation=dilation)`.
        stride: step of the pool's window in pixels, at least 1: an int, or one an axis; None is the window.
        padding: what the pool was padded by, in pixels, at least 0: an int, one an axis, or a nested (low, high)
            pair an axis.
        output_size: (H, W) in pixels, or an int for both; by less than the stride off the formula's; None is the
            formula's.

    Returns:
        (N, H, W, C) in the dtype of x, with sizes (n - 1) * stride - low - high + window an axis by default.

    Raises:
        TypeError: x of a dtype without an order, or indices that are no integers.
        ValueError: shapes that do not fit each other, or an output_size that no such pool leads back to.

    Example:
        >>> y, indices = ops.max_pool2d_with_indices(jnp.arange(16.0).reshape(1, 4, 4, 1) % 7, 2)
        >>> max_unpool2d(y, indices, 2)[0, :, :, 0]
        Array([[0., 0., 0., 0.],
               [0., 5., 6., 0.],
               [0., 0., 0., 4.],
               [0., 6., 0., 0.]], dtype=float32)

    Source:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1; options as
        torch.nn.MaxUnpool2d, whose output_size may also name N and C, and which refuses an index that is outside.
    """
    return _max_unpool("max_unpool2d", 2, x, indices, window, stride, padding, output_size)


def max_unpool3d(
    x: Real[Array, "N Do Ho Wo C"],
    indices: Int[Array, "N Do Ho Wo C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
    output_size: int | Sequence[int] | None = None,
) -> Real[Array, "N D H W C"]:
    """Put every value of a batch of pooled volumes back to its place, among zeros.

    `max_unpool2d` with a depth axis: an index is (d * H + h) * W + w.

    Args:
        x: (N, Do, Ho, Wo, C), real.
        indices: (N, Do, Ho, Wo, C), integer in [0, D * H * W): those of `max_pool3d_with_indices`.
        window: size of the pool's window in voxels, at least 1: an int, or one an axis.
        stride: as in `max_unpool2d`.
        padding: as in `max_unpool2d`.
        output_size: (D, H, W) in voxels, or an int for all; None is the formula's.

    Returns:
        (N, D, H, W, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order, or indices that are no integers.
        ValueError: shapes that do not fit each other, or an output_size that no such pool leads back to.

    Example:
        >>> max_unpool3d(jnp.full((1, 1, 1, 1, 1), 7.0), jnp.full((1, 1, 1, 1, 1), 5), 2).ravel()
        Array([0., 0., 0., 0., 0., 7., 0., 0.], dtype=float32)

    Source:
        As `max_unpool2d`.
    """
    return _max_unpool("max_unpool3d", 3, x, indices, window, stride, padding, output_size)


def _max_unpool(
    op: str,
    rank: int,
    x: Array,
    indices: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int] | Sequence[tuple[int, int]],
    output_size: int | Sequence[int] | None,
) -> Array:
    x = arguments.ordered(op, "x", x)
    spatial = arguments.batched(op, x, rank)
    indices = jnp.asarray(indices)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(
            f"{op}: indices must be integers, got {indices.dtype}. Take those of max_pool{rank}d_with_indices."
        )
    if indices.shape != x.shape:
        raise ValueError(f"{op}: x {x.shape} needs an index for every value, got indices {indices.shape}.")
    output = _output(op, rank, spatial, window, stride, padding, output_size)
    flat = (x.shape[0], math.prod(spatial), x.shape[-1])
    y = _unpooled(x.reshape(flat), indices.reshape(flat), math.prod(output))
    return y.reshape(x.shape[0], *output, x.shape[-1])


def _output(
    op: str,
    rank: int,
    spatial: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int] | Sequence[tuple[int, int]],
    output_size: int | Sequence[int] | None,
) -> tuple[int, ...]:
    """The spatial shape of the output."""
    size = arguments.per_axis(op, "window", window, rank)
    strides = size if stride is None else arguments.per_axis(op, "stride", stride, rank)
    if isinstance(padding, str):
        raise ValueError(
            f"{op}: padding must be the amounts of the pool, got {padding!r}. `shapes.padding_amounts` computes them."
        )
    pairs = arguments.padding_pairs(op, padding, spatial, size, strides, (1,) * rank, ())
    usual = tuple(
        (n - 1) * s - low - high + k for n, k, s, (low, high) in zip(spatial, size, strides, pairs, strict=True)
    )
    if output_size is None:
        if min(usual) < 1:
            raise ValueError(
                f"{op}: the output must have pixels, got {usual} from x of {spatial}, window {size}, stride {strides}"
                f" and padding {padding!r}. Pad less, or give output_size."
            )
        return usual
    output = arguments.per_axis(op, "output_size", output_size, rank)
    if any(abs(n - m) >= s for n, m, s in zip(output, usual, strides, strict=True)):
        raise ValueError(
            f"{op}: output_size must be off {usual} by less than the stride {strides}, got {output_size!r}."
            " Take the spatial shape that was pooled."
        )
    return output


# JAX's own derivative would look for the one of equal indices that was kept. That of a sum is a gather.


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _unpooled(x: Array, indices: Array, size: int) -> Array:
    zeros, places = _plane(x, indices, size)
    return zeros.at[places].set(x, mode="drop")


@_unpooled.defjvp
def _(size: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]):
    (x, indices), (dx, _) = primals, tangents
    zeros, places = _plane(x, indices, size)
    return _unpooled(x, indices, size), zeros.at[places].add(dx, mode="drop")


def _plane(x: Array, indices: Array, size: int) -> tuple[Array, tuple[Array, ...]]:
    """Zeros (N, size, C), and the places in them that the indices (N, M, C) mean."""
    batch, _, channels = x.shape
    indices = indices.astype(int)
    # A negative index would count from the end.
    indices = jnp.where(indices < 0, size, indices)
    zeros = jnp.zeros((batch, size, channels), x.dtype)
    return zeros, (jnp.arange(batch)[:, None, None], indices, jnp.arange(channels))
