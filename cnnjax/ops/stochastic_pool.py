"""Stochastic pooling: one pixel a window, drawn by its activation."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Key

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._windows import Windows, place


def stochastic_pool2d(
    key: Key[Array, ""] | None,
    x: Float[Array, "N H W C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    train: bool = True,
) -> Float[Array, "N Ho Wo C"]:
    """Draw one pixel of every window in training, and take the expected one in evaluation.

    Regularises as dropout does, without a rate to choose. Made for activations of at least 0: negative ones count as
    0, as if a ReLU came first, and padding is 0 too. A window without a positive pixel gives 0, and its pixels no
    gradient. In training the gradient goes to the pixel drawn, as if the draw did not depend on x. NaN wins always,
    and then infinity.

    p[k] = max(x[k], 0) / sum of max(x, 0) over the window; y = x[k] with probability p[k], in training: the first one
    in row-major order whose p and those before it add up to more than u ~ U[0, 1); y = sum of p * x, in evaluation

    Args:
        key: a JAX PRNG key; the same key gives the same draws. None in evaluation.
        x: (N, H, W, C), floating.
        window: as in `max_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        train: draw, or take the expectation; a Python bool.

    Returns:
        (N, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer or complex x.
        ValueError: x that is not (N, H, W, C), a window that does not fit or sees no pixel, or training without a key.

    Example:
        >>> x = jnp.array([[1.6, 0.0], [0.0, 2.4], [-1.0, 0.0], [0.0, -2.0]]).reshape(1, 4, 2, 1)
        >>> stochastic_pool2d(None, x, 2, train=False).ravel().round(2)
        Array([2.08, 0.  ], dtype=float32)
        >>> stochastic_pool2d(jax.random.key(0), x, 2).ravel()
        Array([2.4, 0. ], dtype=float32)

    Source:
        Zeiler & Fergus 2013, "Stochastic Pooling for Regularization of Deep Convolutional Neural Networks", equations
        4 to 6. What negative activations mean is ours.
    """
    op = "stochastic_pool2d"
    x = arguments.floating(op, "x", x)
    windows = place(op, 2, x, window, stride, padding, 1, False)
    if train and key is None:
        raise ValueError(f"{op}: key must be a JAX PRNG key in training, got None. Give one, or train=False.")
    wide = arguments.wide(x)
    taps = _taps(jnp.where(wide <= 0, 0, wide), windows)
    y = _mean(taps) if key is None or not train else _drawn(key, taps)
    return y.astype(x.dtype)


def _drawn(key: Array, taps: Array) -> Array:
    still = lax.stop_gradient(taps)
    # Added up in order: a parallel sum need not grow with every term, and then no tap or two would be drawn.
    sums = list(itertools.accumulate(_shares(still), initial=jnp.zeros(taps.shape[1:], taps.dtype)))
    drawn = jax.random.uniform(key, taps.shape[1:], taps.dtype) * sums[-1]
    chosen = [(before <= drawn) & (drawn < after) for before, after in itertools.pairwise(sums)]
    y = jnp.where(jnp.stack(chosen), taps, 0).sum(0)
    return jnp.where(jnp.isnan(sums[-1]), jnp.nan, y)


def _mean(taps: Array) -> Array:
    shares = _shares(taps)
    total = shares.sum(0)
    return (shares / jnp.where(total == 0, 1, total) * taps).sum(0)


def _shares(taps: Array) -> Array:
    """The taps themselves; where their sum is infinite, or nearly, and has no reciprocal, the largest share alike."""
    return jnp.where(taps.sum(0) > jnp.finfo(taps.dtype).max / 8, taps == taps.max(0), taps)


def _taps(x: Array, windows: Windows) -> Array:
    """One strided slice a tap of the window: (taps, N, Ho, Wo, C)."""
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pair, 0) for pair in windows.pairs), (0, 0, 0)])

    def at(tap: tuple[int, ...]) -> Array:
        stop = [t + (out - 1) * s + 1 for t, out, s in zip(tap, windows.output, windows.stride, strict=True)]
        return lax.slice(padded, (0, *tap, 0), (x.shape[0], *stop, x.shape[-1]), (1, *windows.stride, 1))

    return jnp.stack([at(tap) for tap in itertools.product(*map(range, windows.size))])
