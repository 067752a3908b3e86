"""Normalisation of every picture by itself, a group of channels or a channel at a time."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._standardise import affine, parameter, standardise


def group_norm(
    x: Float[Array, "N *spatial C"],
    scale: Float[Array, "C"] | None = None,
    bias: Float[Array, "C"] | None = None,
    *,
    groups: int,
    eps: float = 1e-6,
) -> Float[Array, "N *spatial C"]:
    """Standardise every group of neighbouring channels over the picture.

    No example sees another, so small batches do no harm, and training and evaluation do the same. One group is a
    layer norm over the whole picture with a scale a channel; one channel a group is `instance_norm`. As accurate as
    `layer_norm`.

    y = (x - m) / sqrt(v + eps) * scale + bias, with the mean m and biased variance v of an example over the spatial
    axes and the C // groups channels of a group

    Args:
        x: (N, *spatial, C), floating; (N, C) too.
        scale: (C,), or None for 1.
        bias: (C,), or None for 0.
        groups: how many groups, at least 1; divides C. The paper and flax.nnx take 32.
        eps: added to the variance. 0 gives NaN for equal values; PyTorch and ONNX default to 1e-5, Keras to 1e-3.

    Returns:
        The shape and dtype of x. A group of a single value becomes its bias.

    Raises:
        TypeError: an integer or complex array, or groups that is no int.
        ValueError: x without pixels, groups that do not divide C, or a scale or bias that is not (C,).

    Example:
        >>> group_norm(jnp.array([[1.0, 3.0, 10.0, 50.0]]), jnp.array([1.0, 1.0, 1.0, 2.0]), groups=2).round(3)
        Array([[-1.,  1., -1.,  2.]], dtype=float32)

    Source:
        Wu & He 2018, "Group Normalization", equations 1, 2, 6 and 7; as torch.nn.functional.group_norm and
        ONNX from opset 21 on (before, ONNX had one a group).
    """
    x = arguments.floating("group_norm", "x", x)
    if x.ndim < 2:
        raise ValueError(f"group_norm: x must be (N, *spatial, C), got shape {x.shape}. Add a batch axis with x[None].")
    arguments.batched("group_norm", x, x.ndim - 2)
    groups = arguments.count("group_norm", "groups", groups)
    if x.shape[-1] % groups:
        first = x.ndim > 2 and x.shape[1] % groups == 0
        fix = f"It looks channels-first: use x.transpose{(0, *range(2, x.ndim), 1)}." if first else "Use a divisor."
        raise ValueError(f"group_norm: groups must divide the channels of x {x.shape}, got groups={groups}. {fix}")
    return _normalised("group_norm", x, scale, bias, partial(_mean_of_groups, groups), eps)


def instance_norm(
    x: Float[Array, "N *spatial C"],
    scale: Float[Array, "C"] | None = None,
    bias: Float[Array, "C"] | None = None,
    *,
    eps: float = 1e-6,
) -> Float[Array, "N *spatial C"]:
    """Standardise every channel over the picture.

    `group_norm` with one channel a group: contrast goes, style transfer's purpose. What the channel's mean and
    spread said goes too; to keep it, use fewer groups. It remembers nothing: what PyTorch does with
    `use_input_stats=False` is `batch_norm` with train=False.

    y = (x - m) / sqrt(v + eps) * scale + bias, with the mean m and biased variance v over the spatial axes

    Args:
        x: (N, *spatial, C), floating, with at least one spatial axis.
        scale: (C,), or None for 1.
        bias: (C,), or None for 0.
        eps: as in `group_norm`.

    Returns:
        The shape and dtype of x. A single pixel becomes its bias; PyTorch refuses it.

    Raises:
        TypeError: an integer or complex array.
        ValueError: x without spatial axes or pixels, or a scale or bias that is not (C,).

    Example:
        >>> x = jnp.array([[1.0, 100.0], [3.0, 500.0]]).reshape(1, 2, 2)
        >>> instance_norm(x, bias=jnp.array([0.0, 8.0]))[0].round(2)
        Array([[-1.,  7.],
               [ 1.,  9.]], dtype=float32)

    Source:
        Ulyanov, Vedaldi & Lempitsky 2016, "Instance Normalization: The Missing Ingredient for Fast Stylization",
        section 2; scale and bias as torch.nn.functional.instance_norm and ONNX's InstanceNormalization.
    """
    x = arguments.floating("instance_norm", "x", x)
    if x.ndim < 3:
        raise ValueError(
            f"instance_norm: x must be (N, *spatial, C) with a spatial axis, got shape {x.shape}."
            " Add a batch axis with x[None]."
        )
    arguments.batched("instance_norm", x, x.ndim - 2)
    return _normalised("instance_norm", x, scale, bias, _mean_of_channels, eps)


def _normalised(
    op: str, x: Array, scale: Array | None, bias: Array | None, mean: Callable[[Array], Array], eps: float
) -> Array:
    channels = (x.ndim - 1,)
    factor, shift = (parameter(op, *of, x, channels) for of in (("scale", scale), ("bias", bias)))
    return affine(standardise(arguments.wide(x), mean, eps), factor, shift).astype(x.dtype)


def _mean_of_channels(x: Array) -> Array:
    return x.mean(tuple(range(1, x.ndim - 1)), keepdims=True)


def _mean_of_groups(groups: int, x: Array) -> Array:
    # Channels first, groups of them then: with an axis of groups in x itself, XLA:CPU takes several times as long.
    means = _mean_of_channels(x)
    grouped = means.reshape(*means.shape[:-1], groups, means.shape[-1] // groups)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(means.shape)
