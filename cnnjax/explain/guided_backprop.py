"""Guided backpropagation: gradients along the paths that speak for a class alone."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _score


def guided_backprop(model: nnx.Module, x: ArrayLike, *, target: ArrayLike | None = None) -> Array:
    """Compute a gradient of a class's score for which every ReLU sends back nothing but positive gradients.

    Sharper than `saliency`, and less to be trusted: it tends to show the edges of the picture whatever the class
    (Adebayo et al. 2018, "Sanity Checks for Saliency Maps"). For a model without ReLUs it is the gradient. ReLU6
    counts as a ReLU; GELU, SiLU, leaky and others keep their derivative.

    A ReLU sends back gradient * (x > 0) * (gradient > 0).

    Args:
        model: as in `saliency`.
        x: as in `saliency`.
        target: as in `saliency`.

    Returns:
        Array of the shape and dtype of x.

    Raises:
        TypeError: as `saliency`.
        ValueError: as `saliency`.

    Example:
        >>> model = nnx.Sequential(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), jax.nn.relu, lambda h: -h)
        >>> bool(guided_backprop(model, jnp.ones((1, 2))).any())  # what the last layer turns negative ends at the ReLU
        False

    Source:
        Springenberg, Dosovitskiy, Brox & Riedmiller 2015, "Striving for Simplicity: The All Convolutional Net",
        figure 1. There the gradient starts at a unit of any layer, here at a class.
    """
    x, score = _score.ask("guided_backprop", model, x, target)
    return score.gradient(x, rule=_guided)


def _guided(x: Array, gradient: Array) -> Array:
    return jnp.where((x > 0) & (gradient > 0), gradient, 0)
