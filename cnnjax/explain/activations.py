"""What every layer of a model computes, as arrays and as pictures."""

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style
from cnnjax.explain.trace import trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def activations(model: nnx.Module, x: ArrayLike) -> dict[str, Array]:
    """Compute what each layer hands on to the next, in evaluation.

    A convolution followed by a ReLU hands on the rectified maps; `summary` lists the same names, and which activation
    functions are included.

    Args:
        model: any `nnx.Module` that is called with one array, ours or a stock one.
        x: (N, *spatial, C) or (N, C).

    Returns:
        For each layer's name, in order, its activation maps (N, *spatial, C) or values (N, C).

    Raises:
        TypeError: a model that is no module, or a shape for x.
        ValueError: x without a batch axis.

    Example:
        >>> maps = activations(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((2, 28, 28, 1)))
        >>> maps["c3"].shape, maps["f6"].shape
        ((2, 10, 10, 16), (2, 84))

    Source:
        None.
    """
    traced = trace(model, _array("activations", x), function="activations")
    values = traced.values([layer.value for layer in traced.layers], x)
    return dict(zip(traced.names(), values, strict=True))


def kernels(model: nnx.Module, x: Any) -> dict[str, Array]:
    """Collect the kernel that each convolution slides.

    It is the one that the convolution is given: with the zeros of a partly connected one, or standardised. A dense
    layer has none. `plot_filters` draws them.

    Args:
        model: as in `activations`.
        x: (N, *spatial, C), an array or a `jax.ShapeDtypeStruct`; only its shape and dtype count.

    Returns:
        For each convolution's name, in order, (*window, C_in // groups, C_out); where a layer has several, the first.

    Raises:
        TypeError: a model that is no module, or x that has no shape.
        ValueError: x without a batch axis.

    Example:
        >>> found = kernels(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1)))
        >>> {name: kernel.shape for name, kernel in found.items()}
        {'c1': (5, 5, 1, 6), 'c3': (5, 5, 6, 16), 'c5': (5, 5, 16, 120)}

    Source:
        None.
    """
    traced = trace(model, x, function="kernels")
    found = [layer for layer in traced.layers if layer.kernel is not None]
    zeros = jax.numpy.zeros(x.shape, x.dtype)
    return dict(
        zip([layer.name for layer in found], traced.values([layer.kernel for layer in found], zeros), strict=True)
    )


def plot_activations(maps: ArrayLike, *, example: int = 0, columns: int = 8, channels: int = 64) -> "Figure":
    """Draw the activation maps of one layer for one example, a picture a channel.

    Maps with values below zero are blue there, red above, white at zero; maps without, as behind a ReLU, go from
    dark to bright. All maps share one scale, so a dark one answers weakly.

    Args:
        maps: (N, H, W, C) of pictures, (N, L, C) of series, or (N, C) of a dense layer; from `activations`. Of volumes
            (N, D, H, W, C) pass a slice.
        example: which of the N.
        columns: how many pictures in a row, at least 1.
        channels: draw at most so many, the first ones.

    Returns:
        A matplotlib Figure: for pictures one axes a channel, under its number; else one axes.

    Raises:
        ValueError: maps of another shape, or without that example.
        ImportError: matplotlib is missing.

    Example:
        >>> maps = activations(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1)))
        >>> [axes.get_title() for axes in plot_activations(maps["s2"]).axes[:3]]
        ['0', '1', '2']

    Source:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", for looking at all the maps.
    """
    maps = np.asarray(maps)
    if not 2 <= maps.ndim <= 4 or not 0 <= example < len(maps) or 0 in maps.shape:
        fix = " Take a slice of the volume, maps[:, depth]." if maps.ndim == 5 else ""
        raise ValueError(
            "plot_activations: maps must be (N, H, W, C), (N, L, C) or (N, C) with"
            f" example {example}, got shape {maps.shape}.{fix}"
        )
    if columns < 1 or channels < 1:
        raise ValueError(f"plot_activations: columns and channels must be at least 1, got {columns} and {channels}.")
    # NumPy knows neither bfloat16's limits nor how to draw it.
    values = maps[example, ..., :channels].astype(np.float32)
    return {1: _draw_units, 2: _draw_series, 3: _draw_maps}[values.ndim](values, columns)


def _array(function: str, x: Any) -> Any:
    if isinstance(x, jax.ShapeDtypeStruct):
        raise TypeError(f"{function}: x must be an array, got a jax.ShapeDtypeStruct. There is nothing to compute.")
    return x


def _colours(values: np.ndarray) -> dict[str, Any]:
    """Signed values on a diverging map centred at zero, others on a sequential one from zero."""
    limit = max(float(np.abs(values).max()), 1e-12)
    if values.min() < 0:
        return {"cmap": style.SIGNED, "vmin": -limit, "vmax": limit}
    return {"cmap": "viridis", "vmin": 0, "vmax": limit}


def _draw_maps(values: np.ndarray, columns: int) -> "Figure":
    count = values.shape[-1]
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    # As wide as the pictures are, within reason.
    height = min(max(values.shape[0] / values.shape[1], 0.4), 2.5)
    figure, axes = style.axes(rows, columns, size=(columns * 1.0 + 0.8, rows * (height + 0.25)))
    picture = None
    for ax in axes:
        style.bare(ax)
    for number in range(count):
        picture = axes[number].imshow(values[:, :, number], **_colours(values))
        axes[number].set_title(str(number))
    if picture is not None:
        figure.colorbar(picture, ax=axes, label="activation", shrink=0.8)
    return figure


def _draw_series(values: np.ndarray, columns: int) -> "Figure":
    figure, (ax,) = style.axes(size=(9, min(0.9 + 0.16 * values.shape[1], 8)))
    picture = ax.imshow(values.T, aspect="auto", interpolation="nearest", **_colours(values))
    ax.set_xlabel("position")
    ax.set_ylabel("channel")
    figure.colorbar(picture, ax=ax, label="activation")
    return figure


def _draw_units(values: np.ndarray, columns: int) -> "Figure":
    figure, (ax,) = style.axes(size=(9, 2.2))
    ax.bar(np.arange(len(values)), values, color=np.where(values < 0, style.BLUE, style.ORANGE), width=0.8)
    ax.axhline(0, color=style.INK, linewidth=0.8)
    ax.set_xlabel("unit")
    ax.set_ylabel("activation")
    return figure
