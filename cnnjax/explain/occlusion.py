"""Occlusion: how much of a class's score is lost while a part of the input is covered."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _score
from cnnjax.ops import _arguments as arguments

# So many examples at once are plenty to keep a device busy.
_AT_ONCE = 64


def occlusion(
    model: nnx.Module,
    x: ArrayLike,
    *,
    target: ArrayLike | None = None,
    window: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    value: ArrayLike = 0.0,
) -> Array:
    """Measure how much a class's score drops while a window covers a part of the input.

    It asks nothing of the model but its score, no gradient: the slowest of these ways of seeing and the most direct.
    A pixel gets the mean over the windows that cover it. They start at every stride, and the last one ends where the
    input does.

    m[n, p] = mean over windows w that cover p of score(x[n]) - score(x[n] with value in w)

    Args:
        model: as in `saliency`.
        x: (N, *spatial, C), floating, with at least one spatial axis.
        target: as in `saliency`; None is the class that the model takes x for, also while it is covered.
        window: size of the window, at most that of x: an int, or one an axis.
        stride: from one window to the next, at most the window: an int, or one an axis. The number of windows, and
            with it the time, goes down with the product of the strides.
        value: what covers: a number, or one a channel.

    Returns:
        (N, *spatial), float32 at least: positive where covering costs score, negative where it adds some.

    Raises:
        TypeError: as `saliency`; sizes that are no integers.
        ValueError: as `saliency`; x without spatial axes, a window larger than x, a stride larger than the window.

    Example:
        >>> total = nnx.Sequential(lambda x: x.sum((1, 2))[:, None])
        >>> occlusion(total, jnp.array([1.0, 2, 3, 4]).reshape(1, 4, 1), window=2)
        Array([[3., 4., 6., 7.]], dtype=float32)

    Source:
        Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2. There the score is
        drawn at the middle of the window.
    """
    function = "occlusion"
    x, score = _score.ask(function, model, x, target)
    spatial = x.shape[1:-1]
    if not spatial:
        raise ValueError(f"{function}: x must be (N, *spatial, C) with spatial axes, got shape {x.shape}.")
    windows = arguments.per_axis(function, "window", window, len(spatial))
    strides = arguments.per_axis(function, "stride", stride, len(spatial))
    if any(w > n for w, n in zip(windows, spatial, strict=True)):
        raise ValueError(f"{function}: window {windows} must fit x {spatial}. Use a smaller window.")
    if any(s > w for s, w in zip(strides, windows, strict=True)):
        raise ValueError(
            f"{function}: stride {strides} must be at most window {windows}, so that no pixel is left out."
        )
    cover = jnp.asarray(value, x.dtype)
    if cover.shape not in ((), (1,), x.shape[-1:]):
        raise ValueError(
            f"{function}: value must be a number or one for each of {x.shape[-1]} channels, got shape {cover.shape}."
        )
    starts = [_starts(n, w, s) for n, w, s in zip(spatial, windows, strides, strict=True)]
    corners = jnp.stack(jnp.meshgrid(*starts, indexing="ij"), -1).reshape(-1, len(spatial))

    @jax.jit
    def drops(x: Array, state: list[Array]) -> Array:
        whole = score.of(state, x)

        def drop(corner: Array) -> Array:
            covered = jnp.ones((*spatial, 1), bool)
            for axis, (n, size) in enumerate(zip(spatial, windows, strict=True)):
                inside = (jnp.arange(n) >= corner[axis]) & (jnp.arange(n) < corner[axis] + size)
                covered &= jnp.expand_dims(inside, [a for a in range(len(spatial) + 1) if a != axis])
            return whole - score.of(state, jnp.where(covered, cover, x))

        return jax.lax.map(drop, corners, batch_size=max(1, _AT_ONCE // len(x)))

    maps = jnp.moveaxis(drops(x, score.state).reshape(*map(len, starts), len(x)), -1, 0)
    for axis, (n, size, first) in enumerate(zip(spatial, windows, starts, strict=True), start=1):
        covers = (np.arange(n) >= first[:, None]) & (np.arange(n) < first[:, None] + size)
        maps = jnp.moveaxis(jnp.tensordot(maps, covers / covers.sum(0), (axis, 0), precision="highest"), -1, axis)
    return maps


def _starts(n: int, size: int, stride: int) -> np.ndarray:
    """Where windows begin, so that every one of n pixels is covered."""
    return np.unique(np.minimum(np.arange(0, n - size + stride, stride), n - size))
