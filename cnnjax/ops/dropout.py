"""Dropout: noise in training, nothing in evaluation."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from cnnjax.ops import _arguments as arguments


def dropout(key: Key[Array, ""], x: Float[Array, "*shape"], *, rate: float) -> Float[Array, "*shape"]:
    """Zero each element with probability `rate` and scale up the rest.

    The scaling keeps the expectation, so evaluation needs no counterpart: just leave the call out. In
    convolutional layers neighbours are correlated, and dropping whole channels regularises better.

    y = x * mask / (1 - rate), mask ~ Bernoulli(1 - rate); all zeros at rate 1

    Args:
        key: a JAX PRNG key; the same key gives the same mask.
        x: floating, any shape.
        rate: probability of zeroing, in [0, 1].

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer array.
        ValueError: a rate outside [0, 1].

    Example:
        >>> dropout(jax.random.key(0), jnp.ones(6), rate=0.5)
        Array([0., 0., 2., 2., 0., 2.], dtype=float32)

    Source:
        Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", section 10
        (the inverted form).
    """
    x = arguments.inexact("dropout", "x", x)
    if not 0 <= rate <= 1:
        raise ValueError(f"dropout: rate must be in [0, 1], got {rate}. It is the share that is zeroed.")
    if rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
