"""Normalisation of every example by itself, over the axes that are named."""

import operator
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._standardise import affine, parameter, standardise


def layer_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "*normalised"] | None = None,
    bias: Float[Array, "*normalised"] | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-6,
) -> Float[Array, "*shape"]:
    """Standardise x along some of its axes.

    No example sees another, so training and evaluation do the same. Along -1 every pixel is normalised over its
    channels (ConvNeXt); along (1, 2, 3) every picture as a whole, with a scale for each of its values: for one a
    channel use `group_norm` with groups=1. The mean and then the variance come from centred values, in float32 for
    half precision: what is large against its spread keeps its digits.

    y = (x - m) / sqrt(v + eps) * scale + bias, with the mean m and biased variance v along `axis`

    Args:
        x: floating, of any shape.
        scale: in the shape of the normalised axes, in the order in which x has them, or None for 1.
        bias: as scale, or None for 0.
        axis: the normalised axes, an int or several.
        eps: added to the variance. 0 gives NaN for equal values; PyTorch and ONNX default to 1e-5, Keras to 1e-3.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer or complex array, or an axis that is no int.
        ValueError: axes that x does not have or along which it is empty, or a scale or bias of another shape.

    Example:
        >>> layer_norm(jnp.array([[1e4, 1e4 + 1, 1e4 + 2], [1.0, 1.0, 4.0]])).round(3)
        Array([[-1.225,  0.   ,  1.225],
               [-0.707, -0.707,  1.414]], dtype=float32)

    Source:
        Ba, Kiros & Hinton 2016, "Layer Normalization", equation 3, with eps. The axes need not be the last
        ones as in PyTorch; ONNX's one axis stands for all from there on. flax.nnx by default takes the variance as
        a difference of squares, and can share a scale along axes that it normalises.
    """
    x = arguments.floating("layer_norm", "x", x)
    axes = _axes("layer_norm", x, axis)
    factor, shift = (parameter("layer_norm", *of, x, axes) for of in (("scale", scale), ("bias", bias)))
    y = standardise(arguments.wide(x), partial(jnp.mean, axis=axes, keepdims=True), eps)
    return affine(y, factor, shift).astype(x.dtype)


def rms_norm(
    x: Float[Array, "*shape"],
    scale: Float[Array, "*normalised"] | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-6,
) -> Float[Array, "*shape"]:
    """Divide x by its root mean square along some of its axes.

    `layer_norm` without the centring, hence without a bias: cheaper, and the mean stays. In float32 for half
    precision.

    y = x / sqrt(mean of x² + eps) * scale

    Args:
        x: floating, of any shape.
        scale: as in `layer_norm`.
        axis: as in `layer_norm`.
        eps: added to the mean square. PyTorch's default is the machine epsilon of x, for half precision that of
            float32; ONNX's 1e-5.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer or complex array, or an axis that is no int.
        ValueError: axes that x does not have or along which it is empty, or a scale of another shape.

    Example:
        >>> rms_norm(jnp.array([[1.0, 1.0, 5.0, 3.0]])).round(3)
        Array([[0.333, 0.333, 1.667, 1.   ]], dtype=float32)

    Source:
        Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", equation 4, with eps.
    """
    x = arguments.floating("rms_norm", "x", x)
    axes = _axes("rms_norm", x, axis)
    factor = parameter("rms_norm", "scale", scale, x, axes)
    wide = arguments.wide(x)
    y = wide * lax.rsqrt(jnp.square(wide).mean(axes, keepdims=True) + eps)
    return affine(y, factor, None).astype(x.dtype)


def _axes(op: str, x: Array, axis: int | Sequence[int]) -> tuple[int, ...]:
    """The normalised axes, counted from 0 and in increasing order."""
    try:
        named = tuple(map(operator.index, axis)) if isinstance(axis, Sequence) else (operator.index(axis),)
    except TypeError:
        raise TypeError(f"{op}: axis must be an int or several, got {axis!r}.") from None
    axes = sorted({a % x.ndim for a in named if -x.ndim <= a < x.ndim})
    if not named or len(axes) != len(named):
        raise ValueError(f"{op}: axis must name axes of x {x.shape}, each once, got {axis!r}. -1 is the last one.")
    if any(x.shape[a] == 0 for a in axes):
        raise ValueError(f"{op}: x {x.shape} must hold values along axis {axis!r}. Only other axes may be empty.")
    return tuple(axes)
