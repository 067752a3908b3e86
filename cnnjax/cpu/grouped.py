"""Grouped convolution in plain JAX: XLA has no fast way for groups, but for the dense convolution of a few of them."""

from math import ceil

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, convolve

_BLOCK = 16  # channels to convolve at least at once: fewer do not fill a vector
_MOST = 16  # blocks at most, each of which is compiled


def blocks(channels: int, groups: int) -> int:
    """Into how many dense convolutions the groups are gathered."""
    return groups // _together(channels // groups, groups)


def feasible(channels: int, groups: int) -> bool:
    """Whether there are few enough blocks to compile."""
    return blocks(channels, groups) <= _MOST


def grouped(x: Array, kernel: Array, geometry: Geometry, groups: int) -> Array:
    """x (N, *spatial, C) with kernel (*window, C // groups, O): groups side by side in a kernel that is 0 elsewhere."""
    inputs, outputs = x.shape[-1] // groups, kernel.shape[-1] // groups
    together = _together(inputs, groups)
    apart = jnp.eye(together, dtype=kernel.dtype)[:, None, :, None]

    def block(first: int) -> Array:
        own = kernel[..., first * outputs : (first + together) * outputs]
        own = own.reshape(*kernel.shape[:-2], 1, inputs, together, outputs) * apart
        dense = own.reshape(*kernel.shape[:-2], together * inputs, together * outputs)
        return convolve(x[..., first * inputs : (first + together) * inputs], dense, geometry)

    return jnp.concatenate([block(first) for first in range(0, groups, together)], axis=-1)


def _together(inputs: int, groups: int) -> int:
    return next(m for m in range(min(ceil(_BLOCK / inputs), groups), 0, -1) if groups % m == 0)
