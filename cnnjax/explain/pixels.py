"""A picture as the table of numbers that it is."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_pixels(image: ArrayLike) -> "Figure":
    """Draw a grey picture with the value of every pixel written into it.

    Args:
        image: (H, W) or (H, W, 1); uint8 is written as integers, floats with one decimal.

    Returns:
        A matplotlib Figure, about a third of an inch a pixel.

    Raises:
        ValueError: an image of another shape.
        ImportError: matplotlib is missing.

    Example:
        >>> [text.get_text() for text in plot_pixels(np.uint8([[0, 255]])).axes[0].texts]
        ['0', '255']

    Source:
        None.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[:, :, 0]
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"plot_pixels: image must be (H, W) or (H, W, 1), got shape {image.shape}.")
    figure, (ax,) = style.axes(size=(image.shape[1] * 0.34, image.shape[0] * 0.34))
    style.bare(ax)
    whole = np.issubdtype(image.dtype, np.integer)
    low, high = float(image.min()), float(image.max())
    ax.imshow(image, cmap=style.GREY, vmin=low, vmax=max(high, low + 1e-12))
    for (row, column), value in np.ndenumerate(image):
        colour = "black" if value > (low + high) / 2 else "white"
        text = str(value) if whole else f"{value:.1f}"
        ax.text(column, row, text, ha="center", va="center", size=7, color=colour)
    return figure
