"""The deconvnet: one unit projected back to the pixels that it answers to."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _backward, _place
from cnnjax.explain.trace import trace


def deconvnet(model: nnx.Module, x: ArrayLike, *, layer: str, channel: int, unit: Sequence[int] | None = None) -> Array:
    """Project the activation of one unit back to the pixels of each example.

    All other activations of the layer are set to zero and the net is run in reverse: max pools put values where the
    maximum was (their switches), ReLUs rectify what comes back, convolutions are transposed. What is left are the
    structures of the example that excite the unit. Other layers send back their gradient. ReLU6 counts as a ReLU.

    It is the unit's activation times a gradient for which a ReLU sends back max(gradient, 0), whatever it read.

    Args:
        model: any `nnx.Module` that is called with one array, ours or a stock one; in evaluation.
        x: (N, *spatial, C), floating.
        layer: the layer's name, as `summary` lists it; its activation function is included.
        channel: which channel of the layer.
        unit: position on the layer's map, one integer a spatial axis; None is the strongest of the channel in each
            example. A layer without spatial axes has the unit ().

    Returns:
        Array of the shape and dtype of x, zero outside the receptive field of the unit.

    Raises:
        TypeError: a model that is no module; x of an integer dtype, or a shape alone.
        ValueError: x without examples; a layer, channel or unit that does not exist.

    Example:
        >>> model = nn.Conv1d(1, 1, 3, padding="VALID", rngs=nnx.Rngs(0))
        >>> model.kernel[...] = jnp.array([1.0, 2.0, -1.0]).reshape(3, 1, 1)
        >>> deconvnet(model, jnp.array([0.0, 0, 1, 0, 0, 0]).reshape(1, 6, 1), layer="conv1d", channel=0).ravel()
        Array([ 0.,  2.,  4., -2.,  0.,  0.], dtype=float32)

    Source:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 2.1; that it is such a
        gradient is from Simonyan, Vedaldi & Zisserman 2014, section 4.
    """
    function = "deconvnet"
    examples = _place.examples(function, x)
    traced = trace(model, examples, function=function)
    found = _place.layer_of(function, traced, layer)
    _place.channel_of(function, found, channel)
    at = None if unit is None else _place.unit_of(function, found, unit)

    @jax.jit
    def project(x: Array, state: Sequence[Array]) -> Array:
        def values(x: Array) -> Array:
            (maps,) = _backward.run(traced, [found.value], state, x, rule=_rectified)
            return maps[..., channel].reshape(len(x), -1)

        units, back = jax.vjp(values, x)
        # A layer without spatial axes has one unit a channel.
        spatial = found.shape[1:-1]
        one = np.ravel_multi_index(at, spatial) if at else 0
        chosen = units.argmax(1) if at is None else jnp.full(len(x), one)
        mask = jnp.arange(units.shape[1]) == chosen[:, None]
        return back(jnp.where(mask, units, 0))[0]

    return project(examples, traced.program.state)


def _rectified(x: Array, gradient: Array) -> Array:
    return jnp.maximum(gradient, 0)
