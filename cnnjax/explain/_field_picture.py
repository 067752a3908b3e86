"""The picture of a receptive field: left the input, right the gradient."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def of_series(
    series: np.ndarray, heat: np.ndarray, boxes: Sequence[tuple[int, int]], titles: Sequence[str]
) -> "Figure":
    """A series and the gradient along it, the field shaded."""
    figure, axes = style.axes(1, 2, size=(9, 2.6))
    (low, high), n = boxes[0], len(series)
    for ax, title in zip(axes, titles, strict=True):
        ax.axvspan(low - 0.5, high - 0.5, color=style.ORANGE, alpha=0.2, linewidth=0)
        ax.set_title(title)
        ax.set_xlim(min(low, 0) - 1, max(high, n))
        ax.set_xlabel("sample")
    axes[0].plot(series, linewidth=1.2)
    axes[1].fill_between(np.arange(n), heat, color=style.BLUE, alpha=0.6)
    axes[1].plot(heat, color=style.BLUE, linewidth=1.2)
    return figure


def of_picture(
    picture: np.ndarray, heat: np.ndarray, boxes: Sequence[tuple[int, int]], titles: Sequence[str]
) -> "Figure":
    """A picture, grey or in colour, and the gradient over it, the field boxed."""
    figure, axes = style.axes(1, 2, size=(7.6, 3.9))
    low, high = float(picture.min()), float(picture.max())
    grey = (picture - low) / max(high - low, 1e-12)
    if picture.shape[-1] != 3:
        grey = grey.mean(-1)
    for ax, title in zip(axes, titles, strict=True):
        style.bare(ax)
        ax.set_title(title)
    axes[0].imshow(grey, cmap=style.GREY, vmin=0, vmax=1)
    drawn = axes[1].imshow(heat, cmap="viridis", vmin=0, vmax=max(float(heat.max()), 1e-12))
    figure.colorbar(drawn, ax=axes[1], shrink=0.75)
    for ax in axes:
        _frame(ax, boxes, picture.shape[:2])
    return figure


def _frame(ax: "Axes", boxes: Sequence[tuple[int, int]], shape: Sequence[int]) -> None:
    """The box around the field, and enough room to see where it leaves the picture."""
    from matplotlib.patches import Rectangle

    (top, bottom), (left, right) = boxes
    corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
    ax.add_patch(Rectangle((-0.5, -0.5), shape[1], shape[0], fill=False, edgecolor=style.INK, linewidth=0.8))
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=style.ORANGE, linewidth=2, clip_on=False))
    ax.set_xlim(min(left, 0) - 1, max(right, shape[1]))
    ax.set_ylim(max(bottom, shape[0]), min(top, 0) - 1)
