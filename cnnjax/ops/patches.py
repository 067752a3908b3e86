"""Windows laid out as channels, and the adjoint that lays them back."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._spatial import spatial_shape
from cnnjax.ops.shapes import conv_output_size

_MODES = ("SAME", "SAME_LOWER", "VALID")


def unfold(
    x: Shaped[ArrayLike, "N *spatial C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Shaped[Array, "N *windows P"]:
    """Lay out the pixels of every window along the channel axis.

    The taps of channel 0 come first, in row-major order, then those of channel 1. The windows keep their place,
    where PyTorch lists them in one axis and puts it last: y.reshape(N, -1, y.shape[-1]).transpose(0, 2, 1) is its
    layout. Takes prod(window) times the memory of x at stride 1, so a convolution by `conv2d` is better than by
    `unfold` and `dense`. Copies alone: any dtype, and NaN stays in the taps that see it.

    y[n, i, j, (c * K + k) * L + l] = x[n, i * s + k * d - low, j * s + l * d - low, c], window (K, L)

    Args:
        x: (N, *spatial, C), any dtype, one to three spatial axes.
        window: size in pixels, at least 1: an int, or one an axis.
        stride: step of the window in pixels, at least 1: an int, or one an axis. Not the window, as in pools.
        padding: amounts of zeros: an int, one an axis, or a nested (low, high) pair an axis; or "SAME" (an odd
            pixel at the end), "SAME_LOWER" (at the start) or "VALID", in any case.
        dilation: distance between neighbouring taps in pixels, at least 1: an int, or one an axis.

    Returns:
        (N, *windows, C * prod(window)) in the dtype of x, with `shapes.conv_output_size(n, k, ...)` windows an axis.

    Raises:
        TypeError: a window, stride, padding or dilation that is not made of ints.
        ValueError: x that is not (N, *spatial, C), or a window that does not fit the padded input.

    Example:
        >>> x = jnp.array([[1, 10], [2, 20], [3, 30]])[None]
        >>> unfold(x, 2)
        Array([[[ 1,  2, 10, 20],
                [ 2,  3, 20, 30]]], dtype=int32)

    Source:
        Chellapilla, Puri & Simard 2006, "High Performance Convolutional Neural Networks for Document Processing";
        order of channels and options as torch.nn.Unfold and jax.lax.conv_general_dilated_patches.
    """
    x = jnp.asarray(x)
    spatial = spatial_shape("unfold", x)
    _check_window("unfold", "x", x, window)
    grid = _place("unfold", spatial, window, stride, padding, dilation)
    return _unfolded(_wide(x), grid).astype(x.dtype)


def fold(
    patches: Num[ArrayLike, "N *windows P"],
    output_size: int | Sequence[int],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Num[Array, "N *spatial C"]:
    """Add the pixels of every window back to where `unfold` took them.

    The adjoint of `unfold`, not its inverse: a pixel seen by several windows is their sum, one seen by none is 0.
    fold(unfold(x)) is x times fold(unfold(ones)), the number of windows that see each pixel; divide by it to take
    the mean of overlapping windows. Half precision is summed in float32 and rounded once. PyTorch's patches (N, P, M)
    are patches.transpose(0, 2, 1).reshape(N, *windows, P) here.

    x[n, h, w, c] = sum of patches[n, i, j, (c * K + k) * L + l] over h = i * s + k * d - low, w = j * s + l * d - low

    Args:
        patches: (N, *windows, C * prod(window)), floating, complex or integer, one to three axes of windows.
        output_size: spatial size of the result in pixels, at least 1: an int, or one an axis. Several sizes have
            the same number of windows.
        window: as in `unfold`.
        stride: as in `unfold`.
        padding: as in `unfold`; what would be added to the padding is dropped.
        dilation: as in `unfold`.

    Returns:
        (N, *output_size, C) in the dtype of patches.

    Raises:
        TypeError: patches of a dtype that is not added, as bool.
        ValueError: patches that do not have the windows and taps of an `unfold` from output_size.

    Example:
        >>> patches = jnp.array([[[1, 2, 10, 20], [2, 3, 20, 30]]])
        >>> fold(patches, 3, 2)
        Array([[[ 1, 10],
                [ 4, 40],
                [ 3, 30]]], dtype=int32)

    Source:
        torch.nn.Fold, with axes of windows and up to three of them.
    """
    patches = jnp.asarray(patches)
    if not jnp.issubdtype(patches.dtype, jnp.number):
        raise TypeError(f"fold: patches must be numbers, got {patches.dtype}. Cast it with patches.astype('float32').")
    if not 3 <= patches.ndim <= 5:
        raise ValueError(
            "fold: patches must be (N, *windows, C * prod(window)) with one to three axes of windows, got shape"
            f" {patches.shape}."
        )
    _check_window("fold", "patches", patches, window)
    size = arguments.per_axis("fold", "output_size", output_size, patches.ndim - 2)
    grid = _place("fold", size, window, stride, padding, dilation)
    channels = _channels(patches, size, grid)
    y = _wide(patches)
    x = jax.ShapeDtypeStruct((y.shape[0], *size, channels), y.dtype)
    (y,) = jax.linear_transpose(lambda x: _unfolded(x, grid), x)(y)
    return y.astype(patches.dtype)


class _Grid(NamedTuple):
    """Where the windows lie, one value an axis."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pairs: list[tuple[int, int]]
    windows: tuple[int, ...]


