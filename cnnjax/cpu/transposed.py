"""Transposed convolution, which is also the gradient of a strided one with respect to its input, without the zeros.

lax describes it as a convolution of an input with d - 1 zeros between its pixels. Most products are then with zeros.
But output pixels a distance of d apart meet the same taps of the kernel: each such phase of the output is a small
convolution of the input as it is, and the phases interleave to the whole.
"""

from collections.abc import Sequence
from itertools import product
from math import ceil, gcd

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, convolve


def transposed(
    x: Array, kernel: Array, geometry: Geometry, between: Sequence[int], out: Sequence[int], groups: int
) -> Array:
    """x (N, *spatial, C), with `between` - 1 zeros after each pixel, and kernel; the geometry has a stride of 1."""
    size = [ceil(o / d) for o, d in zip(out, between, strict=True)]
    phases = [
        _phase(x, kernel, geometry, between, size, phase, groups) for phase in product(*(range(d) for d in between))
    ]
    rank = len(out)
    y = jnp.stack(phases).reshape(*between, x.shape[0], *size, kernel.shape[-1])
    order = (rank, *(axis for i in range(rank) for axis in (rank + 1 + i, i)), 2 * rank + 1)
    y = y.transpose(order).reshape(x.shape[0], *(n * d for n, d in zip(size, between, strict=True)), kernel.shape[-1])
    return y[(slice(None), *(slice(o) for o in out))]


def _phase(
    x: Array,
    kernel: Array,
    geometry: Geometry,
    between: Sequence[int],
    size: Sequence[int],
    phase: Sequence[int],
    groups: int,
) -> Array:
    """The output pixels phase, phase + between, ...: so many of each axis."""
    taps, padding, dilation = [], [], []
    for axis, (d, r, n) in enumerate(zip(between, phase, size, strict=True)):
        tap, step = _taps(r, d, geometry.padding[axis][0], geometry.dilation[axis], kernel.shape[axis])
        if tap is None:
            return jnp.zeros((x.shape[0], *size, kernel.shape[-1]), x.dtype)
        count = ceil((kernel.shape[axis] - tap) / step)
        apart = step * geometry.dilation[axis] // d
        low = -((r + tap * geometry.dilation[axis] - geometry.padding[axis][0]) // d)
        taps.append(slice(tap, None, step))
        padding.append((low, n - 1 + apart * (count - 1) + 1 - low - x.shape[1 + axis]))
        dilation.append(apart)
    small = Geometry((1,) * len(size), tuple(padding), tuple(dilation))
    return convolve(x, kernel[tuple(taps)], small, groups)


def _taps(phase: int, between: int, low: int, dilation: int, window: int) -> tuple[int | None, int]:
    """The first tap that meets a pixel of x instead of a zero, and how far apart the taps are that do."""
    step = between // gcd(between, dilation)
    first = next((k for k in range(min(step, window)) if (phase + k * dilation - low) % between == 0), None)
    return first, step
