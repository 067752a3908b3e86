"""Where the window of a convolution stands: per spatial axis its stride, the padding of the input, and its dilation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True)
class Geometry:
    """One entry for each spatial axis. A negative padding crops."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def reach(self, window: Sequence[int]) -> tuple[int, ...]:
        """How many pixels a window spans, with those between its taps."""
        return tuple((k - 1) * d + 1 for k, d in zip(window, self.dilation, strict=True))

    def out(self, spatial: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
        """The output's spatial shape."""
        parts = zip(spatial, self.reach(window), self.stride, self.padding, strict=True)
        return tuple((n + sum(p) - r) // s + 1 for n, r, s, p in parts)


def of_low_images(geometry: Geometry) -> Geometry:
    """That of series, for the same as images of height 1."""
    return Geometry((1, *geometry.stride), ((0, 0), *geometry.padding), (1, *geometry.dilation))


def seen(out: Sequence[int], geometry: Geometry, window: Sequence[int]) -> tuple[int, ...]:
    """How many pixels of the padded input the windows of so many outputs see, for each axis."""
    return tuple((o - 1) * s + r for o, s, r in zip(out, geometry.stride, geometry.reach(window), strict=True))


def pad(x: Array, padding: Sequence[tuple[int, int]]) -> Array:
    """Pad x (N, *spatial, C) with zeros, or crop it where the padding is negative."""
    if not any(low or high for low, high in padding):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))


def cropped(x: Array, geometry: Geometry) -> tuple[Array, Geometry]:
    """x without what negative padding crops, and the geometry that is left."""
    now, later = [], []
    for n, (low, high) in zip(x.shape[1:-1], geometry.padding, strict=True):
        crop = min(low, 0), min(high, 0)
        more_than_all = n + sum(crop) < 1  # then a window sees padding alone, which must be there first
        now.append((low, high) if more_than_all else crop)
        later.append((0, 0) if more_than_all else (max(low, 0), max(high, 0)))
    return pad(x, now), replace(geometry, padding=tuple(later))


def take(x: Array, start: Sequence[int], size: Sequence[int], step: Sequence[int]) -> Array:
    """Of x (N, *spatial, C), so many elements of each spatial axis, from a start, every so many."""
    stop = (a + (n - 1) * s + 1 for a, n, s in zip(start, size, step, strict=True))
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *step, 1))


def convolve(x: Array, kernel: Array, geometry: Geometry, groups: int = 1) -> Array:
    """A convolution of channels-last x and kernel as lax has it: what is compiled for it is chosen once more.

    Without negative padding, for which XLA:CPU reads beyond x.
    """
    x, geometry = cropped(x, geometry)
    axes = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.stride,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )
