"""Depthwise convolution, in which each channel has a window of its own, and its gradient: sums of shifted products."""

from collections.abc import Sequence
from functools import reduce
from itertools import product
from operator import add

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, pad, seen, take


def depthwise(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """x (N, *spatial, C) with kernel (*window, 1, C * multiplier), in plain JAX: XLA makes one loop of it."""
    window, out = kernel.shape[:-2], geometry.out(x.shape[1:-1], kernel.shape[:-2])
    x = pad(_repeated(x, kernel.shape[-1]), geometry.padding)
    starts = {tap: [k * d for k, d in zip(tap, geometry.dilation, strict=True)] for tap in product(*map(range, window))}
    return reduce(add, (take(x, start, out, geometry.stride) * kernel[(*tap, 0)] for tap, start in starts.items()))


def depthwise_kernel_gradient(x: Array, dy: Array, geometry: Geometry, window: Sequence[int]) -> Array:
    """x (N, *spatial, C) and dy (N, *out_spatial, C * multiplier), the gradient of the output, to (*window, 1, O)."""
    x = _repeated(x, dy.shape[-1])
    needed = seen(dy.shape[1:-1], geometry, window)
    x = pad(x, [(low, n - low - m) for (low, _), n, m in zip(geometry.padding, needed, x.shape[1:-1], strict=True)])
    axes = tuple(range(x.ndim - 1))
    starts = [[k * d for k, d in zip(tap, geometry.dilation, strict=True)] for tap in product(*map(range, window))]
    sums = [jnp.sum(take(x, start, dy.shape[1:-1], geometry.stride) * dy, axes) for start in starts]
    return jnp.stack(sums).reshape(*window, 1, dy.shape[-1])


def _repeated(x: Array, outputs: int) -> Array:
    """x with each channel as often as it has windows."""
    return x if x.shape[-1] == outputs else jnp.repeat(x, outputs // x.shape[-1], axis=-1)
