"""Dropout of elements, channels, blocks and whole branches: noise in training, nothing in evaluation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from cnnjax.ops import _arguments as arguments
from cnnjax.ops.max_pool import max_pool2d


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
    return _dropped("dropout", key, x, rate, x.shape)


def spatial_dropout(
    key: Key[Array, ""], x: Float[Array, "N *spatial C"], *, rate: float
) -> Float[Array, "N *spatial C"]:
    """Zero whole channels, each of each example with probability `rate`, and scale up the rest.

    Neighbouring pixels say much the same: `dropout` between convolutions only slows learning down, where a channel
    that is gone as a whole makes the others do without it. Leave the call out in evaluation.

    y[n, ..., c] = x[n, ..., c] * mask[n, c] / (1 - rate), mask ~ Bernoulli(1 - rate); all zeros at rate 1

    Args:
        key: a JAX PRNG key; the same key gives the same mask.
        x: (N, *spatial, C), floating, with at least one spatial axis.
        rate: probability of zeroing a channel, in [0, 1].

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer array.
        ValueError: a rate outside [0, 1], or x without spatial axes.

    Example:
        >>> spatial_dropout(jax.random.key(1), jnp.ones((1, 2, 6)), rate=0.5)[0]
        Array([[2., 0., 2., 2., 0., 0.],
               [2., 0., 2., 2., 0., 0.]], dtype=float32)

    Source:
        Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks", section 3.2, in the
        inverted form: torch.nn.functional.dropout1d, dropout2d and dropout3d, Keras' SpatialDropout1D to 3D.
    """
    x = arguments.inexact("spatial_dropout", "x", x)
    if x.ndim < 3:
        raise ValueError(
            f"spatial_dropout: x must be (N, *spatial, C) with a spatial axis, got shape {x.shape}."
            " Add a batch axis with x[None], or use dropout."
        )
    return _dropped("spatial_dropout", key, x, rate, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]))


def drop_block2d(
    key: Key[Array, ""], x: Float[Array, "N H W C"], *, rate: float, block_size: int | Sequence[int]
) -> Float[Array, "N H W C"]:
    """Zero square blocks of pixels, about a share `rate` of all, and scale up the rest.

    Between `dropout`, whose holes the neighbours fill, and `spatial_dropout`. Every channel of every example has
    its own blocks, each of which lies in the picture as a whole. Where blocks overlap, less than `rate` is zeroed;
    what is kept is therefore counted and scaled by that, over the whole array. Leave the call out in evaluation;
    raise the rate slowly from 0 in training, as the paper does.

    y = x * mask * mask.size / sum of mask, where mask is 0 on the blocks whose seeds are drawn, and a block is drawn
    with probability rate / (b * b) * (H * W) / ((H - b + 1) * (W - b + 1)) at each place where it fits

    Args:
        key: a JAX PRNG key; the same key gives the same blocks.
        x: (N, H, W, C), floating.
        rate: share that blocks without overlap would zero, in [0, 1].
        block_size: b in pixels, at least 1: an int, or one an axis. 1 is `dropout` but for the scale.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer array, or a block_size that is no int.
        ValueError: a rate outside [0, 1], x that is not (N, H, W, C), or a block that does not fit.

    Example:
        >>> drop_block2d(jax.random.key(5), jnp.ones((1, 4, 4, 1)), rate=0.25, block_size=2)[0, :, :, 0]
        Array([[2., 2., 2., 2.],
               [0., 0., 2., 2.],
               [0., 0., 0., 2.],
               [0., 0., 0., 2.]], dtype=float32)

    Source:
        Ghiasi, Lin & Le 2018, "DropBlock: A regularization method for convolutional networks", algorithm 1 and
        equation 1, with seeds in a block's first corner instead of its centre: so even sizes work, and the share is
        the same. torchvision.ops.drop_block2d; there a block larger than the picture shrinks to it.
    """
    x = arguments.inexact("drop_block2d", "x", x)
    height, width = arguments.batched("drop_block2d", x, 2)
    block = arguments.per_axis("drop_block2d", "block_size", block_size, 2)
    _check_rate("drop_block2d", rate)
    if block[0] > height or block[1] > width:
        raise ValueError(f"drop_block2d: block {block} does not fit x {x.shape}. Use a smaller block_size.")
    if rate == 0:
        return x
    places = height - block[0] + 1, width - block[1] + 1
    share = rate / (block[0] * block[1]) * (height * width) / (places[0] * places[1])
    seeds = jax.random.bernoulli(key, share, (x.shape[0], *places, x.shape[-1]))
    return _without_blocks(x, seeds, block)


def drop_path(key: Key[Array, ""], x: Float[Array, "N *shape"], *, rate: float) -> Float[Array, "N *shape"]:
    """Zero whole examples with probability `rate` and scale up the rest.

    Stochastic depth: for a residual block's branch, before it is added, so that what remains of a zeroed example is
    the shortcut. Deeper blocks usually take higher rates. Leave the call out in evaluation.

    y[n] = x[n] * mask[n] / (1 - rate), mask ~ Bernoulli(1 - rate); all zeros at rate 1

    Args:
        key: a JAX PRNG key; the same key gives the same mask.
        x: (N, ...), floating.
        rate: probability of zeroing an example, in [0, 1].

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer array.
        ValueError: a rate outside [0, 1], or x without a batch axis.

    Example:
        >>> x, branch = jnp.ones((4, 2)), jnp.full((4, 2), 0.5)
        >>> x + drop_path(jax.random.key(0), branch, rate=0.5)
        Array([[1., 1.],
               [1., 1.],
               [2., 2.],
               [2., 2.]], dtype=float32)

    Source:
        Huang et al. 2016, "Deep Networks with Stochastic Depth", section 3, in the inverted form and an example at a
        time: the paper zeroes a branch for the whole batch, and scales in evaluation. torchvision.ops.stochastic_depth
        with mode="row".
    """
    x = arguments.inexact("drop_path", "x", x)
    if x.ndim < 1:
        raise ValueError("drop_path: x must be (N, ...), got shape (). Add a batch axis with x[None].")
    return _dropped("drop_path", key, x, rate, (x.shape[0], *(1,) * (x.ndim - 1)))


def _dropped(op: str, key: Array, x: Array, rate: float, shape: Sequence[int]) -> Array:
    """Inverted dropout with a mask of that shape, broadcast."""
    _check_rate(op, rate)
    if rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    keep = jax.random.bernoulli(key, 1 - rate, tuple(shape))
    return jnp.where(keep, x / (1 - rate), 0)


def _without_blocks(x: Array, seeds: Array, block: tuple[int, ...]) -> Array:
    """Zero a block below and right of every seed."""
    margin = [(size - 1, size - 1) for size in block]
    keep = max_pool2d(seeds.astype(jnp.float32), block, stride=1, padding=margin) == 0
    wide = arguments.wide(x)
    kept = jnp.maximum(keep.sum(), 1).astype(wide.dtype)
    return jnp.where(keep, (wide * (keep.size / kept)).astype(x.dtype), 0)


def _check_rate(op: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{op}: rate must be in [0, 1], got {rate}. It is the share that is zeroed.")
