"""Fractional max pooling: sizes shrink by less than an integer factor, at windows drawn at random."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int32, Key, Real

from cnnjax.ops import _arguments as arguments


def fractional_max_pool2d(
    key: Key[Array, ""] | None,
    x: Real[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    samples: Float[Array, "N C 2"] | None = None,
) -> Real[Array, "N Ho Wo C"]:
    """Take the maximum of windows whose distances vary at random between two integers.

    Shrinks a picture by 1.4, say, where `max_pool2d` knows whole factors alone; `adaptive_max_pool2d` does so too, at
    windows that do not move. Here they are drawn anew for every picture and every channel, and overlap wherever they
    are larger than their distance. Evaluation draws them too; averaging over several draws helps. NaN wins always.
    The gradient goes to the first of equal maxima, in row-major order.

    y[n, i, j, c] = max over k, l of x[n, a[i] + k, b[j] + l, c], where with u = samples[n, c, 1] and
    alpha = (H - Kh) / (Ho - 1), a[i] = floor((i + u) * alpha) - floor(u * alpha), the last one H - Kh;
    b[j] alike from samples[n, c, 0]

    Args:
        key: a JAX PRNG key; the same key gives the same windows. None where samples are given.
        x: (N, H, W, C), floating or integer.
        window: Kh, Kw in pixels, at least 1: an int, or one an axis. 2 or 3 is usual.
        output_size: Ho, Wo in pixels, at least 1, with Ho + Kh - 1 <= H: an int for both, or one an axis.
        output_ratio: instead of output_size, Ho / H and Wo / W in (0, 1), rounded down to pixels: a float for both,
            or one an axis.
        samples: (N, C, 2), floating, in [0, 1): one for the columns, then one for the rows. None draws from key.

    Returns:
        (N, Ho, Wo, C) in the dtype of x.

    Raises:
        TypeError: x of a dtype without an order, or samples that are not floating.
        ValueError: x that is not (N, H, W, C), an output that does not fit, both or neither of output_size and
            output_ratio, or neither key nor samples.

    Example:
        >>> x = jnp.arange(25.0).reshape(1, 5, 5, 1)
        >>> fractional_max_pool2d(None, x, 2, output_size=3, samples=jnp.array([[[0.2, 0.6]]]))[0, :, :, 0]
        Array([[ 6.,  7.,  9.],
               [16., 17., 19.],
               [21., 22., 24.]], dtype=float32)

    Source:
        Graham 2014, "Fractional Max-Pooling", section 2, the pseudorandom overlapping form; sequences and samples as
        torch.nn.FractionalMaxPool2d. TensorFlow's shares them among pictures and channels.
    """
    return _fractional("fractional_max_pool2d", key, x, window, output_size, output_ratio, samples)[0]


def fractional_max_pool2d_with_indices(
    key: Key[Array, ""] | None,
    x: Real[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    samples: Float[Array, "N C 2"] | None = None,
) -> tuple[Real[Array, "N Ho Wo C"], Int32[Array, "N Ho Wo C"]]:
    """Take the maximum of windows at random distances, and say where it is.

    `fractional_max_pool2d`, where the indices are not wanted. Of several NaN the last one is meant.

    indices[n, i, j, c] = h * W + w of the first maximum of the window, in row-major order

    Args:
        key: as in `fractional_max_pool2d`.
        x: (N, H, W, C), floating or integer.
        window: as in `fractional_max_pool2d`.
        output_size: as in `fractional_max_pool2d`.
        output_ratio: as in `fractional_max_pool2d`.
        samples: as in `fractional_max_pool2d`.

    Returns:
        (y, indices), each (N, Ho, Wo, C): y in the dtype of x, indices int32, flat in the (H, W) plane.

    Raises:
        TypeError: as `fractional_max_pool2d`.
        ValueError: as `fractional_max_pool2d`.

    Example:
        >>> x = jnp.array([[1.0, 5.0, 5.0], [4.0, 0.0, 2.0]]).reshape(1, 2, 3, 1)
        >>> y, indices = fractional_max_pool2d_with_indices(jax.random.key(0), x, 2, output_size=(1, 2))
        >>> y.ravel(), indices.ravel()
        (Array([5., 5.], dtype=float32), Array([1, 1], dtype=int32))

    Source:
        As `fractional_max_pool2d`.
    """
    return _fractional("fractional_max_pool2d_with_indices", key, x, window, output_size, output_ratio, samples)


def _fractional(
    op: str,
    key: Array | None,
    x: Array,
    window: int | Sequence[int],
    output_size: int | Sequence[int] | None,
    output_ratio: float | Sequence[float] | None,
    samples: Array | None,
) -> tuple[Array, Array]:
    x = arguments.ordered(op, "x", x)
    height, width = arguments.batched(op, x, 2)
    size = arguments.per_axis(op, "window", window, 2)
    output = _output(op, (height, width), size, output_size, output_ratio)
    samples = _samples(op, key, x, samples)
    rows = _starts(samples[..., 1], height, size[0], output[0])[:, :, None]
    columns = _starts(samples[..., 0], width, size[1], output[1])[:, None]
    best = lax.stop_gradient(x)
    places = jnp.broadcast_to(jnp.arange(height * width, dtype=jnp.int32).reshape(height, width, 1), x.shape)
    # The last axis first, which leaves equals in row-major order.
    for axis in 2, 1:
        best, places = _slide(best, places, axis, size[axis - 1])
    indices = _take(places, rows * places.shape[2] + columns)
    return _take(x, indices), indices


def _take(x: Array, indices: Array) -> Array:
    """From every plane of x, the pixels at flat indices of that plane."""
    batch, *sizes, channels = indices.shape
    flat = indices.reshape(batch, math.prod(sizes), channels)
    planes = x.reshape(batch, math.prod(x.shape[1:-1]), channels)
    return jnp.take_along_axis(planes, flat, axis=1, mode="clip").reshape(indices.shape)


def _slide(value: Array, place: Array, axis: int, size: int) -> tuple[Array, Array]:
    """The largest of every `size` neighbours along an axis, and its place: the first of equals, the last NaN."""
    count = value.shape[axis] - size + 1

    def larger(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        wins = (second[0] > first[0]) | (second[0] != second[0])
        return jnp.where(wins, second[0], first[0]), jnp.where(wins, second[1], first[1])

    return functools.reduce(
        larger,
        [
            (lax.slice_in_dim(value, tap, tap + count, axis=axis), lax.slice_in_dim(place, tap, tap + count, axis=axis))
            for tap in range(size)
        ],
    )


def _starts(samples: Array, n: int, k: int, out: int) -> Array:
    """Where the windows of every plane start along one axis: (N, C) samples to (N, out, C), int32.

    In the dtype of the samples, and in PyTorch's order of operations: rounded otherwise, a window may move by one.
    """
    last = jnp.full((samples.shape[0], 1, samples.shape[1]), n - k, jnp.int32)
    if out == 1:
        return last
    kind = samples.dtype.type
    alpha, u = kind(n - k) / kind(out - 1), samples[:, None]
    steps = jnp.arange(out - 1, dtype=kind)[:, None]
    starts = ((steps + u) * alpha).astype(jnp.int32) - (u * alpha).astype(jnp.int32)
    return jnp.concatenate([starts, last], axis=1)


def _output(
    op: str,
    spatial: Sequence[int],
    window: Sequence[int],
    output_size: int | Sequence[int] | None,
    output_ratio: float | Sequence[float] | None,
) -> tuple[int, ...]:
    if output_size is not None and output_ratio is None:
        sizes = arguments.per_axis(op, "output_size", output_size, 2)
    elif output_ratio is not None and output_size is None:
        ratios = tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * 2
        if len(ratios) != 2 or not all(0 < ratio < 1 for ratio in ratios):
            raise ValueError(f"{op}: output_ratio must be one or two numbers in (0, 1), got {output_ratio!r}.")
        sizes = tuple(int(n * ratio) for n, ratio in zip(spatial, ratios, strict=True))
    else:
        raise ValueError(
            f"{op}: either output_size or output_ratio must be given, got {output_size!r} and {output_ratio!r}."
        )
    room = [n - k + 1 for n, k in zip(spatial, window, strict=True)]
    arguments.fits(op, "window", spatial, window, (1, 1), [(0, 0)] * 2, room)
    for axis, most, out in zip("HW", room, sizes, strict=True):
        if not 1 <= out <= most:
            raise ValueError(
                f"{op}: window {tuple(window)} has from 1 to {most} places along {axis} of the input {tuple(spatial)},"
                f" got an output of {sizes}. Ask for another size."
            )
    return sizes


def _samples(op: str, key: Array | None, x: Array, samples: Array | None) -> Array:
    shape = x.shape[0], x.shape[-1], 2
    if samples is None:
        if key is None:
            raise ValueError(f"{op}: key must be a JAX PRNG key where there are no samples, got None. Give either.")
        return jax.random.uniform(key, shape, jnp.promote_types(x.dtype, jnp.float32))
    samples = arguments.floating(op, "samples", samples)
    if samples.shape != shape:
        raise ValueError(
            f"{op}: samples must be (N, C, 2), {shape} for x {x.shape}, got shape {samples.shape}."
            " One row a picture, one column a channel."
        )
    return arguments.wide(samples)
