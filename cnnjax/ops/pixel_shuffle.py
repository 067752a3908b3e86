"""Channels to pixels and back: upsampling after a convolution that has made the channels, and its inverse."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Shaped

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._spatial import spatial_shape


def pixel_shuffle(x: Shaped[ArrayLike, "N *spatial C"], factor: int | Sequence[int]) -> Shaped[Array, "N *larger c"]:
    """Lay out blocks of channels as pixels.

    The order of channels is PyTorch's, which is mode CRD of ONNX's DepthToSpace: the pixels of a block are
    neighbouring channels. In mode DCR, ONNX's default, and in tf.nn.depth_to_space the output's channels are
    neighbours instead: first reorder such an x (or the output channels of the kernel that makes it) by
    x.reshape(N, H, W, r * r, c).swapaxes(-1, -2).reshape(x.shape).

    y[n, h * r + i, w * r + j, c] = x[n, h, w, (c * r + i) * r + j]

    Args:
        x: (N, *spatial, C), any dtype, one to three spatial axes; C is a multiple of prod(factor).
        factor: pixels that one becomes along an axis, at least 1: an int, or one an axis.

    Returns:
        (N, *(spatial * factor), C // prod(factor)) in the dtype of x.

    Raises:
        TypeError: a factor that is not made of ints.
        ValueError: x that is not (N, *spatial, C), or channels that are no multiple of prod(factor).

    Example:
        >>> x = jnp.array([[0, 1, 2, 3], [4, 5, 6, 7]]).reshape(1, 1, 2, 4)
        >>> pixel_shuffle(x, 2)[0, :, :, 0]
        Array([[0, 1, 4, 5],
               [2, 3, 6, 7]], dtype=int32)

    Source:
        Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        Convolutional Neural Network", equation 4, which puts the output's channels fastest.
    """
    x, spatial, factors = _checked("pixel_shuffle", x, factor)
    rank, block = len(spatial), math.prod(factors)
    if x.shape[-1] % block:
        last = (0, *range(2, x.ndim), 1)
        hint = f" If x is channels-first, use x.transpose{last}." if x.shape[1] % block == 0 else ""
        raise ValueError(
            f"pixel_shuffle: channels must be a multiple of {block} for factor {factors}, got x {x.shape}.{hint}"
        )
    channels = x.shape[-1] // block
    y = x.reshape(x.shape[0], *spatial, channels, *factors)
    y = y.transpose(0, *(a for axis in range(1, rank + 1) for a in (axis, axis + rank + 1)), rank + 1)
    return y.reshape(x.shape[0], *(n * f for n, f in zip(spatial, factors, strict=True)), channels)


def pixel_unshuffle(x: Shaped[ArrayLike, "N *spatial C"], factor: int | Sequence[int]) -> Shaped[Array, "N *smaller c"]:
    """Lay out blocks of pixels as channels.

    The inverse of `pixel_shuffle`, with its order of channels, PyTorch's. ONNX's SpaceToDepth in mode DCR, its
    default, and tf.nn.space_to_depth put the input's channels fastest: their result is
    y.reshape(N, H, W, C, r * r).swapaxes(-1, -2).reshape(y.shape).

    y[n, h, w, (c * r + i) * r + j] = x[n, h * r + i, w * r + j, c]

    Args:
        x: (N, *spatial, C), any dtype, one to three spatial axes, each a multiple of its factor.
        factor: pixels that become one along an axis, at least 1: an int, or one an axis.

    Returns:
        (N, *(spatial // factor), C * prod(factor)) in the dtype of x.

    Raises:
        TypeError: a factor that is not made of ints.
        ValueError: x that is not (N, *spatial, C), or a spatial size that is no multiple of its factor.

    Example:
        >>> pixel_unshuffle(jnp.arange(8).reshape(1, 2, 4, 1), 2)[0, 0]
        Array([[0, 1, 4, 5],
               [2, 3, 6, 7]], dtype=int32)

    Source:
        As `pixel_shuffle`; torch.nn.PixelUnshuffle.
    """
    x, spatial, factors = _checked("pixel_unshuffle", x, factor)
    rank = len(spatial)
    for axis, n, f in zip(arguments.AXES[rank], spatial, factors, strict=True):
        if n % f:
            raise ValueError(
                f"pixel_unshuffle: factor {factors} must divide the spatial size of x {x.shape}, got {n} along {axis}."
                " Pad or crop x."
            )
    smaller = [n // f for n, f in zip(spatial, factors, strict=True)]
    y = x.reshape(x.shape[0], *(n for pair in zip(smaller, factors, strict=True) for n in pair), x.shape[-1])
    y = y.transpose(0, *range(1, 2 * rank, 2), 2 * rank + 1, *range(2, 2 * rank + 1, 2))
    return y.reshape(x.shape[0], *smaller, x.shape[-1] * math.prod(factors))


def _checked(op: str, x: ArrayLike, factor: int | Sequence[int]) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """The array, its spatial shape, and one factor an axis."""
    array = jnp.asarray(x)
    spatial = spatial_shape(op, array)
    return array, spatial, arguments.per_axis(op, "factor", factor, len(spatial))
