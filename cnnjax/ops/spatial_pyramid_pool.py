"""Spatial pyramid pooling: a vector of fixed length from a picture of any size."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Real

from cnnjax.ops import _arguments as arguments
from cnnjax.ops.adaptive_avg_pool import adaptive_avg_pool2d
from cnnjax.ops.adaptive_max_pool import adaptive_max_pool2d
from cnnjax.ops.dense import flatten

_POOLS = {"max": adaptive_max_pool2d, "avg": adaptive_avg_pool2d}


def spatial_pyramid_pool2d(
    x: Real[Array, "N H W C"], levels: Sequence[int | Sequence[int]], *, method: str = "max"
) -> Real[Array, "N F"]:
    """Pool a batch of pictures on grids of several sizes, and put all of it in one vector.

    Lets a dense layer follow pictures of any size and keeps more of where things are than `global_max_pool`. A grid
    finer than the picture repeats pixels.

    y[n] = the cells of the first level, row by row with their channels last, then those of the next

    Args:
        x: (N, H, W, C), floating; integer too for "max".
        levels: the grids, at least one: an int for as many rows as columns, or (rows, columns), each at least 1.
        method: "max" or "avg", what is taken of the pixels of a cell: see `adaptive_max_pool2d`, `adaptive_avg_pool2d`.

    Returns:
        (N, F) in the dtype of x, F = C * sum of rows * columns over the levels.

    Raises:
        TypeError: x of a dtype that the method does not take, or levels that are not ints.
        ValueError: x that is not (N, H, W, C), no levels, a level below 1, or an unknown method.

    Example:
        >>> spatial_pyramid_pool2d(jnp.arange(15.0).reshape(1, 3, 5, 1), (1, 2))
        Array([[14.,  7.,  9., 12., 14.]], dtype=float32)

    Source:
        He et al. 2014, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition", section 2.2.
        A cell spans floor(i * n / bins) up to ceil((i + 1) * n / bins), so that cells cover pictures of every size;
        with 13 pixels and 1, 2 or 3 bins those are the windows ceil(n / bins) at stride floor(n / bins) of section
        2.3.
    """
    op = "spatial_pyramid_pool2d"
    if method not in _POOLS:
        raise ValueError(f"{op}: method must be one of {', '.join(_POOLS)}, got {method!r}.")
    x = arguments.ordered(op, "x", x) if method == "max" else arguments.floating(op, "x", x)
    arguments.batched(op, x, 2)
    if not isinstance(levels, Sequence) or len(levels) == 0:
        raise ValueError(f"{op}: levels must be a sequence of at least one grid, got {levels!r}. 1, 2, 4 is usual.")
    grids = [arguments.per_axis(op, "each of levels", level, 2) for level in levels]
    return jnp.concatenate([flatten(_POOLS[method](x, grid)) for grid in grids], axis=1)
