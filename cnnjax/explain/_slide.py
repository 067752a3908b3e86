"""Where a window stops on its way over a table of numbers, and what it computes there."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain.sizes import size_formula
from cnnjax.ops import _arguments as arguments
from cnnjax.ops import conv1d, conv2d, conv3d
from cnnjax.ops._arguments import Padding

_CONV: tuple[Callable[..., Array], ...] = (conv1d, conv2d, conv3d)
_FILLED = {"CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "edge"}
# One frame an output; beyond this a picture is too long to watch, and beyond that too small to read.
_MOST_OUTPUTS, _MOST_PIXELS = 100, 512


@dataclass(frozen=True)
class Slide:
    """A window's way over one table, one value an axis but for the tables themselves."""

    spatial: tuple[int, ...]  # the size of the input
    padded: np.ndarray  # the input with its padding
    inside: np.ndarray  # bool: a pixel of the input rather than padding
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    output: np.ndarray
    formulas: tuple[str, ...]

    @functools.cached_property
    def stops(self) -> list[tuple[int, ...]]:
        """The indices of the outputs, in the order in which they are computed."""
        return list(np.ndindex(self.output.shape))

    def start(self, stop: Sequence[int]) -> tuple[int, ...]:
        """The first padded pixel under the window."""
        return tuple(i * s for i, s in zip(stop, self.stride, strict=True))

    def taps(self, stop: Sequence[int]) -> tuple[np.ndarray, ...]:
        """The padded pixels under the window, as an index."""
        axes = zip(self.start(stop), self.window, self.dilation, strict=True)
        return np.ix_(*(first + d * np.arange(k) for first, k, d in axes))

    @functools.cached_property
    def covered(self) -> np.ndarray:
        """Which padded pixels any window sees."""
        seen = np.zeros(self.padded.shape, bool)
        for stop in self.stops:
            seen[self.taps(stop)] = True
        return seen


def conv_slide(
    op: str,
    rank: int,
    x: ArrayLike,
    kernel: ArrayLike,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> Slide:
    """The way of a filter, its outputs by the op of that rank."""
    table, weights = _table(op, "x", x, rank), _table(op, "kernel", kernel, rank)
    strides = arguments.per_axis(op, "stride", stride, rank)
    dilations = arguments.per_axis(op, "dilation", dilation, rank)
    pairs = arguments.padding_pairs(
        op, padding, table.shape, weights.shape, strides, dilations, arguments.conv_modes(rank)
    )
    output = _CONV[rank - 1](
        jnp.asarray(table)[None, ..., None],
        jnp.asarray(weights)[..., None, None],
        stride=strides,
        padding=padding,
        dilation=dilations,
    )
    mode = _FILLED.get(padding.upper(), "constant") if isinstance(padding, str) else "constant"
    padded = np.pad(table, pairs, mode=mode)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return _slide(op, padded, table.shape, weights.shape, strides, dilations, padding, pairs, output)


def pool_slide(
    op: str,
    pool: Callable[..., Array],
    x: ArrayLike,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    outside: float,
) -> Slide:
    """The way of a pool's window over a picture, its outputs by `pool`; padding holds `outside`."""
    table = _table(op, "x", x, 2)
    sizes = arguments.per_axis(op, "window", window, 2)
    strides = sizes if stride is None else arguments.per_axis(op, "stride", stride, 2)
    pairs = arguments.padding_pairs(op, padding, table.shape, sizes, strides, (1, 1), ("SAME", "SAME_LOWER", "VALID"))
    output = pool(jnp.asarray(table)[None, ..., None], sizes, stride=strides, padding=padding)
    padded = np.pad(table, pairs, constant_values=outside)
    return _slide(op, padded, table.shape, sizes, strides, (1, 1), padding, pairs, output)


def _slide(
    op: str,
    padded: np.ndarray,
    spatial: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: Padding,
    pairs: list[tuple[int, int]],
    output: Array,
) -> Slide:
    outputs = np.asarray(output)[0, ..., 0]
    if outputs.size > _MOST_OUTPUTS or padded.size > _MOST_PIXELS:
        raise ValueError(
            f"{op}: at most {_MOST_OUTPUTS} outputs and {_MOST_PIXELS} padded inputs can be read, got"
            f" {outputs.shape} and {padded.shape}. Cut a small piece out of x."
        )
    named = [padding] * len(pairs) if isinstance(padding, str) else pairs
    axes = zip(spatial, window, stride, named, dilation, strict=True)
    formulas = tuple(size_formula(n, k, stride=s, padding=amount, dilation=d) for n, k, s, amount, d in axes)
    inside = np.pad(np.ones(spatial, bool), pairs)
    return Slide(spatial, padded, inside, window, stride, dilation, outputs, formulas)


def _table(op: str, name: str, value: ArrayLike, rank: int) -> np.ndarray:
    table = np.asarray(value, np.float32)
    if table.ndim != rank or table.size == 0:
        axes = ", ".join(arguments.AXES[rank])
        raise ValueError(
            f"{op}: {name} must be one table ({axes}), got shape {table.shape}."
            " Take one example and one channel, as in x[0, ..., 0]."
        )
    if not np.isfinite(table).all():
        raise ValueError(f"{op}: {name} must be finite, got inf or NaN.")
    return table


def lifted(slide: Slide) -> Slide:
    """The same way with three axes, of length 1 where there were fewer."""
    ones = (1,) * (3 - slide.output.ndim)
    padded, inside, output = (a.reshape(ones + a.shape) for a in (slide.padded, slide.inside, slide.output))
    window, stride, dilation = (ones + values for values in (slide.window, slide.stride, slide.dilation))
    return Slide(ones + slide.spatial, padded, inside, window, stride, dilation, output, slide.formulas)


def times(sizes: Sequence[int]) -> str:
    """Sizes as "3 × 3"."""
    return " × ".join(map(str, sizes))


def number(value: float) -> str:
    """A value in as few digits as it needs: at most two after the point, fewer for large ones."""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    decimals = 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if decimals else text
    return "0" if text in ("-0", "0") else text.replace("-", "−")


def factor(value: float) -> str:
    """A value as it stands in a product."""
    text = number(value)
    return f"({text})" if text.startswith("−") else text


def exact(values: ArrayLike) -> bool:
    """Whether `number` writes these values without rounding."""
    finite = [value for value in np.ravel(np.asarray(values, np.float64)).tolist() if math.isfinite(value)]
    shown = (float(number(value).replace("−", "-")) for value in finite)
    return all(math.isclose(one, value, rel_tol=1e-6, abs_tol=1e-6) for one, value in zip(shown, finite, strict=True))
