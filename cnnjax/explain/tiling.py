"""How the receptive fields of a layer's units tile a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style
from cnnjax.ops.shapes import ReceptiveField, Window, conv_output_size, receptive_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_tiling(image: ArrayLike, layers: Sequence[Window | tuple[int, ...]]) -> "Figure":
    """Draw the overlapping receptive fields with which the units of each layer tile a picture.

    They grow from layer to layer: deeper units see bigger patterns. Two neighbours are orange and green; of the
    others, in blue, only as many are drawn as overlap by a quarter. Arithmetic alone: `ops.shapes.receptive_field`.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3), uint8 or floats in [0, 1].
        layers: one to six convolutions and pools from input to output, as in `ops.shapes.receptive_field`;
            padding_low is taken for both sides.

    Returns:
        A matplotlib Figure, a picture for each layer.

    Raises:
        ValueError: an image of another shape, no layers or more than six, or a window that does not fit.
        ImportError: matplotlib is missing.

    Example:
        >>> figure = plot_tiling(np.zeros((28, 28)), [(5,), (2, 2), (5,)])
        >>> [ax.get_title().splitlines()[0] for ax in figure.axes]
        ['layer 1: 5 × 5', 'layer 2: 6 × 6', 'layer 3: 14 × 14']

    Source:
        Hubel & Wiesel 1962, for cells whose fields overlap; the arithmetic as `ops.shapes.receptive_field`.
    """
    picture = np.asarray(image)
    picture = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)) or picture.size == 0:
        raise ValueError(f"plot_tiling: image must be (H, W), (H, W, 1) or (H, W, 3), got shape {np.shape(image)}.")
    if not 1 <= len(layers) <= 6:
        raise ValueError(f"plot_tiling: layers must be one to six, got {len(layers)}. Give the ones that matter.")
    columns = len(layers) if len(layers) < 5 else 3
    rows = -(-len(layers) // columns)
    height, width = picture.shape[:2]
    panel = min(8.18 / columns, 2.7)
    figure, axes = style.axes(rows, columns, size=(columns * panel, rows * (panel * min(height / width, 2) + 0.5)))
    # Made for pictures that keep their proportions: nothing is clipped.
    figure.set_layout_engine("compressed")
    for ax in axes:
        style.bare(ax)
    units = [height, width]
    for depth, ax in zip(range(1, len(layers) + 1), axes, strict=False):
        k, stride, low, dilation = Window(*layers[depth - 1])
        units = [conv_output_size(n, k, stride=stride, padding=low, dilation=dilation) for n in units]
        if min(units) < 1:
            raise ValueError(
                f"plot_tiling: layer {depth} with a window of {k} does not fit what the layers before leave of the"
                f" image {picture.shape[:2]}. Pad, or use a larger image."
            )
        _draw_fields(ax, picture, receptive_field(layers[:depth]), units)
        field = receptive_field(layers[:depth])
        every = f"{field.jump} pixels" if field.jump > 1 else "pixel"
        ax.set_title(f"layer {depth}: {field.size} × {field.size}\nevery {every}")
    return figure


def _draw_fields(ax: "Axes", picture: np.ndarray, field: ReceptiveField, units: Sequence[int]) -> None:
    from matplotlib.patches import Rectangle

    height, width = picture.shape[:2]
    # Pale, so that the fields stand out.
    ax.imshow(picture, cmap=style.GREY, vmin=0, vmax=255 if picture.dtype == np.uint8 else 1, alpha=0.7)

    def box(row: int, column: int, **options: object) -> None:
        corner = (field.start + column * field.jump - 0.5, field.start + row * field.jump - 0.5)
        ax.add_patch(Rectangle(corner, field.size, field.size, **options))  # pyright: ignore[reportArgumentType]

    step = max(round(0.75 * field.size / field.jump), 1)
    rows, columns = (np.linspace(0, n - 1, -(-(n - 1) // step) + 1).round().astype(int).tolist() for n in units)
    for row in rows:
        for column in columns:
            box(row, column, facecolor="white", alpha=0.16, edgecolor="none")
            box(row, column, facecolor="none", edgecolor=style.BLUE, linewidth=0.9)
    row, column = (units[0] - 1) // 2, (units[1] - 1) // 2
    box(row, column, facecolor="none", edgecolor=style.ORANGE, linewidth=2.2)
    if units[1] > 1:
        box(row, column + 1, facecolor="none", edgecolor=style.GREEN, linewidth=2.2)
    margin = max(-field.start, 0) + 0.7
    ax.set_xlim(-0.5 - margin, width - 0.5 + margin)
    ax.set_ylim(height - 0.5 + margin, -0.5 - margin)
