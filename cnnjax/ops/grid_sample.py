"""Grid sampling: every output says where in the picture it is read."""

import math
from functools import partial

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops import _sampling as sampling
from cnnjax.ops._sampling import Taps

_METHODS = ("nearest", "linear", "cubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample2d(
    x: Inexact[Array, "N H W C"],
    grid: Float[Array, "N Ho Wo 2"],
    *,
    method: str = "linear",
    padding: str = "zeros",
    align_corners: bool = False,
) -> Inexact[Array, "N Ho Wo C"]:
    """Read a batch of pictures at the points of a grid.

    For spatial transformers, optical flow and registration: any warp, differentiable in x and in the grid. A pixel of
    the grid is (x, y), the column first, and in units of half the picture: -1 is its start and 1 its end. To enlarge
    or shrink alone, `resize` is faster and can antialias.

    y[n, i, j, c] = sum over h, w of k(py - h) * k(px - w) * x[n, h, w, c], for the point (gx, gy) = grid[n, i, j]

    - px = ((gx + 1) * W - 1) / 2, with align_corners (gx + 1) * (W - 1) / 2; py alike with H
    - k: linear max(1 - |d|, 0), cubic that of Keys with slope -0.75 at 1; nearest reads x[round(py), round(px)], ties
      going to the even pixel

    Args:
        x: (N, H, W, C), floating or complex.
        grid: (N, Ho, Wo, 2), floating; another dtype than that of x will do. Points are computed in float32 at least,
            but bfloat16 cannot tell neighbouring pixels of a large picture apart.
        method: "nearest", which has no gradient for the grid, "linear" or "cubic".
        padding: what is read outside: "zeros"; "border", the pixel at the edge; or "reflection" of the picture at its
            outer edges, with align_corners at the centres of its outer pixels, as often as it takes. At the edge and
            beyond, linear with border has no gradient for the grid.
        align_corners: whether -1 and 1 are the centres of the outer pixels, not their outer edges. The points between
            then depend on the size.

    Returns:
        (N, Ho, Wo, C) in the dtype of x. Half precision is computed in float32 and rounded once. A point that is not
        finite gives NaN under linear with zeros, and under cubic. A NaN otherwise reads the first pixel of its axis
        (nearest with zeros: nothing), as an infinity does under reflection.

    Raises:
        TypeError: an integer array, or a complex grid.
        ValueError: shapes that do not fit each other, an empty grid, an unknown method or padding.

    Example:
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> grid = jnp.array([[0.0, -1.0], [0.5, 0.5], [1.0, 3.0]]).reshape(1, 1, 3, 2)
        >>> grid_sample2d(x, grid, align_corners=True).ravel()
        Array([1., 6., 0.], dtype=float32)
        >>> grid_sample2d(x, grid, align_corners=True, padding="border").ravel()
        Array([1., 6., 8.], dtype=float32)

    Source:
        Jaderberg et al. 2015, "Spatial Transformer Networks", equations 3 and 5, with the options of
        torch.nn.functional.grid_sample and ONNX GridSample (their bilinear and bicubic are linear and cubic). Where
        ONNX's reference differs: beyond the edge it moves the point itself before cubic, which for border is another
        value, and it rounds to the nearest pixel before it reflects.
    """
    return _grid_sample("grid_sample2d", 2, x, grid, method, padding, align_corners)


def grid_sample3d(
    x: Inexact[Array, "N D H W C"],
    grid: Float[Array, "N Do Ho Wo 3"],
    *,
    method: str = "linear",
    padding: str = "zeros",
    align_corners: bool = False,
) -> Inexact[Array, "N Do Ho Wo C"]:
    """Read a batch of volumes at the points of a grid.

    `grid_sample2d` with a depth axis: the registration of CT and MRI volumes. PyTorch has no cubic here, ONNX does:
    it reads 64 voxels a point.

    Args:
        x: (N, D, H, W, C), floating or complex.
        grid: (N, Do, Ho, Wo, 3), floating: (x, y, z), the depth last.
        method: as in `grid_sample2d`.
        padding: as in `grid_sample2d`.
        align_corners: as in `grid_sample2d`.

    Returns:
        (N, Do, Ho, Wo, C) in the dtype of x. A point that is not finite gives NaN under cubic and 0 under zeros. A NaN
        otherwise reads the last voxel of its axis, as an infinity does under reflection.

    Raises:
        TypeError: an integer array, or a complex grid.
        ValueError: shapes that do not fit each other, an empty grid, an unknown method or padding.

    Example:
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
        >>> grid = jnp.array([[0.0, 0.0, 0.0], [0.5, -1.0, 1.0]]).reshape(1, 1, 1, 2, 3)
        >>> grid_sample3d(x, grid, align_corners=True).ravel()
        Array([3.5 , 4.75], dtype=float32)

    Source:
        As `grid_sample2d`. ONNX GridSample from opset 20 on; its cubic in 3-D is the product of three.
    """
    return _grid_sample("grid_sample3d", 3, x, grid, method, padding, align_corners)


