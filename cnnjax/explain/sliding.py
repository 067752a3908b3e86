"""Animations of a window that slides over a table of numbers, and of what it computes there."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain._film import Film, conv_sum, lifted, pool_sum
from cnnjax.explain._frames import frames
from cnnjax.explain._slide import conv_slide, pool_slide
from cnnjax.explain.animation import Animation
from cnnjax.ops import avg_pool2d, max_pool2d
from cnnjax.ops._arguments import Padding


def animate_conv2d(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    seconds: float = 0.7,
) -> Animation:
    """Show."""
    return _animate_conv("animate_conv2d", 2, x, kernel, stride, padding, dilation, seconds)


def _animate_conv(
    op: str,
    rank: int,
    x: ArrayLike,
    kernel: ArrayLike,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    seconds: float,
) -> Animation:
    flat = conv_slide(op, rank, x, kernel, stride, padding, dilation)
    slide = lifted(flat)
    weights = np.asarray(kernel, np.float32).reshape(slide.window)
    sums = [conv_sum(slide.padded[slide.taps(stop)], weights, float(slide.output[stop])) for stop in slide.stops]
    title = f"{_size(flat.window)} filter, {_options(flat.stride, padding, flat.dilation)}"
    film = Film(title, slide, rank, weights, sums)
    return Animation(frames(film), caption=f"A {title}, slides over its input.", seconds=seconds)


def _size(values: Sequence[int]) -> str:
    return " × ".join(map(str, values))


def _options(stride: Sequence[int], padding: Padding, dilation: Sequence[int]) -> str:
    shown = {"stride": stride, "dilation": dilation} if max(dilation) > 1 else {"stride": stride}
    words = [f"{name} {values[0] if len(set(values)) == 1 else tuple(values)}" for name, values in shown.items()]
    return ", ".join([*words, f"padding {padding.upper() if isinstance(padding, str) else padding}"])
