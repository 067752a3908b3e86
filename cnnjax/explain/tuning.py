"""Which filter answers to lines of which angle, drawn."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style
from cnnjax.explain.oriented import line_image, orientation_tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 8


def plot_tuning(
    kernel: ArrayLike,
    *,
    angles: ArrayLike = tuple(range(0, 180, 5)),
    stimulus: Callable[[float], ArrayLike] = line_image,
) -> "Figure":
    """Draw each filter, and below it how strongly it answers to lines of each angle.

    A point of a curve lies in the direction of the line, as far out as the answer is strong; all curves share one
    scale. The orange line has the angle that the filter prefers.

    Args:
        kernel: as in `orientation_tuning`; of several input channels the mean is drawn.
        angles: as in `orientation_tuning`; at least two of them, within 180 degrees.
        stimulus: as in `orientation_tuning`.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: as `orientation_tuning`, or fewer than two angles.
        ImportError: matplotlib is missing.

    Example:
        >>> figure = plot_tuning(explain.oriented_filters(4), angles=range(0, 180, 15))
        >>> [ax.get_title() for ax in figure.axes[4:]]
        ['prefers 0°', 'prefers 45°', 'prefers 90°', 'prefers 135°']

    Source:
        Hubel & Wiesel 1962, "Receptive fields, binocular interaction and functional architecture in the cat's visual
        cortex", for the experiment.
    """
    directions = np.ravel(np.asarray(angles, float))
    if len(directions) < 2:
        raise ValueError(f"plot_tuning: angles must be at least two, got {len(directions)}. Try range(0, 180, 5).")
    answers = orientation_tuning(kernel, angles=directions, stimulus=stimulus)
    filters = np.asarray(kernel, np.float32).mean(2)
    count = filters.shape[-1]
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure, axes = style.axes(2 * rows, columns, size=(max(1.02 * columns, 2.0), 2.45 * rows))
    for ax in axes:
        style.bare(ax)
    limit, strongest = max(float(np.abs(filters).max()), 1e-12), max(float(answers.max()), 1e-12)
    for number in range(count):
        row, column = divmod(number, columns)
        upper, lower = (axes[(2 * row + below) * columns + column] for below in (0, 1))
        upper.imshow(filters[..., number], cmap=style.SIGNED, vmin=-limit, vmax=limit)
        upper.set_title(f"filter {number}")
        _draw_curve(lower, directions, answers[:, number] / strongest)
    return figure


def _draw_curve(ax: "Axes", angles: np.ndarray, answers: np.ndarray) -> None:
    """One polar curve; a line at 180° is the one at 0° again."""
    circle = np.linspace(0, 2 * math.pi, 73)
    for radius in (0.5, 1.0):
        ax.plot(radius * np.cos(circle), radius * np.sin(circle), color="#d4d4d4", linewidth=0.8)
    around = np.radians(np.concatenate([angles, angles + 180, angles[:1] + 360]))
    out = np.concatenate([answers, answers, answers[:1]])
    ax.fill(out * np.cos(around), out * np.sin(around), facecolor="#cfe3f0", edgecolor=style.BLUE, linewidth=1.5)
    best = float(angles[answers.argmax()])
    if answers.max() > 0:
        x, y = (float(answers.max()) * turn(math.radians(best)) for turn in (math.cos, math.sin))
        ax.plot([-x, x], [-y, y], color=style.ORANGE, linewidth=1.5)
    ax.set_title(f"prefers {best:g}°" if answers.max() > 0 else "silent", size=9)
    ax.set_aspect("equal")
    ax.set_xlim(-1.08, 1.08)
    ax.set_ylim(-1.08, 1.08)
