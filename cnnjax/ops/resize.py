"""Resizing: every axis on its own, by a table of the pixels that each output sees."""

import math
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Shaped

from cnnjax.ops import _arguments as arguments
from cnnjax.ops import _resampling as resampling
from cnnjax.ops._resampling import Table
from cnnjax.ops._spatial import spatial_shape

_METHODS = ("nearest", "nearest_exact", "linear", "cubic", "area")


def resize(
    x: Shaped[Array, "N *spatial C"],
    size: int | Sequence[int] | None = None,
    *,
    scale: float | Sequence[float] | None = None,
    method: str = "linear",
    coordinates: str = "half_pixel",
    rounding: str | None = None,
    antialias: bool = False,
    cubic_a: float = -0.75,
    exclude_outside: bool | None = None,
) -> Shaped[Array, "N *resized C"]:
    """Resize a batch of series, pictures or volumes, to a size or by a scale.

    Where an axis shrinks, take area or `antialias`: the rest reads the pixels next to each output and skips those in
    between. Labels want a nearest method. Every axis is resized by itself. An output reads few pixels, and only
    those pass on NaN and infinity (also with weight 0, as in PyTorch).

    y[i] = sum over j of w((p(i) - j) / stretch) * x[j], with step = n / size or 1 / scale, and

    - half_pixel p(i) = (i + 0.5) * step - 0.5; align_corners i * (n - 1) / (size - 1); asymmetric i * step
    - linear w(d) = max(1 - |d|, 0); cubic Keys' piecewise cubic; beyond the edges x[j] is the pixel at the edge
    - stretch = 1, with antialias max(step, 1); the weights then are divided by their sum
    - nearest: y[i] = x[floor(i * step)]; nearest_exact: y[i] = x[floor((i + 0.5) * step)]; in float32
    - area: the mean of the pixels from floor(i * n / size) up to and without ceil((i + 1) * n / size)

    Args:
        x: (N, *spatial, C) with one to three spatial axes, floating; the nearest methods take any dtype.
        size: pixels of the result, at least 1: an int, or one an axis. Give either size or scale.
        scale: pixels of the result for each of x, above 0: a number, or one an axis. The size is floor(n * scale),
            the step 1 / scale.
        method: "nearest", "nearest_exact", "linear", "cubic" or "area".
        coordinates: what of x and the result coincides: "half_pixel" the outer edges, "align_corners" the centres of
            the first and last pixels, "asymmetric" those of the first. Besides, ONNX has "pytorch_half_pixel", where
            an axis of one output reads the first pixel (PyTorch reads the middle), and "half_pixel_symmetric", where
            the middles coincide though floor(n * scale) cut off a part. With any but half_pixel, nearest takes
            floor(p(i)), nearest_exact floor(p(i) + 0.5). Area is half_pixel.
        rounding: for nearest, which pixel p(i) stands for, under any coordinates: "floor", "ceil", or the closest,
            "round_prefer_floor" the first of two and "round_prefer_ceil" the second: ONNX's nearest_mode. None is
            PyTorch's rule above.
        antialias: for linear and cubic, widen the filter where an axis shrinks. With align_corners, p(i) is then
            (i + 0.5) * (n - 1) / (size - 1) - 0.5 as in PyTorch, which keeps no corners.
        cubic_a: slope of the cubic at a distance of 1. PyTorch has -0.75, and with antialias -0.5; Keys, Keras, Pillow
            and `jax.image` have -0.5 throughout.
        exclude_outside: for linear and cubic, whether pixels beyond the edges are left out and the other weights
            divided by their sum. None is PyTorch's: with antialias alone. ONNX's default is False.

    Returns:
        (N, *size, C) in the dtype of x. Half precision is summed in float32.

    Raises:
        TypeError: an integer x, but for the nearest methods; a size or scale that is no number.
        ValueError: not exactly one of size and scale, an unknown method or coordinates, options that exclude each
            other, or a result without pixels.

    Example:
        >>> x = jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)
        >>> resize(x, 6).ravel()
        Array([1.  , 1.25, 1.75, 2.5 , 3.5 , 4.  ], dtype=float32)
        >>> resize(x, 5, coordinates="align_corners").ravel()
        Array([1. , 1.5, 2. , 3. , 4. ], dtype=float32)

    Source:
        torch.nn.functional.interpolate; instead of recompute_scale_factor=True, pass the size. As there, an axis that
        keeps its size is copied whatever the scale, except by nearest_exact, with a rounding, and by cubic without
        antialias, and nearest doubles every pixel where the size doubles. ONNX Resize; given scales, align_corners in
        its reference, not in its text, divides by n * scale - 1. Keys 1981, "Cubic Convolution Interpolation for
        Digital Image Processing".
    """
    _check_options(method, coordinates, rounding, antialias)
    x = jnp.asarray(x) if method.startswith("nearest") else arguments.floating("resize", "x", x)
    spatial = spatial_shape("resize", x)
    sizes, scales = _sizes(spatial, size, scale)
    exclude_outside = antialias if exclude_outside is None else exclude_outside
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    y = arguments.wide(x) if floating else x
    # What shrinks goes first: less is left for the rest.
    for axis in sorted(range(len(spatial)), key=lambda axis: sizes[axis] / spatial[axis]):
        lengths = spatial[axis], sizes[axis], scales[axis]
        if _is_copied(*lengths, method, coordinates, rounding, antialias):
            continue
        table = _table(*lengths, method, coordinates, rounding, antialias, cubic_a, exclude_outside)
        if floating:
            y = resampling.resample(y, axis + 1, table)
        else:
            y = jnp.take(y, table.indices[:, 0], axis + 1, mode="clip")
    return y.astype(x.dtype)


