"""Grouped convolution in plain JAX: XLA has no fast way for groups, but for the dense convolution of a few of them."""

from math import ceil

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, convolve

_BLOCK = 16  # channels to convolve at least at once: fewer do not fill a vector
_MOST = 16  # blocks at most, each of which is compiled


def together(channels: int, groups: int) -> int:
    """How many neighbouring groups make a block."""
    return next(m for m in range(min(ceil(_BLOCK * groups / channels), groups), 0, -1) if groups % m == 0)


def feasible(channels: int, groups: int) -> bool:
    """Whether there are few enough blocks to compile."""
    return groups // together(channels, groups) <= _MOST


def grouped(x: Array, kernel: Array, geometry: Geometry, groups: int) -> Array:
    """x (N, *spatial, C) with kernel (*window, C // groups, O): groups side by side in a kernel that is 0 elsewhere."""
    inputs, outputs = x.shape[-1] // groups, kernel.shape[-1] // groups
    members = together(x.shape[-1], groups)
    apart = jnp.eye(members, dtype=kernel.dtype)[:, None, :, None]

    def block(first: int) -> Array:
        own = kernel[..., first * outputs : (first + members) * outputs]
        own = own.reshape(*kernel.shape[:-2], 1, inputs, members, outputs) * apart
        dense = own.reshape(*kernel.shape[:-2], members * inputs, members * outputs)
        return convolve(x[..., first * inputs : (first + members) * inputs], dense, geometry)

    return jnp.concatenate([block(first) for first in range(0, groups, members)], axis=-1)
