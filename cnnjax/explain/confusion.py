"""A confusion matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, *, num_classes: int) -> np.ndarray:
    """Count which class was taken for which.

    Args:
        labels: (N,) integers, the true classes.
        predictions: (N,) integers, the predicted ones.
        num_classes: K; all integers lie in [0, K).

    Returns:
        int array (K, K): entry (t, p) counts examples of class t that were taken for p.

    Raises:
        ValueError: the two differ in shape, or hold a class outside [0, K).

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], num_classes=2)
        array([[1, 0],
               [1, 1]])

    Source:
        Counting.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(
            f"confusion_matrix: labels and predictions must be (N,), got {labels.shape} and {predictions.shape}."
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.size and not (values.min() >= 0 and values.max() < num_classes):
            raise ValueError(
                f"confusion_matrix: {name} must be in [0, {num_classes}), got {values.min()} to {values.max()}."
            )
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def plot_confusion(counts: ArrayLike, *, class_names: Sequence[str]) -> "Figure":
    """Draw a confusion matrix with its counts; colour tells the share of the true class that went wrong.

    Args:
        counts: (K, K), as `confusion_matrix` gives them.
        class_names: K names.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: counts and names do not fit each other.
        ImportError: matplotlib is missing.

    Example:
        >>> plot_confusion([[9, 1], [0, 5]], class_names=["cat", "dog"]).axes[0].get_xlabel()
        'predicted'

    Source:
        None.
    """
    counts = np.asarray(counts)
    size = len(class_names)
    if counts.shape != (size, size):
        raise ValueError(f"plot_confusion: counts must be ({size}, {size}) for {size} names, got shape {counts.shape}.")
    figure, (ax,) = style.axes(size=(1.8 + 0.45 * size, 1.2 + 0.45 * size))
    wrong = np.where(np.eye(size, dtype=bool), 0, counts / np.maximum(counts.sum(1, keepdims=True), 1))
    ax.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(float(wrong.max()) * 1.6, 1e-12))
    for true, predicted in np.ndindex(size, size):
        if counts[true, predicted]:
            weight = "bold" if true == predicted else "normal"
            ax.text(predicted, true, str(counts[true, predicted]), ha="center", va="center", weight=weight, size=8)
    # A dollar sign in a name is no mathematics.
    rotation = 0 if max(map(len, class_names)) < 4 else 90
    ax.set_xticks(range(size), class_names, rotation=rotation, parse_math=False)
    ax.set_yticks(range(size), class_names, parse_math=False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return figure