def _table(
    n: int,
    out: int,
    scale: float | None,
    method: str,
    coordinates: str,
    rounding: str | None,
    antialias: bool,
    cubic_a: float,
    exclude_outside: bool,
) -> Table:
    """The pixels and weights of every output along an axis of n."""
    grid = resampling.grid(n, out, scale, coordinates)
    match method:
        case "area":
            return resampling.area(n, out)
        case "nearest" | "nearest_exact" if coordinates == "half_pixel" and rounding is None:
            return resampling.torch_nearest(n, out, scale, exact=method == "nearest_exact")
        case "nearest":
            return resampling.nearest(grid, n, rounding or "floor")
        case "nearest_exact":
            return resampling.nearest(grid, n, "round_prefer_ceil")
    if antialias and coordinates == "align_corners":
        grid = grid._replace(position=grid.position + (grid.step - 1) / 2)
    if method == "cubic":
        kernel, radius = partial(resampling.cubic, a=cubic_a), 2
    else:
        kernel, radius = resampling.triangle, 1
        if not antialias:
            # The same values; but which pixel is read with weight 0, and may be NaN, is then PyTorch's.
            grid = grid._replace(position=np.maximum(grid.position, 0))
    return resampling.filtered(grid, n, kernel, radius, antialias=antialias, exclude_outside=exclude_outside)


def _is_copied(
    n: int, out: int, scale: float | None, method: str, coordinates: str, rounding: str | None, antialias: bool
) -> bool:
    """Whether the outputs are the pixels. A scale may shift them, but not everywhere does PyTorch look at it."""
    if out != n:
        return False
    blind = coordinates == "half_pixel" and (antialias or method in ("nearest", "linear", "area")) and rounding is None
    return scale in (None, 1) or coordinates == "align_corners" or blind


def _sizes(
    spatial: tuple[int, ...], size: int | Sequence[int] | None, scale: float | Sequence[float] | None
) -> tuple[Sequence[int], Sequence[float | None]]:
    """The size of the result and the scale of every axis, None where a size was given."""
    rank = len(spatial)
    if (size is None) == (scale is None):
        raise ValueError(f"resize: give either size or scale, got {'neither' if size is None else 'both'}.")
    if size is not None:
        return arguments.per_axis("resize", "size", size, rank), (None,) * rank
    try:
        # The sign refuses what float would parse.
        scales = [float(+value) for value in (scale if isinstance(scale, Sequence) else (scale,) * rank)]  # pyright: ignore[reportOptionalOperand]
    except TypeError:
        raise TypeError(f"resize: scale must be a number or {rank} numbers, got {scale!r}.") from None
    if len(scales) != rank:
        raise ValueError(f"resize: scale takes one value an axis ({rank}), got {scale!r}. Give a number for all axes.")
    if not all(0 < value < math.inf for value in scales):
        raise ValueError(f"resize: scale must be above 0 and finite, got {scale!r}.")
    sizes = [math.floor(n * value) for n, value in zip(spatial, scales, strict=True)]
    for axis, n, value, out in zip(arguments.AXES[rank], spatial, scales, sizes, strict=True):
        if out < 1:
            raise ValueError(
                f"resize: scale {value} leaves no pixel of {n} along {axis}. Use a larger scale, or give the size."
            )
    return sizes, scales


def _check_options(method: str, coordinates: str, rounding: str | None, antialias: bool) -> None:
    if method not in _METHODS:
        raise ValueError(f"resize: method must be one of {', '.join(_METHODS)}, got {method!r}.")
    if coordinates not in resampling.COORDINATES:
        raise ValueError(
            f"resize: coordinates must be one of {', '.join(resampling.COORDINATES)}, got {coordinates!r}."
        )
    if method == "area" and coordinates != "half_pixel":
        raise ValueError(f"resize: area takes coordinates half_pixel alone, got {coordinates!r}. Use another method.")
    if rounding is not None and rounding not in resampling.ROUNDINGS:
        raise ValueError(f"resize: rounding must be one of {', '.join(resampling.ROUNDINGS)}, got {rounding!r}.")
    if rounding is not None and method != "nearest":
        raise ValueError(f"resize: rounding is for nearest, got method {method!r}. Leave it out.")
    if antialias and method not in ("linear", "cubic"):
        raise ValueError(f"resize: antialias is for linear and cubic, got method {method!r}. Leave it out.")
