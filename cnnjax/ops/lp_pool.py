"""Power-average pooling: the p-norm of every window, one axis after the other."""

import math
from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jaxtyping import Float

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops._taps import larger, select, slices
from cnnjax.ops._windows import place


def lp_pool1d(
    x: Float[Array, "N L C"],
    window: int | Sequence[int],
    p: float | Float[Array, ""],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "N M C"]:
    """Take the p-norm of every window of a batch of series.

    `lp_pool2d` along one axis.

    Args:
        x: (N, L, C), floating.
        window: size in samples, at least 1.
        p: as in `lp_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`; adds zeros.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (N, M, C) in the dtype of x, M = `shapes.pool_output_size(L, window, ...)`.

    Raises:
        TypeError: an integer or complex x, or p that is no number.
        ValueError: p below 1, x that is not (N, L, C), or a window that does not fit or sees no pixel.

    Example:
        >>> lp_pool1d(jnp.array([3.0, -4.0, 0.0, 2.0]).reshape(1, 4, 1), 2, 2).ravel()
        Array([5., 2.], dtype=float32)

    Source:
        As `lp_pool2d`.
    """
    return _lp_pool("lp_pool1d", 1, x, window, p, stride, padding, dilation, ceil_mode)


def lp_pool2d(
    x: Float[Array, "N H W C"],
    window: int | Sequence[int],
    p: float | Float[Array, ""],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "N Ho Wo C"]:
    """Take the p-norm of every window of a batch of pictures.

    Between a sum (p = 1) and `max_pool2d` of |x| (p = inf); no mean, so divide by the number of taps ** (1 / p)
    for one. Every window is measured in units of its largest element: no p overflows or underflows on the way,
    and half precision is computed in float32 and rounded once. The gradient is finite for any p, and 0 where the
    whole window is.

    y[n, i, j, c] = (sum over the window of |x| ** p) ** (1 / p)

    Args:
        x: (N, H, W, C), floating.
        window: as in `max_pool2d`.
        p: order of the norm, at least 1; inf too. A traced scalar is not checked, and must be finite: the gradient
            with respect to it is that of a trained p.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`; adds zeros.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (N, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer or complex x, or p that is no number.
        ValueError: p below 1, x that is not (N, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> x = jnp.array([[1.0, -2.0, 0.0, 0.0], [2.0, 4.0, 0.0, -3.0]]).reshape(1, 2, 4, 1)
        >>> lp_pool2d(x, 2, 2.0).ravel()
        Array([5., 3.], dtype=float32)

    Source:
        Sermanet, Chintala & LeCun 2012, "Convolutional Neural Networks Applied to House Numbers Digit
        Classification", without the Gaussian weights; |x| as ONNX. torch.nn.LPPool2d takes x ** p, so that for odd
        p negative elements cancel positive ones and a negative sum gives NaN, and scales the sum of a window that
        ceil_mode lets hang over the end up to a whole window's.
    """
    return _lp_pool("lp_pool2d", 2, x, window, p, stride, padding, dilation, ceil_mode)


def lp_pool3d(
    x: Float[Array, "N D H W C"],
    window: int | Sequence[int],
    p: float | Float[Array, ""],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "N Do Ho Wo C"]:
    """Take the p-norm of every window of a batch of volumes.

    `lp_pool2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating.
        window: size in voxels, at least 1: an int, or one an axis.
        p: as in `lp_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`; adds zeros.
        dilation: as in `max_pool2d`.
        ceil_mode: as in `max_pool2d`.

    Returns:
        (N, Do, Ho, Wo, C) in the dtype of x, with sizes `shapes.pool_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer or complex x, or p that is no number.
        ValueError: p below 1, x that is not (N, D, H, W, C), or a window that does not fit or sees no pixel.

    Example:
        >>> lp_pool3d(jnp.full((1, 2, 2, 2, 1), -3.0), 2, 3).item()
        6.0

    Source:
        As `lp_pool2d`.
    """
    return _lp_pool("lp_pool3d", 3, x, window, p, stride, padding, dilation, ceil_mode)


def _lp_pool(
    op: str,
    rank: int,
    x: Array,
    window: int | Sequence[int],
    p: float | Array,
    stride: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Array:
    x = arguments.floating(op, "x", x)
    windows = place(op, rank, x, window, stride, padding, dilation, ceil_mode)
    order = _order(op, p)
    norm = jnp.abs(arguments.wide(x))
    zero = np.zeros((), norm.dtype)
    if isinstance(order, float) and math.isinf(order):
        (norm,) = select((norm,), windows, zero, larger)
        # Without a gradient where all is 0, as for every other order.
        return jnp.where(norm == 0, 0, norm).astype(x.dtype)
    # The norm of the rows' norms is that of the whole window.
    for axis in reversed(range(rank)):
        taps = slices(norm, windows, axis, zero)
        norm = _norm(taps, order) if isinstance(order, Tracer) else _norm_of_fixed_order(taps, order)
    return norm.astype(x.dtype)


def _norm(taps: Sequence[Array], p: float | Array) -> Array:
    """The p-norm across taps, none of them negative."""
    # In units of the largest, which drops out of the result and so has no part in its derivatives.
    largest = lax.stop_gradient(reduce(jnp.maximum, taps))
    empty = largest == 0
    unit = jnp.where(empty | jnp.isinf(largest), 1, largest)
    total = sum((tap / unit) ** p for tap in taps)
    return jnp.where(empty, 0, unit * jnp.where(empty, 1, total) ** (1 / p))


# By hand: JAX's own derivative takes ten times as long. A traced order, which may be differentiated too, is left to it.


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _norm_of_fixed_order(taps: Sequence[Array], p: float) -> Array:
    return _norm(taps, p)


@_norm_of_fixed_order.defjvp
def _(p: float, primals: tuple[Sequence[Array]], tangents: tuple[Sequence[Array]]):
    (taps,), (moves,) = primals, tangents
    norm = _norm_of_fixed_order(taps, p)
    empty = norm == 0
    unit = jnp.where(empty, 1, norm)
    shares = [jnp.where(empty, 0, (tap / unit) ** (p - 1)) for tap in taps]
    return norm, sum(share * move for share, move in zip(shares, moves, strict=True))


def _order(op: str, p: float | Array) -> float | Array:
    """The order of the norm, checked where its value is known."""
    if isinstance(p, Tracer) and p.ndim == 0:
        return p
    try:
        order = float(p)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: p must be a number, got {p!r}. 2.0 is usual.") from None
    if not order >= 1:
        raise ValueError(f"{op}: p must be at least 1, got {p!r}. Below 1 it is no norm.")
    return order
