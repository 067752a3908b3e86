"""Which pixels of the input a unit sees: in theory, from the sizes alone, and in effect, from gradients."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _field, _field_picture, _place
from cnnjax.explain.trace import Layer, Trace, trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReceptiveField(NamedTuple):
    """What unit i of a layer sees along an axis: `size` pixels from start + i * jump on.

    A negative start lies in the padding. Jump 0: all units see the same, as behind a dense layer or a global pool.
    Jump 1/2: a transposed convolution has doubled the pixels; the start is then rounded.
    """

    size: int
    jump: int | Fraction
    start: int


def receptive_field(model: nnx.Module, x: Any) -> dict[str, tuple[ReceptiveField, ...]]:
    """Compute the theoretical receptive field of every layer.

    Branches that meet see the union of what each saw. The size counts pixels of the padding too, as the textbooks do:
    a unit near an edge sees fewer, `receptive_window` says which. It is the box around what a unit sees: a dilated
    kernel leaves holes in it. Resizing by interpolation, sorting and loops count as seeing everything.

    size' = size + dilation * (k - 1) * jump; start' = start - padding * jump; jump' = jump * stride

    Args:
        model: any `nnx.Module` that is called with one array, ours or a stock one.
        x: (N, *spatial, C), an array or a `jax.ShapeDtypeStruct`.

    Returns:
        For each layer's name, in order, a ReceptiveField(size, jump, start) for each spatial axis of x.

    Raises:
        TypeError: a model that is no module, or x that has no shape.
        ValueError: x without a batch axis.

    Example:
        >>> fields = receptive_field(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1)))
        >>> [fields[name][0].size for name in ("c1", "s2", "c3", "s4", "c5")]
        [5, 6, 14, 16, 32]

    Source:
        Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks".
    """
    layers = trace(model, x, function="receptive_field").layers
    return {layer.name: tuple(ReceptiveField(*_field.closed(field)) for field in layer.view) for layer in layers}


def receptive_window(model: nnx.Module, x: Any, *, layer: str, unit: Sequence[int] | None = None) -> tuple[slice, ...]:
    """Locate the pixels that one unit sees: the receptive field, without what lies in the padding.

    Behind a window that lies in the padding altogether the box may be larger than what is seen, never smaller.

    Args:
        model: as in `receptive_field`.
        x: as in `receptive_field`.
        layer: the layer's name, as `summary` lists it.
        unit: position of the unit on the layer's map, one integer a spatial axis; None is the one in the middle.
            A layer without spatial axes has the unit ().

    Returns:
        One slice a spatial axis of x: x[0][window] are the pixels.

    Raises:
        TypeError: as `receptive_field`.
        ValueError: as `receptive_field`; a layer that the model does not have, or a unit that the layer does not have.

    Example:
        >>> receptive_window(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1)), layer="s4", unit=(0, 2))
        (slice(0, 14, None), slice(6, 22, None))

    Source:
        As `receptive_field`.
    """
    found = trace(model, x, function="receptive_window").find("receptive_window", layer)
    return _place.window(found, _place.unit_of("receptive_window", found, unit), x.shape[1:-1])


def effective_receptive_field(
    model: nnx.Module,
    x: ArrayLike,
    *,
    layer: str,
    unit: Sequence[int] | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """Measure how much each pixel moves a unit: the gradient's magnitude, averaged over examples.

    What a unit sees in theory it does not use evenly: the middle counts most, about as a Gaussian does, and much of
    the theoretical field hardly at all. Units that a ReLU silences for an example have no gradient there; average
    over enough of them.

    field[i, j] = mean over n of sum over c of |d unit[n] / d x[n, i, j, c]|

    Args:
        model: as in `receptive_field`.
        x: (N, *spatial, C), floating: pictures, or noise to ask about the net alone.
        layer: the layer's name, as `summary` lists it.
        unit: as in `receptive_window`.
        channel: of which channel of the layer; None adds all of them.

    Returns:
        float array of the spatial shape of x, at least 0.

    Raises:
        TypeError: as `receptive_field`; x of an integer dtype, or a shape alone.
        ValueError: as `receptive_window`; a channel that the layer does not have, or x without examples.

    Example:
        >>> model = nn.Conv1d(1, 1, 3, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
        >>> effective_receptive_field(model, jnp.zeros((1, 5, 1)), layer="conv1d", unit=(1,))
        array([1., 1., 1., 0., 0.], dtype=float32)

    Source:
        Luo, Li, Urtasun & Zemel 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural
        Networks", section 4.
    """
    function = "effective_receptive_field"
    x = _place.examples(function, x)
    traced = trace(model, x, function=function)
    found = traced.find(function, layer)
    at = _place.unit_of(function, found, unit)
    return _effective(traced, found, x, at, _place.channel_of(function, found, channel))


def plot_receptive_field(
    model: nnx.Module,
    x: ArrayLike,
    *,
    layer: str,
    unit: Sequence[int] | None = None,
    channel: int | None = None,
    example: int = 0,
) -> "Figure":
    """Draw on the input what a unit sees: left the theoretical field, right the effective one.

    The box goes on where the field reaches into the padding. Of a volume the slice in the middle of the field is
    shown.

    Args:
        model: as in `receptive_field`.
        x: (N, *spatial, C), floating, one to three spatial axes; the effective field averages over all N.
        layer: the layer's name, as `summary` lists it.
        unit: as in `receptive_window`.
        channel: as in `effective_receptive_field`.
        example: which of x to draw.

    Returns:
        A matplotlib Figure with two axes.

    Raises:
        TypeError: as `effective_receptive_field`.
        ValueError: as `effective_receptive_field`; an example that x does not have, or x without spatial axes.
        ImportError: matplotlib is missing.

    Example:
        >>> figure = plot_receptive_field(models.LeNet5(rngs=nnx.Rngs(0)), jnp.ones((1, 28, 28, 1)), layer="s2")
        >>> figure.axes[0].get_title()
        's2, unit (7, 7): 6 x 6 pixels'

    Source:
        As `effective_receptive_field`.
    """
    function = "plot_receptive_field"
    x = _place.examples(function, x)
    if not 3 <= x.ndim <= 5 or not 0 <= example < len(x):
        raise ValueError(
            f"{function}: x must be (N, *spatial, C) with one to three spatial axes and example {example},"
            f" got shape {x.shape}."
        )
    traced = trace(model, x, function=function)
    found = traced.find(function, layer)
    at = _place.unit_of(function, found, unit)
    heat = _effective(traced, found, x, at, _place.channel_of(function, found, channel))
    boxes = [_place.textbook(field, at) for field in found.view]
    size = " x ".join(str(field.size) for field in found.view)
    unit_text = f", unit ({', '.join(map(str, at))})" if at else ""
    titles = f"{found.name}{unit_text}: {size} pixels", "effective: mean |gradient|"
    picture = np.asarray(x[example])
    if picture.ndim == 4:
        middle = int(np.clip(sum(boxes[0]) // 2, 0, len(picture) - 1))
        picture, heat, boxes = picture[middle], heat[middle], boxes[1:]
    return (_field_picture.of_series if picture.ndim == 2 else _field_picture.of_picture)(picture, heat, boxes, titles)


def _effective(traced: Trace, layer: Layer, x: Array, unit: Sequence[int], channel: int | None) -> np.ndarray:
    def activation(x: Array) -> Array:
        value = traced.values([layer.value], x)[0]
        chosen = value[(slice(None), *unit)]
        return jnp.sum(chosen if channel is None else chosen[..., channel])

    gradient = jnp.abs(jax.grad(activation)(x))
    return np.asarray(gradient.sum(-1).mean(0))
