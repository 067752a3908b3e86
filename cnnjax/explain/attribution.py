"""Heat maps over the pictures that they explain."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNSIGNED = "Oranges"


def plot_attribution(x: ArrayLike, maps: Mapping[str, ArrayLike]) -> "Figure":
    """Draw what speaks for a class where, several ways of seeing side by side, a row an example.

    Red speaks for the class and blue against it; of a map without values below zero, such as Grad-CAM's, the darker
    the more. Every map has a scale of its own, from zero to its largest magnitude: compare places, not maps. Channels
    are added up.

    Args:
        x: (N, H, W, C) pictures or (N, L, C) series; of volumes take a slice, x[:, depth], and so of the maps.
        maps: for each title the maps (N, *spatial) or (N, *spatial, C).

    Returns:
        A matplotlib Figure: in each row the example itself, then its maps.

    Raises:
        ValueError: x of another shape, no maps, or maps that do not fit x.
        ImportError: matplotlib is missing.

    Example:
        >>> model, x = models.LeNet5(rngs=nnx.Rngs(0)), jnp.ones((2, 28, 28, 1))
        >>> figure = plot_attribution(x, {"saliency": saliency(model, x), "Grad-CAM": grad_cam(model, x)})
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['input', 'saliency', 'Grad-CAM']

    Source:
        None.
    """
    x = np.asarray(x).astype(np.float32)
    if x.ndim not in (3, 4) or 0 in x.shape:
        fix = " Take a slice of the volume, x[:, depth]." if x.ndim == 5 else ""
        raise ValueError(f"plot_attribution: x must be (N, H, W, C) or (N, L, C), got shape {x.shape}.{fix}")
    if not maps:
        raise ValueError("plot_attribution: maps must name at least one, got none.")
    heats = {title: _of_places(title, np.asarray(heat).astype(np.float32), x) for title, heat in maps.items()}
    rows, columns = len(x), len(heats) + 1
    if x.ndim == 3:
        figure, axes = style.axes(rows, columns, size=(columns * 2.6, rows * 1.5 + 0.3))
    else:
        height = float(np.clip(x.shape[1] / x.shape[2], 0.4, 2.5))
        figure, axes = style.axes(rows, columns, size=(columns * 1.7, rows * 1.7 * height + 0.3))
    for row in range(rows):
        first, *rest = axes[row * columns : (row + 1) * columns]
        (_draw_series if x.ndim == 3 else _draw_picture)(first, x[row], None)
        for ax, heat in zip(rest, heats.values(), strict=True):
            (_draw_series if x.ndim == 3 else _draw_picture)(ax, x[row], heat[row])
    for ax, title in zip(axes, ["input", *heats], strict=False):
        ax.set_title(title, parse_math=False)
    return figure


def _of_places(title: str, heat: np.ndarray, x: np.ndarray) -> np.ndarray:
    if heat.shape == x.shape:
        return heat.sum(-1)
    if heat.shape != x.shape[:-1]:
        raise ValueError(
            f"plot_attribution: maps must be of shape {x.shape[:-1]} or {x.shape} as x is, got {heat.shape} for {title!r}."
        )
    return heat


def _colours(heat: np.ndarray) -> np.ndarray:
    """Colours (..., 4), the clearer the stronger."""
    import matplotlib

    strength = heat / max(float(np.abs(heat).max()), 1e-12)
    if heat.min() < 0:
        colours = matplotlib.colormaps[style.SIGNED](0.5 + 0.5 * strength)
    else:
        colours = matplotlib.colormaps[UNSIGNED](strength)
    colours[..., 3] = np.abs(strength) ** 0.5
    return colours


def _draw_picture(ax: "Axes", picture: np.ndarray, heat: np.ndarray | None) -> None:
    style.bare(ax)
    low, high = float(picture.min()), float(picture.max())
    picture = (picture - low) / max(high - low, 1e-12)
    if heat is None:
        ax.imshow(picture if picture.shape[-1] == 3 else picture.mean(-1), cmap=style.GREY, vmin=0, vmax=1)
        return
    grey = picture.mean(-1)
    ax.imshow(1 - 0.3 * grey, cmap=style.GREY, vmin=0, vmax=1)
    ax.imshow(_colours(heat))


def _draw_series(ax: "Axes", series: np.ndarray, heat: np.ndarray | None) -> None:
    if heat is not None:
        ax.imshow(
            _colours(heat)[None],
            aspect="auto",
            extent=(-0.5, len(series) - 0.5, 0, 1),
            transform=ax.get_xaxis_transform(),
        )
    ax.plot(series, linewidth=1.2, color=style.INK)
    ax.set_xlim(-0.5, len(series) - 0.5)
