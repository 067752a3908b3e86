"""Where the windows of a pool lie."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.shapes import pool_output_size

_MODES = ("SAME", "SAME_LOWER", "VALID")


class Windows(NamedTuple):
    """Where the windows lie, one value an axis. `pairs` pads for lax; only `counted` of it was asked for."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    counted: list[tuple[int, int]]
    pairs: list[tuple[int, int]]
    output: list[int]


def place(
    op: str,
    rank: int,
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Windows:
    spatial = arguments.batched(op, x, rank)
    size = arguments.per_axis(op, "window", window, rank)
    strides = size if stride is None else arguments.per_axis(op, "stride", stride, rank)
    dilations = arguments.per_axis(op, "dilation", dilation, rank)
    counted = arguments.padding_pairs(op, padding, spatial, size, strides, dilations, _MODES)
    axes = list(zip(spatial, size, strides, dilations, counted, strict=True))
    output = [
        pool_output_size(n, k, stride=s, padding=pair, dilation=d, ceil_mode=ceil_mode) for n, k, s, d, pair in axes
    ]
    arguments.fits(op, "window", spatial, size, dilations, counted, output)
    pairs = [
        (low, max((out - 1) * s + d * (k - 1) + 1 - n - low, 0))
        for (n, k, s, d, (low, _)), out in zip(axes, output, strict=True)
    ]
    windows = Windows(size, strides, dilations, counted, pairs, output)
    if any(counts.min() == 0 for counts in taps(windows, spatial, [(0, 0)] * rank)):
        raise ValueError(
            f"{op}: every window must see a pixel of x {x.shape}, but with window {size}, dilation {dilations} and"
            f" padding {padding!r} one sees padding alone. Pad less."
        )
    return windows


def taps(windows: Windows, spatial: Sequence[int], margin: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Count, for every window along each axis, the taps on the input widened by a margin."""
    counts = []
    for n, k, s, d, (low, _), out, (before, after) in zip(
        spatial,
        windows.size,
        windows.stride,
        windows.dilation,
        windows.pairs,
        windows.output,
        margin,
        strict=True,
    ):
        taps = np.arange(out)[:, None] * s - low + np.arange(k) * d
        counts.append(np.sum((taps >= -before) & (taps < n + after), axis=1))
    return counts
