"""What the ops ask of their arguments: checked before lax sees the call, worded "op: rule, what was got. Fix."."""

import operator
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from cnnjax.ops import shapes

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

AXES = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}


def layout(rank: int) -> str:
    """The shape of a batch in words: rank 2 gives "(N, H, W, C)"."""
    return f"(N, {', '.join(AXES[rank])}, C)"


def inexact(op: str, name: str, value: ArrayLike) -> Array:
    """The argument as an array of a floating or complex dtype."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise TypeError(
            f"{op}: {name} must be floating point, got {array.dtype}. Cast it with {name}.astype('float32')."
        )
    return array


def floating(op: str, name: str, value: ArrayLike) -> Array:
    """The argument as an array of a floating dtype, not complex."""
    array = inexact(op, name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{op}: {name} must be floating point, got {array.dtype}. Take its real and imaginary parts.")
    return array


def ordered(op: str, name: str, value: ArrayLike) -> Array:
    """The argument as an array of a floating or integer dtype: one that has a maximum."""
    array = jnp.asarray(value)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{op}: {name} must be floating point or integer, got {array.dtype}, which has no order.")
    return array


def lowest(x: Array) -> np.ndarray:
    """The identity of the maximum in the dtype of x."""
    return np.array(-np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min, x.dtype)


def same_dtype(op: str, x: Array, name: str, array: Array) -> None:
    """Refuse an implicit promotion, which would silently change the precision of all that follows."""
    if array.dtype != x.dtype:
        raise TypeError(f"{op}: x is {x.dtype} but {name} is {array.dtype}. Cast one, as in {name}.astype(x.dtype).")


def batched(op: str, x: Array, rank: int) -> tuple[int, ...]:
    """The spatial shape of x, which must be (N, *spatial, C) with at least one pixel."""
    if x.ndim != rank + 2:
        fix = {rank + 1: "Add a batch axis with x[None]."}.get(
            x.ndim, "Use vmap for more batch axes." if x.ndim > rank + 2 else "Add the axes that are missing."
        )
        raise ValueError(f"{op}: x must be {layout(rank)}, got shape {x.shape}. {fix}")
    if 0 in x.shape[1:-1]:
        raise ValueError(f"{op}: x must have pixels, got shape {x.shape}. Only the batch axis may be empty.")
    return x.shape[1:-1]


def count(op: str, name: str, value: int) -> int:
    """An int of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an int, got {value!r}.") from None
    if number < 1:
        raise ValueError(f"{op}: {name} must be at least 1, got {value!r}.")
    return number


def per_axis(op: str, name: str, value: int | Sequence[int], rank: int, *, minimum: int = 1) -> tuple[int, ...]:
    """One integer an axis: an int is broadcast, a sequence must have `rank` of them."""
    try:
        values = tuple(map(operator.index, value)) if isinstance(value, Sequence) else (operator.index(value),) * rank
    except TypeError:
        raise TypeError(f"{op}: {name} must be an int or {rank} ints, got {value!r}.") from None
    if len(values) != rank:
        raise ValueError(f"{op}: {name} takes one value an axis ({rank}), got {value!r}. Give an int for all axes.")
    if min(values) < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value!r}.")
    return values


def checked_bias(op: str, x: Array, bias: ArrayLike | None, size: int) -> Array | None:
    """The bias as an array (size,) in the dtype of x."""
    if bias is None:
        return None
    array = inexact(op, "bias", bias)
    same_dtype(op, x, "bias", array)
    if array.shape != (size,):
        raise ValueError(f"{op}: bias must be ({size},), one value an output channel, got shape {array.shape}.")
    return array


def wide(x: Array) -> Array:
    """The array in float32 at least: what half precision is accumulated in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def add_bias(y: Array, bias: Array | None) -> Array:
    """Add in float32 at least: in half precision the bias's gradient would be a sum of rounded sums."""
    if bias is None:
        return y
    return (wide(y) + wide(bias)).astype(y.dtype)


def conv_modes(rank: int) -> tuple[str, ...]:
    """The paddings that a convolution of that rank knows by name: time alone has a past to be causal about."""
    return tuple(mode for mode in shapes.PAD_MODES if rank == 1 or mode != "CAUSAL")


def padding_pairs(
    op: str,
    padding: Padding,
    spatial: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    modes: Sequence[str],
) -> list[tuple[int, int]]:
    """The (low, high) amounts of every axis, from a mode's name, an int, one value an axis, or nested pairs."""
    rank = len(spatial)
    if isinstance(padding, str):
        if padding.upper() not in modes:
            raise ValueError(f"{op}: padding must be amounts or one of {', '.join(modes)}, got {padding!r}.")
        return [
            shapes.padding_amounts(n, k, padding=padding, stride=s, dilation=d)
            for n, k, s, d in zip(spatial, window, stride, dilation, strict=True)
        ]
    if isinstance(padding, Sequence) and padding and all(isinstance(pair, Sequence) for pair in padding):
        pairs = [per_axis(op, "each pair of padding", pair, 2, minimum=0) for pair in padding]
        if len(pairs) != rank:
            raise ValueError(f"{op}: padding takes one (low, high) pair an axis ({rank}), got {padding!r}.")
        return [(low, high) for low, high in pairs]
    if isinstance(padding, Sequence) and len(padding) == 2 != rank:
        raise ValueError(
            f"{op}: padding takes one value an axis ({rank}), got {padding!r}. Nest (low, high) pairs, one an axis."
        )
    return [(amount, amount) for amount in per_axis(op, "padding", padding, rank, minimum=0)]  # pyright: ignore[reportArgumentType]


def fits(
    op: str,
    noun: str,
    spatial: Sequence[int],
    window: Sequence[int],
    dilation: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    output: Sequence[int],
) -> None:
    """Refuse an output without pixels, which lax would return in silence."""
    for axis, size in zip(AXES[len(spatial)], output, strict=True):
        if size < 1:
            padded = tuple(n + low + high for n, (low, high) in zip(spatial, pairs, strict=True))
            dilated = f" with dilation {tuple(dilation)}" if max(dilation) > 1 else ""
            raise ValueError(
                f"{op}: {noun} {tuple(window)}{dilated} does not fit the padded input {padded} along {axis}."
                f" Pad, or use a smaller {noun}."
            )
