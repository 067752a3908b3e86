"""Weight standardisation: a kernel normalised instead of what it makes."""

from functools import partial

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._standardise import standardise


def weight_standardize(kernel: Float[Array, "*taken O"], *, eps: float = 1e-6) -> Float[Array, "*taken O"]:
    """Standardise the kernel of every output channel.

    Apply it to the kernel in each step, before the convolution, so that gradients flow through it; `group_norm`
    after the convolution makes it train as well as `batch_norm` in small batches. flax.nnx.WeightNorm is another
    thing: it divides by a norm, without centring.

    y = (kernel - m) / sqrt(v + eps), with the mean m and biased variance v of every output over all other axes

    Args:
        kernel: (*window, C_in // groups, C_out) of a convolution, or (C_in, C_out) of `dense`; floating. One value an
            output, as in a depthwise 1 x 1 kernel, leaves 0.
        eps: added to the variance, which is about 1 / fan-in in a fresh kernel.

    Returns:
        The shape and dtype of kernel, computed in float32 for half precision.

    Raises:
        TypeError: an integer or complex array.
        ValueError: a kernel of fewer than two axes, or without values for an output.

    Example:
        >>> weight_standardize(jnp.array([[1.0, 0.1], [2.0, 0.1], [3.0, 0.4]])).round(3)
        Array([[-1.225, -0.707],
               [ 0.   , -0.707],
               [ 1.225,  1.414]], dtype=float32)

    Source:
        Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization". What
        keeps the divisor from 0 differs: the paper adds eps to the biased deviation, its code 1e-5 to the unbiased
        one; under the root, as in timm, the gradient is finite for equal weights too. Brock et al. 2021,
        "High-Performance Large-Scale Image Recognition Without Normalization", divide by sqrt(fan-in) besides and
        learn a gain: gain * y / sqrt(fan-in).
    """
    kernel = arguments.floating("weight_standardize", "kernel", kernel)
    if kernel.ndim < 2 or 0 in kernel.shape[:-1]:
        raise ValueError(
            f"weight_standardize: kernel must be (*window, C_in // groups, C_out), got shape {kernel.shape}."
            " It has to hold weights to take the mean of."
        )
    mean = partial(jnp.mean, axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    return standardise(arguments.wide(kernel), mean, eps).astype(kernel.dtype)
