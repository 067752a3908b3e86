"""Where the windows of an adaptive pool lie."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from cnnjax.ops import _arguments as arguments

Size = int | None | Sequence[int | None]


class Bins(NamedTuple):
    """The windows along one axis: where each starts, and how many pixels it sees."""

    start: np.ndarray
    size: np.ndarray

    def pixels(self, x: Array, axis: int, outside: ArrayLike) -> Array:
        """What every window sees, (..., windows, taps, ...): after the end of the smaller ones, `outside`."""
        windows, taps = len(self.size), int(self.size.max())
        if windows * taps == x.shape[axis]:
            return x.reshape(*x.shape[:axis], windows, taps, *x.shape[axis + 1 :])
        inside = np.arange(taps) < self.size[:, None]
        places = np.where(inside, self.start[:, None] + np.arange(taps), 0)
        gathered = jnp.take(x, places, axis=axis, mode="clip")
        return jnp.where(inside.reshape(*inside.shape, *(1,) * (x.ndim - axis - 1)), gathered, outside)


def place(op: str, rank: int, x: Array, output_size: Size) -> list[Bins]:
    """The windows of every axis: floor(i * n / out) up to ceil((i + 1) * n / out)."""
    spatial = arguments.batched(op, x, rank)
    sizes = output_size if isinstance(output_size, Sequence) else (output_size,) * rank
    if len(sizes) != rank:
        raise ValueError(
            f"{op}: output_size takes one value an axis ({rank}), got {output_size!r}. Give an int for all axes."
        )
    return [
        _divide(n, n if out is None else arguments.count(op, "output_size", out))
        for n, out in zip(spatial, sizes, strict=True)
    ]


def _divide(n: int, out: int) -> Bins:
    start, end = np.arange(out) * n // out, -(-np.arange(1, out + 1) * n // out)
    return Bins(start, end - start)
