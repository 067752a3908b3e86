"""A labelled grid of pictures."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_pictures(images: ArrayLike, *, titles: Sequence[str] | None = None, columns: int = 8) -> "Figure":
    """Draw pictures side by side, grey or in colour.

    Args:
        images: (N, H, W, C) with C of 1 or 3, uint8 or floats in [0, 1].
        titles: a short title for each, or None.
        columns: how many in a row, at least 1.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: images of another shape, or as many titles as there are not images.
        ImportError: matplotlib is missing.

    Example:
        >>> plot_pictures(np.zeros((3, 8, 8, 1)), titles=["a", "b", "c"], columns=3).axes[1].get_title()
        'b'

    Source:
        None.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"plot_pictures: images must be (N, H, W, 1 or 3), got shape {images.shape}.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"plot_pictures: titles must be one a picture, got {len(titles)} for {len(images)}.")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    figure, axes = style.axes(rows, columns, size=(columns * 1.1, rows * (1.1 if titles is None else 1.4)))
    top = 255 if images.dtype == np.uint8 else 1
    for ax in axes:
        style.bare(ax)
    for ax, image, title in zip(axes, images, [""] * len(images) if titles is None else titles, strict=False):
        ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap=style.GREY, vmin=0, vmax=top)
        ax.set_title(title, parse_math=False)
    return figure
