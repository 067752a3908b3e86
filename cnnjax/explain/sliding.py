"""Animations of a window that slides over a table of numbers, and of what it computes there."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain._film import Film, Pieces, conv_sum, pool_sum
from cnnjax.explain._frames import frames
from cnnjax.explain._slide import Slide, conv_slide, lifted, pool_slide, times
from cnnjax.explain.animation import Animation
from cnnjax.ops import avg_pool2d, max_pool2d
from cnnjax.ops._arguments import Padding


def animate_conv1d(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    seconds: float = 0.7,
) -> Animation:
    """Show how a filter slides over a series, with the products and their sum at every stop.

    The numbers of the output are `ops.conv1d`'s.

    Args:
        x: (L,), one example and one channel.
        kernel: (K,).
        stride: as in `ops.conv1d`.
        padding: as in `ops.conv1d`, but "VALID" unless told.
        dilation: as in `ops.conv1d`.
        seconds: how long a frame stays; the last one stays four times as long.

    Returns:
        An `Animation`, one frame an output.

    Raises:
        ValueError: tables of another rank, values that are not finite, a filter that does not fit, or more than
            100 outputs or 512 padded inputs.
        ImportError: matplotlib is missing.

    Example:
        >>> animate_conv1d([1, 2, 4, 8], [-1, 1], padding="CAUSAL")
        Animation(4 frames: A filter of 2, stride 1, padding CAUSAL, slides over an input of 4 and gives 4)

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", whose figures show where a
        window stops, without its numbers.
    """
    return _animate_conv("animate_conv1d", 1, x, kernel, stride, padding, dilation, seconds)


def animate_conv2d(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    seconds: float = 0.7,
) -> Animation:
    """Show how a filter slides over a picture, with the products and their sum at every stop.

    The numbers of the output are `ops.conv2d`'s. Cells with a dashed edge are padding; hatched ones are covered
    by no window.

    Args:
        x: (H, W), one example and one channel.
        kernel: (Kh, Kw).
        stride: as in `ops.conv2d`.
        padding: as in `ops.conv2d`, but "VALID" unless told.
        dilation: as in `ops.conv2d`.
        seconds: as in `animate_conv1d`.

    Returns:
        An `Animation`, one frame an output.

    Raises:
        ValueError: as `animate_conv1d`.
        ImportError: matplotlib is missing.

    Example:
        >>> animation = animate_conv2d(np.eye(4), np.eye(2), stride=2)
        >>> animation
        Animation(4 frames: A filter of 2 × 2, stride 2, padding VALID, slides over an input of 4 × 4 and gives 2 × 2)
        >>> animation.frames.dtype, animation.gif[:6]
        (dtype('uint8'), b'GIF89a')

    Source:
        As `animate_conv1d`.
    """
    return _animate_conv("animate_conv2d", 2, x, kernel, stride, padding, dilation, seconds)


def animate_conv3d(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    seconds: float = 0.7,
) -> Animation:
    """Show how a filter slides through a volume, with the products and their sum at every stop.

    The slices of a volume lie side by side. The numbers of the output are `ops.conv3d`'s.

    Args:
        x: (D, H, W), one example and one channel.
        kernel: (Kd, Kh, Kw).
        stride: as in `ops.conv3d`.
        padding: as in `ops.conv3d`, but "VALID" unless told.
        dilation: as in `ops.conv3d`.
        seconds: as in `animate_conv1d`.

    Returns:
        An `Animation`, one frame an output.

    Raises:
        ValueError: as `animate_conv1d`.
        ImportError: matplotlib is missing.

    Example:
        >>> len(animate_conv3d(np.ones((3, 3, 3)), np.ones((2, 2, 2))))
        8

    Source:
        As `animate_conv1d`.
    """
    return _animate_conv("animate_conv3d", 3, x, kernel, stride, padding, dilation, seconds)


def animate_pool2d(
    x: ArrayLike,
    window: int | Sequence[int],
    *,
    kind: Literal["max", "avg"] = "max",
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    seconds: float = 0.7,
) -> Animation:
    """Show how a pool's window slides over a picture, and what it keeps of every stop.

    The numbers of the output are `ops.max_pool2d`'s or `ops.avg_pool2d`'s.

    Args:
        x: (H, W), one example and one channel.
        window: as in `ops.max_pool2d`.
        kind: "max" or "avg".
        stride: as in `ops.max_pool2d`; None is the window.
        padding: as in `ops.max_pool2d`.
        seconds: as in `animate_conv1d`.

    Returns:
        An `Animation`, one frame an output.

    Raises:
        ValueError: an unknown kind, or as `animate_conv1d`.
        ImportError: matplotlib is missing.

    Example:
        >>> animate_pool2d([[8, 7, 5, 3], [12, 9, 5, 7]], 2)
        Animation(2 frames: A max pool of 2 × 2, stride 2, padding VALID, slides over an input of 2 × 4 and gives 1 × 2)

    Source:
        As `animate_conv1d`.
    """
    if kind not in ("max", "avg"):
        raise ValueError(f"animate_pool2d: kind must be 'max' or 'avg', got {kind!r}. Give one of the two.")
    pool, outside, noun, verb = (
        (max_pool2d, -np.inf, "max pool", "max") if kind == "max" else (avg_pool2d, 0.0, "average pool", "mean")
    )
    slide = pool_slide("animate_pool2d", pool, x, window, stride, padding, outside)
    sums = [pool_sum(slide.padded[slide.taps(stop)], float(slide.output[stop]), kind) for stop in slide.stops]
    return _animation(slide, None, sums, noun, verb, padding, seconds)


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
    slide = conv_slide(op, rank, x, kernel, stride, padding, dilation)
    weights = np.asarray(kernel, np.float32)
    sums = [conv_sum(slide.padded[slide.taps(stop)], weights, float(slide.output[stop])) for stop in slide.stops]
    return _animation(
        slide, weights.reshape((1,) * (3 - rank) + weights.shape), sums, "filter", "sum", padding, seconds
    )


def _animation(
    slide: Slide, weights: np.ndarray | None, sums: list[Pieces], noun: str, verb: str, padding: Padding, seconds: float
) -> Animation:
    shown = {"stride": slide.stride} | ({"dilation": slide.dilation} if max(slide.dilation) > 1 else {})
    options = [f"{name} {values[0] if len(set(values)) == 1 else values}" for name, values in shown.items()]
    options.append(f"padding {padding.upper() if isinstance(padding, str) else padding}")
    title = f"{noun} of {times(slide.window)}, {', '.join(options)}"
    caption = f"A {title}, slides over an input of {times(slide.spatial)} and gives {times(slide.output.shape)}"
    film = Film(title[0].upper() + title[1:], verb, lifted(slide), slide.output.ndim, weights, sums)
    return Animation(frames(film), caption=caption, seconds=seconds, last_seconds=4 * seconds)
