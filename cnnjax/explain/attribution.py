"""Heat maps over the pictures that they explain."""

from collections.abc import Mapping, Sequence
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

    Red speaks for the class and blue against it; a map without values below zero, such as Grad-CAM's, is orange. Every
    map has a scale of its own, the square root of the share in its largest magnitude, so that one strong pixel does
    not hide the rest: compare places, not maps. Channels are added up. Below lies the picture in grey, a dark one as a
    negative.

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
        >>> maps = {"saliency": explain.saliency(model, x), "Grad-CAM": explain.grad_cam(model, x)}
        >>> figure = plot_attribution(x, maps)
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
    series = x.ndim == 3
    height = 0.7 if series else float(np.clip(x.shape[1] / x.shape[2], 0.4, 2.5))
    width = 2.4 if series else 1.6
    figure, axes = style.axes(rows, columns, size=(columns * width + 0.7, rows * width * height + 0.3))
    draw = _draw_series if series else _draw_picture
    for row in range(rows):
        for ax, heat in zip(axes[row * columns :], [None, *heats.values()], strict=False):
            # One row without values below zero keeps the colours of its column.
            draw(ax, x[row], None if heat is None else _colours(heat[row], bool(heat.min() < 0)))
    for ax, title in zip(axes, ["input", *heats], strict=False):
        ax.set_title(title, parse_math=False)
    if any(heat.min() < 0 for heat in heats.values()):
        _legend(figure, axes)
    return figure


def _legend(figure: "Figure", axes: Sequence["Axes"]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), style.SIGNED), ax=axes, ticks=[-1, 0, 1], shrink=0.6)
    bar.ax.set_yticklabels(["against", "0", "for"])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def _of_places(title: str, heat: np.ndarray, x: np.ndarray) -> np.ndarray:
    if heat.shape == x.shape:
        return heat.sum(-1)
    if heat.shape != x.shape[:-1]:
        shapes = f"{x.shape[:-1]} or {x.shape}"
        raise ValueError(f"plot_attribution: maps must be of shape {shapes} as x is, got {heat.shape} for {title!r}.")
    return heat


def _colours(heat: np.ndarray, signed: bool) -> np.ndarray:
    """Colours (..., 4), the stronger the clearer."""
    import matplotlib

    share = heat / max(float(np.abs(heat).max()), 1e-12)
    strength = np.sign(share) * np.abs(share) ** 0.5
    if signed:
        colours = matplotlib.colormaps[style.SIGNED](0.5 + 0.5 * strength)
    else:
        colours = matplotlib.colormaps[UNSIGNED](strength)
    colours[..., 3] = np.abs(strength)
    return colours


def _draw_picture(ax: "Axes", picture: np.ndarray, colours: np.ndarray | None) -> None:
    style.bare(ax)
    low, high = float(picture.min()), float(picture.max())
    picture = (picture - low) / max(high - low, 1e-12)
    grey = picture.mean(-1)
    if colours is None:
        ax.imshow(picture if picture.shape[-1] == 3 else grey, cmap=style.GREY, vmin=0, vmax=1)
        return
    # On a light ground colours are told apart, so what is mostly dark is turned around.
    light = 1 - grey if np.median(grey) < 0.5 else grey
    ax.imshow(0.7 + 0.3 * light, cmap=style.GREY, vmin=0, vmax=1)
    ax.imshow(colours)


def _draw_series(ax: "Axes", series: np.ndarray, colours: np.ndarray | None) -> None:
    n = len(series)
    ax.plot(series, linewidth=1, color=style.INK)
    low, high = ax.get_ylim()
    if colours is not None:
        ax.imshow(colours[None], aspect="auto", extent=(-0.5, n - 0.5, low, high), zorder=0)
    ax.set_xlim(-0.5, n - 0.5)
    ax.set_ylim(low, high)
    ax.set_yticks([])
