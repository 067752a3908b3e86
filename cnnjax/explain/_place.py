"""Checks of what is asked about a unit of a layer, and where that unit stands in the input."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cnnjax.explain import _field
from cnnjax.explain.trace import Layer, Trace


def examples(function: str, x: Any) -> Array:
    """The examples to look at, as an array that has gradients; `function` is who asks, for the errors."""
    if isinstance(x, jax.ShapeDtypeStruct):
        raise TypeError(f"{function}: x must be an array, got a jax.ShapeDtypeStruct. Gradients need values.")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{function}: x must be floating point, got {x.dtype}. Cast it with x.astype('float32').")
    if x.shape[:1] == (0,):
        raise ValueError(f"{function}: x must have an example, got shape {x.shape}.")
    return x


def layer_of(function: str, traced: Trace, name: str) -> Layer:
    """The layer of that name, whose values have the batch for their first axis."""
    found = traced.find(function, name)
    n = traced.program.x.shape[0]
    if len(found.shape) < 2 or found.shape[0] != n:
        raise ValueError(f"{function}: layer must have values ({n}, ..., C), got {name} with shape {found.shape}.")
    return found


def unit_of(function: str, layer: Layer, unit: Sequence[int] | None) -> tuple[int, ...]:
    """A position on the map of a layer, by default the one in the middle."""
    sizes = layer.shape[1:-1]
    if unit is None:
        return tuple(n // 2 for n in sizes)
    unit = tuple(unit)
    if len(unit) != len(sizes) or not all(0 <= u < n for u, n in zip(unit, sizes, strict=True)):
        raise ValueError(f"{function}: unit must be a position on the map {sizes} of {layer.name}, got {unit}.")
    return unit


def channel_of(function: str, layer: Layer, channel: int | None) -> int | None:
    """A channel that the layer has, or None."""
    if channel is not None and not 0 <= channel < layer.shape[-1]:
        raise ValueError(
            f"{function}: channel must be one of the {layer.shape[-1]} channels of {layer.name}, got {channel}."
        )
    return channel


def _position(field: _field.Field, unit: Sequence[int]) -> int:
    # Axis 0 of a value is its batch.
    return 0 if field.axis is None or not 0 < field.axis <= len(unit) else unit[field.axis - 1]


def textbook(field: _field.Field, unit: Sequence[int]) -> tuple[int, int]:
    """The first pixel that a unit sees and the one after the last, whether they exist or not."""
    start = field.start + int(_position(field, unit) * field.jump)
    return start, start + field.size


def window(layer: Layer, unit: Sequence[int], spatial: Sequence[int]) -> tuple[slice, ...]:
    """The pixels that a unit sees, without what lies in the padding."""
    seen = []
    for field, n in zip(layer.view, spatial, strict=True):
        position = _position(field, unit)
        first, last = int(field.first[position]), int(field.last[position])
        seen.append(slice(first, min(last, n - 1) + 1))
    # What sees no pixel along one axis sees none.
    whole = all(part.start < part.stop for part in seen)
    return tuple(seen) if whole else tuple(slice(0, 0) for _ in seen)
