"""Padding and cropping of the spatial axes."""

import sys
from collections.abc import Sequence
from numbers import Number
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Shaped

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._spatial import spatial_shape

# What NumPy calls the modes that fill in pixels of x.
_COPYING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    x: Shaped[Array, "N *spatial C"],
    padding: int | Sequence[int] | Sequence[tuple[int, int]],
    *,
    mode: str = "constant",
    value: ArrayLike = 0.0,
) -> Shaped[Array, "N *padded C"]:
    """Pad the spatial axes of a batch of series, pictures or volumes, or crop them.

    A negative amount crops its side. Where one side is cropped and the other padded, circular repeats what is left;
    the rest see x as it was. Convolutions and pools take their padding themselves.

    Along each axis, y[i] = x[source(i - low)], where what lies outside 0 ... n - 1 has its source

    - constant: nowhere, it is the value
    - reflect: at -j before the start and at 2 * (n - 1) - j beyond the end, so the edge comes once
    - replicate: at the nearest edge
    - circular: at j modulo n

    Args:
        x: (N, *spatial, C) with one to three spatial axes, any dtype.
        padding: pixels to add: an int for every side, one an axis, or a nested (low, high) pair an axis. Reflect adds
            fewer than n; circular may go round more than once.
        mode: "constant", "reflect", "replicate" or "circular".
        value: a scalar that the dtype of x can hold, for constant alone.

    Returns:
        (N, *padded, C) in the dtype of x, with n + low + high pixels an axis. In half precision, the gradients of a
        pixel's copies are added in float32.

    Raises:
        TypeError: amounts that are no ints.
        ValueError: an unknown mode, the wrong number of amounts, more reflected than there is, a result without
            pixels, or a value that does not fit the mode or the dtype.

    Example:
        >>> x = jnp.array([1, 2, 3, 4]).reshape(1, 4, 1)
        >>> pad(x, ((2, 1),), mode="reflect").ravel()
        Array([3, 2, 1, 2, 3, 4, 3], dtype=int32)
        >>> pad(x, ((-1, 2),), mode="circular").ravel()
        Array([2, 3, 4, 2, 3], dtype=int32)

    Source:
        torch.nn.functional.pad, whose amounts are flat and begin with the last axis, and which goes round once at
        most. ONNX Pad calls replicate "edge" and circular "wrap".
    """
    x = jnp.asarray(x)
    spatial = spatial_shape("pad", x)
    pairs = _pairs(padding, len(spatial))
    _check(spatial, pairs, mode)
    if mode == "constant":
        return _filled(x, pairs, value)
    if not (isinstance(value, Number) and value == 0):
        raise ValueError(f"pad: value is for mode constant, got value={value} with mode {mode!r}. Leave it out.")
    added = [(0, 0), *((max(low, 0), max(high, 0)) for low, high in pairs), (0, 0)]
    y = _wide(x)
    if mode == "circular":
        y = jnp.pad(_cropped(y, pairs), added, "wrap")
    else:
        y = _cropped(jnp.pad(y, added, _COPYING[mode]), pairs)
    return y.astype(x.dtype)


def _wide(x: Array) -> Array:
    """In float32 at least: a pixel's gradient is the sum of its copies'."""
    return arguments.wide(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _cropped(x: Array, pairs: Sequence[tuple[int, int]]) -> Array:
    """The array without what negative amounts take away."""
    edges = [(min(low, 0), min(high, 0), 0) for low, high in pairs]
    return lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _pairs(padding: int | Sequence[int] | Sequence[tuple[int, int]], rank: int) -> list[tuple[int, int]]:
    """The (low, high) amounts of every axis, of either sign."""
    if isinstance(padding, Sequence) and padding and all(isinstance(pair, tuple | list) for pair in padding):
        pairs = [arguments.per_axis("pad", "each pair of padding", pair, 2, minimum=-sys.maxsize) for pair in padding]
        if len(pairs) != rank:
            raise ValueError(f"pad: padding takes one (low, high) pair an axis ({rank}), got {padding!r}.")
        return [(low, high) for low, high in pairs]
    if isinstance(padding, Sequence) and len(padding) == 2 != rank:
        raise ValueError(
            f"pad: padding takes one value an axis ({rank}), got {padding!r}. Nest (low, high) pairs, one an axis."
        )
    amounts = arguments.per_axis("pad", "padding", padding, rank, minimum=-sys.maxsize)  # pyright: ignore[reportArgumentType]
    return [(amount, amount) for amount in amounts]


def _check(spatial: Sequence[int], pairs: Sequence[tuple[int, int]], mode: str) -> None:
    if mode != "constant" and mode not in _COPYING:
        raise ValueError(f"pad: mode must be one of constant, {', '.join(_COPYING)}, got {mode!r}.")
    for axis, n, (low, high) in zip(arguments.AXES[len(spatial)], spatial, pairs, strict=True):
        if mode == "reflect" and max(low, high) >= n:
            raise ValueError(
                f"pad: reflect must add fewer pixels than there are, got {max(low, high)} for {n} along {axis}."
                " Use replicate, or pad less."
            )
        left = n + low + high if mode != "circular" else n + min(low, 0) + min(high, 0)
        if left < 1:
            raise ValueError(f"pad: padding {(low, high)} leaves no pixel of {n} along {axis}. Crop less.")


def _filled(x: Array, pairs: Sequence[tuple[int, int]], value: ArrayLike) -> Array:
    edges = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
    if isinstance(value, Number):
        if not _holds(x.dtype, value):
            raise ValueError(f"pad: value must be a number that {x.dtype} holds, got {value}. Cast x first.")
        return lax.pad(x, jnp.asarray(value, x.dtype), edges)
    array = jnp.asarray(value)
    if array.ndim:
        raise ValueError(f"pad: value must be a scalar, got shape {array.shape}.")
    arguments.same_dtype("pad", x, "value", array)
    # Selected, because JAX fails to derive lax.pad by its value alone.
    inside = lax.pad(jnp.ones((1, *x.shape[1:-1], 1), bool), np.False_, edges)
    return jnp.where(inside, _wide(lax.pad(x, np.zeros((), x.dtype), edges)), _wide(array)).astype(x.dtype)


def _holds(dtype: np.dtype, value: Any) -> bool:
    """Whether a number survives the conversion, but for the rounding of a floating dtype."""
    if isinstance(value, complex):
        return jnp.issubdtype(dtype, jnp.complexfloating)
    if jnp.issubdtype(dtype, jnp.inexact):
        return True
    low, high = (0, 1) if dtype == np.bool_ else (jnp.iinfo(dtype).min, jnp.iinfo(dtype).max)
    return low <= value <= high and value == int(value)
