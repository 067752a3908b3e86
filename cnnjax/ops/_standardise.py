"""What the normalisations by an example's own statistics share."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from cnnjax.ops import _arguments as arguments


def standardise(x: Array, mean: Callable[[Array], Array], eps: float) -> Array:
    """Centre x and divide by its standard deviation, both as `mean` takes them."""
    centred = x - lax.stop_gradient(mean(x))
    # The mean of many large values is off in its last digits: what it left behind is a mean of small ones.
    centred = centred - mean(centred)
    return centred * lax.rsqrt(mean(jnp.square(centred)) + eps)


def affine(y: Array, scale: Array | None, bias: Array | None) -> Array:
    """Scale and shift, where there is something to do it with."""
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def parameter(op: str, name: str, value: ArrayLike | None, x: Array, axes: Sequence[int]) -> Array | None:
    """The scale or bias in float32 at least, shaped to broadcast along some axes of x, in increasing order."""
    if value is None:
        return None
    array = arguments.floating(op, name, value)
    sizes, channels = tuple(x.shape[axis] for axis in axes), tuple(axes) == (x.ndim - 1,)
    if array.shape == sizes:
        return arguments.wide(array).reshape([n if axis in axes else 1 for axis, n in enumerate(x.shape)])
    if channels and x.ndim > 2 and array.shape == x.shape[1:2]:
        raise ValueError(
            f"{op}: x {x.shape} looks channels-first: {name} {array.shape} has one value a channel, which is the last"
            f" axis. Use x.transpose{(0, *range(2, x.ndim), 1)}."
        )
    if channels:
        raise ValueError(f"{op}: {name} must be {sizes}, one value a channel of x {x.shape}, got {array.shape}.")
    fix = " group_norm with groups=1 takes one value a channel." if array.shape == x.shape[-1:] else ""
    raise ValueError(f"{op}: {name} must be {sizes}, as x {x.shape} along axes {axes}, got {array.shape}.{fix}")
