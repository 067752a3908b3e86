"""Slices of a volume with what is labelled in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (style.ORANGE, style.BLUE, style.GREEN)


def plot_slices(
    image: ArrayLike,
    label: ArrayLike,
    prediction: ArrayLike,
    *,
    class_names: Sequence[str],
    count: int = 6,
    axis: int = 0,
) -> "Figure":
    """Draw slices of a volume: as it is, with the true classes, and with the predicted ones.

    The darkest and the brightest half percent of the voxels are black and white, so that one bright vessel does not
    darken the rest.

    Args:
        image: (D, H, W), any real dtype.
        label: integers (D, H, W), each a place in class_names, 0 for the background.
        prediction: the same, of a model.
        class_names: one name a class, the background first; at most four.
        count: how many slices, at least 1, spread evenly over those in which anything is labelled or predicted.
        axis: across which axis they are cut, -3 to 2.

    Returns:
        A matplotlib Figure of three rows: image, truth, prediction.

    Raises:
        ValueError: arrays of different shapes, or that are not (D, H, W), or empty, more classes than there are
            colours, a label that is none of them, a count below 1, or no such axis.
        ImportError: matplotlib is missing.

    Example:
        >>> label = np.zeros((8, 8, 8), int)
        >>> label[3:5, 2:6, 2:6] = 1
        >>> len(plot_slices(np.ones((8, 8, 8)), label, label, class_names=["none", "cube"], count=2).axes)
        6

    Source:
        None.
    """
    image, label, prediction = np.asarray(image), np.asarray(label), np.asarray(prediction)
    _check(image, label, prediction, len(class_names), count, axis)
    image, label, prediction = (np.moveaxis(array, axis, 0) for array in (image, label, prediction))
    marked = np.flatnonzero(((label > 0) | (prediction > 0)).any((1, 2)))
    first, last = (marked[0], marked[-1]) if len(marked) else (0, len(image) - 1)
    shown = np.unique(np.linspace(first, last, count).round().astype(int))
    height, width = image.shape[1:]
    figure, axes = style.axes(3, len(shown), size=(1.4 * len(shown) + 0.8, 3 * 1.4 * height / width + 0.4))
    colours = _COLOURS[: len(class_names) - 1]
    dark, bright = np.percentile(image, (0.5, 99.5))
    rows = (("image", None), ("truth", label), ("prediction", prediction))
    for row, (title, classes) in enumerate(rows):
        for column, number in enumerate(shown):
            ax = axes[row * len(shown) + column]
            ax.imshow(image[number], cmap=style.GREY, vmin=dark, vmax=bright)
            for value, colour in enumerate(colours, 1):
                if classes is not None and (classes[number] == value).any():
                    ax.imshow(np.ones((height, width)), cmap=_plain(colour), alpha=0.55 * (classes[number] == value))
            style.bare(ax)
            if row == 0:
                ax.set_title(f"slice {number}")
        axes[row * len(shown)].set_ylabel(title)
    handles = [_patch(colour, name) for colour, name in zip(colours, class_names[1:], strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _check(image: np.ndarray, label: np.ndarray, prediction: np.ndarray, classes: int, count: int, axis: int) -> None:
    if image.ndim != 3 or not image.size or not image.shape == label.shape == prediction.shape:
        raise ValueError(
            f"plot_slices: image, label and prediction must be (D, H, W) alike, got {image.shape}, {label.shape} and"
            f" {prediction.shape}. Give one volume, without axes for batch and channels."
        )
    if not 1 <= classes <= 1 + len(_COLOURS):
        raise ValueError(
            f"plot_slices: class_names must be 1 to {1 + len(_COLOURS)}, the background and as many as there are"
            f" colours, got {classes}. Merge classes, or draw some at a time."
        )
    for name, values in (("label", label), ("prediction", prediction)):
        if not (values.min() >= 0 and values.max() < classes):
            raise ValueError(
                f"plot_slices: {name} must be 0 to {classes - 1}, a place in class_names, got {values.min()} to"
                f" {values.max()}. Name all classes, the background first."
            )
    if count < 1:
        raise ValueError(f"plot_slices: count must be at least 1, got {count}. Say how many slices to draw.")
    if not -3 <= axis <= 2:
        raise ValueError(f"plot_slices: axis must be -3 to 2, got {axis}. Choose one of (D, H, W).")


def _plain(colour: str):
    from matplotlib.colors import ListedColormap

    return ListedColormap([colour])


def _patch(colour: str, name: str):
    from matplotlib.patches import Patch

    return Patch(color=colour, label=name)
