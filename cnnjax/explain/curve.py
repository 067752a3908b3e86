"""A learning curve."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_curve(rows: Sequence[Mapping[str, Any]], *, metric: str = "accuracy") -> "Figure":
    """Draw loss and accuracy over the steps of a run, in training and on the test set.

    Args:
        rows: one mapping a point, each with "step" and any of "loss", "accuracy" (training), "test_loss",
            "test_accuracy".
        metric: what to draw instead of the accuracy, such as "dice"; 1 is perfect.

    Returns:
        A matplotlib Figure: losses left on a logarithmic axis, error rates (1 - accuracy) right, so that 99 % and
        99.5 % can be told apart.

    Raises:
        ValueError: there are no rows.
        ImportError: matplotlib is missing.

    Example:
        >>> figure = plot_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "test_loss": 1.5}])
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['loss', 'error rate']

    Source:
        None.
    """
    if not rows:
        raise ValueError("plot_curve: there must be a point to draw, got none. Train for a step first.")
    figure, (left, right) = style.axes(1, 2, size=(9, 3.2))
    for ax, quantity, label in (
        (left, "loss", "loss"),
        (right, metric, "error rate" if metric == "accuracy" else f"1 - {metric}"),
    ):
        for name, colour, legend in ((quantity, style.BLUE, "training"), (f"test_{quantity}", style.ORANGE, "test")):
            points = [(row["step"], row[name]) for row in rows if name in row]
            values = [value if quantity == "loss" else 1 - value for _, value in points]
            marker = "o" if legend == "test" else ""
            ax.plot([step for step, _ in points], values, color=colour, marker=marker, label=legend, linewidth=1.5)
        ax.set_yscale("log")
        ax.set_xlabel("step")
        ax.set_ylabel(label)
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)
    return figure
