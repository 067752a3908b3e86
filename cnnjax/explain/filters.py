"""The kernels of a convolution as pictures."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_filters(kernel: ArrayLike, *, channel: int = 0, columns: int = 8) -> "Figure":
    """Draw what each filter of a 2-D convolution weighs in one input channel.

    Red is positive, blue negative, white zero; all filters share one scale.

    Args:
        kernel: (Kh, Kw, C_in, C_out).
        channel: which input channel.
        columns: how many in a row, at least 1.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: a kernel that is not (Kh, Kw, C_in, C_out), or without that channel.
        ImportError: matplotlib is missing.

    Example:
        >>> len(plot_filters(np.ones((3, 3, 1, 6))).axes)
        7

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep CNNs", figure 3.
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 4 or not 0 <= channel < kernel.shape[2]:
        raise ValueError(
            f"plot_filters: kernel must be (Kh, Kw, C_in, C_out) with channel {channel}, got shape {kernel.shape}."
        )
    count = kernel.shape[-1]
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, axes = style.axes(rows, columns, size=(columns * 1.0 + 0.8, rows * 1.2))
    limit = max(float(np.abs(kernel).max()), 1e-12)
    picture = None
    for ax in axes:
        style.bare(ax)
    for number in range(count):
        picture = axes[number].imshow(kernel[:, :, channel, number], cmap=style.SIGNED, vmin=-limit, vmax=limit)
        axes[number].set_title(str(number))
    if picture is not None:
        figure.colorbar(picture, ax=axes, label="weight", shrink=0.8)
    return figure
