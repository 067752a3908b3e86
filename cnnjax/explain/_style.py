"""The one style of all pictures: colour-blind safe, readable at notebook width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, told apart with every kind of colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
# Signed values: blue below zero, white at zero, red above.
SIGNED = "RdBu_r"
GREY = "gray"
INK = "#333333"

_SETTINGS: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "figure.facecolor": "white",
    "figure.dpi": 110,
}


def axes(rows: int = 1, columns: int = 1, *, size: tuple[float, float]) -> tuple["Figure", Sequence["Axes"]]:
    """A figure of width and height in inches, and its axes in reading order."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("explain draws with matplotlib. Install it with: pip install 'cnnjax[plots]'") from error
    # A bare Figure, not pyplot's: nothing global changes, and a notebook shows it once.
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        grid: Any = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.ravel())


def bare(ax: "Axes") -> None:
    """Leave the picture alone: no ticks, no frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
