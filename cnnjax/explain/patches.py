"""The parts of pictures that excite a channel most."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cnnjax.explain import _backward, _place
from cnnjax.explain import _style as style
from cnnjax.explain.trace import Layer, trace
from cnnjax.ops import _arguments as arguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TopPatches(NamedTuple):
    """For M channels the k examples that excite each most, the strongest first.

    `channels` (M,), `indices` (M, k) of the examples, `units` (M, k, axes) on the layer's map, `activations` (M, k),
    and `patches` (M, k, *window, C), what those units see.
    """

    channels: np.ndarray
    indices: np.ndarray
    units: np.ndarray
    activations: np.ndarray
    patches: np.ndarray


def top_patches(
    model: nnx.Module,
    x: Any,
    *,
    layer: str,
    channels: Sequence[int],
    k: int = 9,
    batch_size: int = 128,
    value: float = 0.0,
) -> TopPatches:
    """Find the parts of pictures that excite each channel of a layer most, at most one a picture.

    A patch is the receptive field of the unit that is excited, so what the unit did not see is not shown. Along an
    axis where the field is as large as the picture or larger it is the whole picture.

    Args:
        model: any `nnx.Module` that is called with one array, ours or a stock one; in evaluation.
        x: (N, *spatial, C), floating: the pictures to search, the more the better.
        layer: the layer's name, as `summary` lists it; its activation function is included.
        channels: which channels of the layer.
        k: how many patches for each, at most N.
        batch_size: how many pictures to look at together.
        value: what stands for the padding, where a field goes beyond the picture.

    Returns:
        TopPatches(channels, indices, units, activations, patches), NumPy arrays.

    Raises:
        TypeError: a model that is no module; x of an integer dtype, or a shape alone.
        ValueError: a layer or channel that does not exist, no channels, or k larger than N.

    Example:
        >>> x = jnp.array([[0, 0, 0, 5, 0], [1, 0, 0, 0, 0]], float)[..., None]
        >>> model = nn.Conv1d(1, 1, 3, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
        >>> top_patches(model, x, layer="conv1d", channels=[0], k=2).patches[0, :, :, 0]
        array([[0., 0., 5.],
               [0., 1., 0.]], dtype=float32)

    Source:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", figure 2, right.
    """
    function = "top_patches"
    x = x if isinstance(x, jax.ShapeDtypeStruct) else np.atleast_1d(np.asarray(x))
    _place.examples(function, x[:1] if isinstance(x, np.ndarray) else x)
    for name, number in (("k", k), ("batch_size", batch_size)):
        arguments.count(function, name, number)
    if k > len(x):
        raise ValueError(f"{function}: k must be at most the {len(x)} examples, got {k}.")
    some = jnp.asarray(x[:batch_size])
    traced = trace(model, some, function=function)
    found = _place.layer_of(function, traced, layer)
    for channel in channels:
        _place.channel_of(function, found, channel)
    chosen = np.asarray(channels)
    if chosen.ndim != 1 or not chosen.size:
        raise ValueError(f"{function}: channels must be a sequence of at least one, got {channels!r}.")

    @jax.jit
    def strongest(x: Array, state: Sequence[Array]) -> tuple[Array, Array]:
        (maps,) = _backward.run(traced, [found.value], state, x)
        units = maps[..., chosen].reshape(len(x), -1, len(chosen))
        return units.max(1), units.argmax(1)

    parts = []
    for start in range(0, len(x), len(some)):
        # The last batch is filled up with its last example, and what that gives is cut off.
        rows = np.arange(start, start + len(some))
        part = strongest(jnp.asarray(x[np.minimum(rows, len(x) - 1)]), traced.program.state)
        parts.append([np.asarray(array)[rows < len(x)] for array in part])
    activations, positions = (np.concatenate(arrays).T for arrays in zip(*parts, strict=True))
    indices = np.argsort(-activations.astype(np.float32), axis=1, kind="stable")[:, :k]
    flat = np.take_along_axis(positions, indices, 1)
    units = np.stack(np.unravel_index(flat, found.shape[1:-1] or (1,)), -1)[..., : len(found.shape) - 2]
    patches = [
        [_patch(found, x[index], unit, value) for index, unit in zip(*row, strict=True)]
        for row in zip(indices, units, strict=True)
    ]
    return TopPatches(chosen, indices, units, np.take_along_axis(activations, indices, 1), np.asarray(patches))


def plot_patches(top: TopPatches) -> "Figure":
    """Draw the patches that excite each channel most, a row a channel, with the activation over each.

    Args:
        top: from `top_patches`, of pictures with 1 or 3 channels or of series.

    Returns:
        A matplotlib Figure, one axes a patch.

    Raises:
        ValueError: patches of volumes, or of pictures with another number of channels.
        ImportError: matplotlib is missing.

    Example:
        >>> x = jax.random.uniform(jax.random.key(0), (5, 28, 28, 1))
        >>> top = top_patches(models.LeNet5(rngs=nnx.Rngs(0)), x, layer="c1", channels=[0, 3], k=4)
        >>> [axes.get_ylabel() for axes in plot_patches(top).axes[::4]]
        ['0', '3']

    Source:
        As `top_patches`.
    """
    patches = top.patches.astype(np.float32)
    if patches.ndim not in (4, 5) or (patches.ndim == 5 and patches.shape[-1] not in (1, 3)):
        raise ValueError(f"plot_patches: patches must be (M, k, H, W, 1 or 3) or (M, k, L, C), got {patches.shape}.")
    rows, columns = patches.shape[:2]
    low, high = float(patches.min()), float(patches.max())
    high = max(high, low + 1e-12)
    height = np.clip(patches.shape[2] / patches.shape[3], 0.4, 2.5) if patches.ndim == 5 else 0.7
    figure, axes = style.axes(rows, columns, size=(columns * 1.0 + 0.4, rows * (float(height) + 0.3)))
    for number, ax in enumerate(axes):
        row, column = divmod(number, columns)
        style.bare(ax)
        patch = patches[row, column]
        if patch.ndim == 2:
            ax.plot(patch, linewidth=1.2)
            ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        else:
            picture = (patch - low) / (high - low)
            ax.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap=style.GREY, vmin=0, vmax=1)
        ax.set_title(f"{float(top.activations[row, column]):.3g}", fontsize=8)
        if column == 0:
            ax.set_ylabel(str(top.channels[row]), rotation=0, ha="right", va="center")
    return figure


def _patch(layer: Layer, picture: np.ndarray, unit: Sequence[int], value: float) -> np.ndarray:
    """What a unit sees of a picture, with `value` beyond its edges."""
    for axis, field in enumerate(layer.view):
        n = picture.shape[axis]
        start, end = _place.textbook(field, unit) if field.size < n else (0, n)
        at = np.arange(start, end)
        picture = np.take(picture, np.clip(at, 0, n - 1), axis)
        outside = (at < 0) | (at >= n)
        picture[(slice(None),) * axis + (outside,)] = value
    return picture
