"""Blur pooling: subsampling without aliasing."""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.shapes import conv_output_size

_FILLED = {"CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "edge"}


def blur_pool2d(
    x: Inexact[Array, "N H W C"],
    *,
    window: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 2,
    padding: Padding = "REFLECT",
) -> Inexact[Array, "N Ho Wo C"]:
    """Blur every channel with a binomial filter, and keep every other pixel.

    What makes a network less sensitive to shifts by a pixel: instead of a max pool of stride 2, a max pool of stride 1
    and this; instead of a convolution of stride 2, one of stride 1, its ReLU and this. Half precision is summed in
    float32 and rounded once.

    y[n, i, j, c] = sum over k, l of b[k] * b[l] * x[n, i * stride + k - low, j * stride + l - low, c],
    b[k] = binomial(K - 1, k) / 2 ** (K - 1): 1 2 1 over 4, 1 3 3 1 over 8, ...

    Args:
        x: (N, H, W, C), floating or complex.
        window: size K of the filter in pixels, at least 1: an int, or one an axis. 1 does not blur, and 3 to 7 are
            usual.
        stride: step in pixels, at least 1: an int, or one an axis.
        padding: "REFLECT", "REPLICATE" or "CIRCULAR", which fill in pixels of x, ((K - 1) // 2, K // 2) of them an
            axis: ceil(n / stride) outputs. "SAME", "SAME_LOWER", "VALID" or amounts, of zeros, as in `conv2d`.

    Returns:
        (N, Ho, Wo, C) in the dtype of x, with sizes `shapes.conv_output_size(n, K, ...)` an axis.

    Raises:
        TypeError: an integer x.
        ValueError: x that is not (N, H, W, C), a window that does not fit, or REFLECT of as many pixels as there are.

    Example:
        >>> x = jnp.array([[0.0, 8.0, 0.0, 8.0], [16.0, 8.0, 16.0, 8.0]]).reshape(1, 2, 4, 1)
        >>> blur_pool2d(x).ravel()
        Array([8., 8.], dtype=float32)

    Source:
        Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", section 3.2, padded as the author's code,
        antialiased-cnns, whose filter of 4 is the default there. Kornia's fills in zeros.
    """
    op = "blur_pool2d"
    x = arguments.inexact(op, "x", x)
    spatial = arguments.batched(op, x, 2)
    sizes = arguments.per_axis(op, "window", window, 2)
    strides = arguments.per_axis(op, "stride", stride, 2)
    pairs = arguments.padding_pairs(op, padding, spatial, sizes, strides, (1, 1), arguments.conv_modes(2))
    output = [
        conv_output_size(n, k, stride=s, padding=pair)
        for n, k, s, pair in zip(spatial, sizes, strides, pairs, strict=True)
    ]
    arguments.fits(op, "window", spatial, sizes, (1, 1), pairs, output)
    y = _padded(op, arguments.wide(x), pairs, padding.upper() if isinstance(padding, str) else "")
    for axis, (k, s, out) in enumerate(zip(sizes, strides, output, strict=True), 1):
        taps = [lax.slice_in_dim(y, tap, tap + (out - 1) * s + 1, s, axis) for tap in range(k)]
        weights = [math.comb(k - 1, tap) / 2 ** (k - 1) for tap in range(k)]
        y = functools.reduce(jnp.add, [weight * tap for weight, tap in zip(weights, taps, strict=True)])
    return y.astype(x.dtype)


def _padded(op: str, x: Array, pairs: Sequence[tuple[int, int]], mode: str) -> Array:
    for axis, n, pair in zip("HW", x.shape[1:-1], pairs, strict=True):
        if mode == "REFLECT" and max(pair) >= n:
            raise ValueError(
                f"{op}: REFLECT must add fewer pixels than there are, got {max(pair)} for {n} along {axis}."
                " Use REPLICATE, or a smaller window."
            )
    return jnp.pad(x, [(0, 0), *pairs, (0, 0)], mode=_FILLED.get(mode, "constant"))