def _grid_sample(op: str, rank: int, x: Array, grid: Array, method: str, padding: str, align_corners: bool) -> Array:
    x, grid = arguments.inexact(op, "x", x), arguments.floating(op, "grid", grid)
    spatial = arguments.batched(op, x, rank)
    _check(op, rank, x, grid, method, padding)
    coordinates = grid.astype(jnp.promote_types(grid.dtype, jnp.finfo(arguments.wide(x).dtype).dtype))
    # The axes of x are (D,) H, W and the coordinates x, y(, z).
    axes = [
        _taps(coordinates[..., rank - 1 - axis], n, method, padding, align_corners, flat=rank == 2)
        for axis, n in enumerate(spatial)
    ]
    return sampling.sample(x, axes).astype(x.dtype)


def _taps(coordinate: Array, n: int, method: str, padding: str, align_corners: bool, *, flat: bool) -> Taps:
    if align_corners:
        position = (coordinate + 1) * ((n - 1) / 2)
    else:
        position = (coordinate + 1) * (n / 2) - 0.5
    inward = partial(_inward, n=n, padding=padding, align_corners=align_corners)
    if method == "cubic":
        return sampling.cubic(position, n, inward)
    # Where PyTorch's CPU kernels go with what is not finite: the one for volumes casts NaN to an integer far outside.
    if padding == "zeros":
        lost = math.nan if flat else -2
    else:
        lost = 0 if flat else n - 1
    position = inward(position)
    position = jnp.where(jnp.isfinite(position), position, lost)
    return sampling.nearest(position, n) if method == "nearest" else sampling.linear(position, n)


def _inward(position: Array, *, n: int, padding: str, align_corners: bool) -> Array:
    """Move what lies outside the axis as the padding says."""
    if padding == "zeros":
        return position
    if padding == "reflection":
        position = _reflected(position, n, align_corners)
    # At the very edge the gradient is 0, as in PyTorch: clip alone would halve it.
    between = (position > 0) & (position < n - 1)
    return jnp.where(between, position, lax.stop_gradient(jnp.clip(position, 0, n - 1)))


def _reflected(position: Array, n: int, align_corners: bool) -> Array:
    """Fold the line to and fro into the axis."""
    low, span = (0, n - 1) if align_corners else (-0.5, n)
    if span == 0:
        return jnp.zeros_like(position)
    distance = jnp.abs(position - low)
    rest = distance - jnp.floor(distance / (2 * span)) * (2 * span)
    return jnp.minimum(rest, 2 * span - rest) + low


def _check(op: str, rank: int, x: Array, grid: Array, method: str, padding: str) -> None:
    names = ", ".join(("x", "y", "z")[:rank])
    shape = f"(N, {', '.join(f'{axis}o' for axis in arguments.AXES[rank])}, {rank})"
    if grid.ndim == rank + 2 and grid.shape[-1] != rank == grid.shape[1]:
        raise ValueError(
            f"{op}: grid {grid.shape} looks channels-first: the ({names}) of a point come last."
            f" Use grid.transpose{(0, *range(2, rank + 2), 1)}."
        )
    if grid.ndim != rank + 2 or grid.shape[-1] != rank:
        raise ValueError(f"{op}: grid must be {shape}, the ({names}) of every point, got shape {grid.shape}.")
    if grid.shape[0] != x.shape[0]:
        raise ValueError(
            f"{op}: grid must have the batch of x, {x.shape[0]}, got shape {grid.shape}."
            " Repeat one grid with jnp.broadcast_to."
        )
    if 0 in grid.shape[1:-1]:
        raise ValueError(f"{op}: grid must have points, got shape {grid.shape}. Only the batch axis may be empty.")
    if method not in _METHODS:
        raise ValueError(f"{op}: method must be one of {', '.join(_METHODS)}, got {method!r}.")
    if padding not in _PADDINGS:
        raise ValueError(f"{op}: padding must be one of {', '.join(_PADDINGS)}, got {padding!r}.")
