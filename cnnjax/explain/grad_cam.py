"""Grad-CAM: where the maps of a layer speak for a class."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _backward, _score
from cnnjax.explain.trace import Layer
from cnnjax.ops import resize


def grad_cam(model: nnx.Module, x: ArrayLike, *, layer: str | None = None, target: ArrayLike | None = None) -> Array:
    """Weigh the maps of a layer by how much each raises a class's score, and add them up.

    A coarse picture of where the class is, as coarse as the layer's maps, but one that tells classes apart. The maps
    are resized to the input linearly, as if they covered it from edge to edge.

    m = max(0, sum over k of a[k] * A[..., k]), with a[k] = mean over positions of d score / d A[..., k]

    Args:
        model: as in `saliency`.
        x: (N, *spatial, C), floating, with one to three spatial axes.
        layer: a layer with as many spatial axes as x, by its name in `summary`, its activation function included; None
            is the last one with more than one position.
        target: as in `saliency`.

    Returns:
        (N, *spatial), float32 at least, not negative.

    Raises:
        TypeError: as `saliency`.
        ValueError: as `saliency`; x without spatial axes, a layer that does not exist or without spatial axes, or None
            where no layer has any.

    Example:
        >>> grad_cam(models.LeNet(rngs=nnx.Rngs(0)), jnp.ones((2, 28, 28, 1)), layer="norms.1").shape
        (2, 28, 28)

    Source:
        Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2.
    """
    function = "grad_cam"
    x, score = _score.ask(function, model, x, target)
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"{function}: x must be (N, *spatial, C) with one to three spatial axes, got shape {x.shape}.")
    found = _last(function, score.traced.layers, x) if layer is None else score.traced.find(function, layer)
    if len(found.shape) != x.ndim or found.shape[0] != len(x):
        raise ValueError(
            f"{function}: layer must have {x.ndim - 2} spatial axes as x has, got {found.name} with shape"
            f" {found.shape}."
        )

    @jax.jit
    def weigh(x: Array, state: Sequence[Array]) -> Array:
        raised = jax.grad(lambda added: score.of(state, x, added={found.value: added}).sum())
        slope = raised(jnp.zeros(found.shape, found.dtype))
        (maps,) = _backward.run(score.traced, [found.value], state, x)
        wide = jnp.promote_types(maps.dtype, jnp.float32)
        axes = tuple(range(1, x.ndim - 1))
        weights = slope.astype(wide).mean(axes, keepdims=True)
        heat = jax.nn.relu((weights * maps.astype(wide)).sum(-1, keepdims=True))
        return resize(heat, x.shape[1:-1])[..., 0]

    return weigh(x, score.state)


def _last(function: str, layers: Sequence[Layer], x: Array) -> Layer:
    """The last layer whose units have a place in the input, and not all the same."""
    for layer in reversed(layers):
        placed = len(layer.shape) == x.ndim and all(field.axis is not None for field in layer.view)
        if placed and max(layer.shape[1:-1]) > 1:
            return layer
    raise ValueError(f"{function}: no layer of the model has a map with the {x.ndim - 2} spatial axes of x.")