def _place(
    op: str,
    spatial: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> _Grid:
    rank = len(spatial)
    size = arguments.per_axis(op, "window", window, rank)
    strides = arguments.per_axis(op, "stride", stride, rank)
    dilations = arguments.per_axis(op, "dilation", dilation, rank)
    pairs = arguments.padding_pairs(op, padding, spatial, size, strides, dilations, _MODES)
    windows = tuple(
        conv_output_size(n, k, stride=s, padding=pair, dilation=d)
        for n, k, s, pair, d in zip(spatial, size, strides, pairs, dilations, strict=True)
    )
    arguments.fits(op, "window", spatial, size, dilations, pairs, windows)
    return _Grid(size, strides, dilations, pairs, windows)


def _unfolded(x: Array, grid: _Grid) -> Array:
    """The windows of one axis after the other: K + L slices to compile, not K * L."""
    y = x
    for axis in range(len(grid.window)):
        y = _along(y, axis, grid)
    return y.reshape(x.shape[0], *grid.windows, x.shape[-1] * math.prod(grid.window))


def _along(x: Array, axis: int, grid: _Grid) -> Array:
    """Replace a spatial axis by its windows, and append an axis of taps.

    Tap t of window i lies at i * s + t * d. In blocks of s pixels, that is the same place of block i + t * d // s for
    all i: slices with a stride, and the spread sums of their transposes, would be several times slower.
    """
    k, s, d = grid.window[axis], grid.stride[axis], grid.dilation[axis]
    (low, _), windows = grid.pairs[axis], grid.windows[axis]
    axis += 1  # of x, after the batch
    blocks = windows + (k - 1) * d // s
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (low, blocks * s - low - x.shape[axis], 0)  # a negative amount crops what no window sees
    x = lax.pad(x, np.zeros((), x.dtype), edges)
    x = jnp.moveaxis(x.reshape(*x.shape[:axis], blocks, s, *x.shape[axis + 1 :]), axis + 1, -1)
    taps = []
    for block, places in itertools.groupby((t * d for t in range(k)), lambda place: place // s):
        inside = [place % s for place in places]
        whole = lax.slice_in_dim(x, block, block + windows, axis=axis)
        taps.append(lax.slice_in_dim(whole, inside[0], inside[-1] + 1, d, axis=-1))
    return jnp.concatenate(taps, axis=-1)


def _check_window(op: str, name: str, array: Array, window: int | Sequence[int]) -> None:
    """A window of one axis too many is the sign of a missing batch axis, which nothing else tells."""
    if isinstance(window, Sequence) and len(window) != array.ndim - 2:
        raise ValueError(
            f"{op}: window takes one value an axis ({array.ndim - 2}), got {window!r} for {name} {array.shape}."
            f" Give an int for all axes; a missing batch axis is added by {name}[None]."
        )


def _channels(patches: Array, size: tuple[int, ...], grid: _Grid) -> int:
    """How many channels the patches hold, once they are known to be those of the windows."""
    taps = math.prod(grid.window)
    if patches.shape[1:-1] != grid.windows:
        if patches.shape[2:] == grid.windows:
            last = (0, *range(2, patches.ndim), 1)
            raise ValueError(
                f"fold: patches {patches.shape} looks channels-first: the windows {grid.windows} must come before"
                f" their taps. Use patches.transpose{last}."
            )
        raise ValueError(
            f"fold: patches must be (N, {', '.join(map(str, grid.windows))}, C * {taps}), the windows {grid.window} of"
            f" output_size {size}, got shape {patches.shape}. Give the output_size, stride, padding and dilation that"
            " they were unfolded with."
        )
    if patches.shape[-1] % taps:
        raise ValueError(
            f"fold: the last axis of patches must be C * {taps}, as window {grid.window} has {taps} taps, got shape"
            f" {patches.shape}."
        )
    return patches.shape[-1] // taps


def _wide(x: Array) -> Array:
    """In `unfold` as well, for its gradient: that sums what `fold` sums."""
    return arguments.wide(x) if jnp.issubdtype(x.dtype, jnp.floating) else x
