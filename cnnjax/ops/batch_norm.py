"""Normalisation by statistics of the activations."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from cnnjax.ops import _arguments as arguments


def batch_norm(
    x: Float[Array, "N *spatial C"],
    scale: Float[Array, "C"] | None,
    bias: Float[Array, "C"] | None,
    mean: Float[Array, "C"],
    var: Float[Array, "C"],
    *,
    train: bool,
    decay: float = 0.99,
    eps: float = 1e-5,
    axis_name: str | None = None,
) -> tuple[Float[Array, "N *spatial C"], Float[Array, "C"], Float[Array, "C"]]:
    """Standardise every channel, by its statistics over the batch or by remembered ones.

    In training the batch's mean and biased variance normalise x and move the remembered ones; in evaluation
    the remembered ones normalise x and stay. The variance is computed from centred values, in float32 for half
    precision: channels whose mean is large against their spread keep their digits.

    y = (x - m) / sqrt(v + eps) * scale + bias; in training mean' = decay * mean + (1 - decay) * m, var' alike

    Args:
        x: (N, *spatial, C), floating; (N, C) too.
        scale: (C,), or None for 1.
        bias: (C,), or None for 0.
        mean: (C,), the remembered mean.
        var: (C,), the remembered biased variance.
        train: which statistics to use; a Python bool.
        decay: share of the remembered statistics that is kept, in [0, 1] (PyTorch's momentum is 1 - decay).
        eps: added to the variance, above 0.
        axis_name: mapped axis of pmap, vmap or shard_map over which training statistics are averaged.

    Returns:
        (y, mean, var): y in the shape and dtype of x, the statistics to remember in theirs. A batch of 0 leaves
        them as they are.

    Raises:
        TypeError: an integer or complex x.
        ValueError: a vector that is not (C,), decay outside [0, 1], or eps not above 0.

    Example:
        >>> y, mean, var = batch_norm(
        ...     jnp.array([[1e4], [1e4 + 1], [1e4 + 2]]), None, None, jnp.zeros(1), jnp.ones(1), train=True
        ... )
        >>> y.ravel().round(3), mean.round()
        (Array([-1.225,  0.   ,  1.225], dtype=float32), Array([100.], dtype=float32))

    Source:
        Ioffe & Szegedy 2015, "Batch Normalization", algorithms 1 and 2. The biased variance is remembered, as in
        Flax, Keras and ONNX; PyTorch remembers the unbiased one.
    """
    x = arguments.floating("batch_norm", "x", x)
    _check(x, scale, bias, mean, var, decay, eps)
    if x.size == 0:
        return x, mean, var
    wide = arguments.wide(x)
    if train:
        m, v = _moments(wide, axis_name)
        mean = (decay * arguments.wide(mean) + (1 - decay) * m).astype(mean.dtype)
        var = (decay * arguments.wide(var) + (1 - decay) * v).astype(var.dtype)
    else:
        m, v = arguments.wide(mean), arguments.wide(var)
    factor = lax.rsqrt(v + eps) if scale is None else lax.rsqrt(v + eps) * arguments.wide(scale)
    y = _scaled(wide, m, factor) if train else (wide - m) * factor
    return (y if bias is None else y + arguments.wide(bias)).astype(x.dtype), mean, var


# The derivatives of training are written by hand, as tangents, so that forward mode stays. Transposed, they are two
# sums over the batch and one elementwise pass; what JAX derives by itself writes arrays of that size in between.


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _moments(x: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Mean and biased variance of every channel, in two passes: E[x²] - m² would cancel."""
    mean = _mean(x, axis_name)
    centre = _near(mean, bits=1)
    var = _mean(jnp.square(x - centre), axis_name) - jnp.square(mean - centre)
    return mean, jnp.maximum(var, 0)


@_moments.defjvp
def _(axis_name: str | None, primals: tuple[Array], tangents: tuple[Array]):
    (x,), (dx,) = primals, tangents
    mean, var = _moments(x, axis_name)
    return (mean, var), (_mean(dx, axis_name), 2 * _mean((x - mean) * dx, axis_name))


@jax.custom_jvp
def _scaled(x: Array, mean: Array, factor: Array) -> Array:
    return (x - mean) * factor


@_scaled.defjvp
def _(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]):
    (x, mean, factor), (dx, dmean, dfactor) = primals, tangents
    centre = _near(mean, bits=2)
    return _scaled(*primals), dx * factor + (x - centre) * dfactor + ((centre - mean) * dfactor - dmean * factor)


def _mean(x: Array, axis_name: str | None) -> Array:
    mean = x.mean(tuple(range(x.ndim - 1)))
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _near(mean: Array, *, bits: int) -> Array:
    """The mean without its last bits, a constant to sum around.

    XLA:CPU subtracts while it sums, unless the difference is wanted elsewhere: then it writes all of it to memory
    first. So every sum has a difference of its own.
    """
    kind = jnp.finfo(mean.dtype)
    return lax.stop_gradient(lax.reduce_precision(mean, kind.nexp, kind.nmant - bits))


def _check(
    x: Array, scale: Array | None, bias: Array | None, mean: Array, var: Array, decay: float, eps: float
) -> None:
    if x.ndim < 2:
        raise ValueError(f"batch_norm: x must be (N, *spatial, C), got shape {x.shape}. Add a batch axis with x[None].")
    for name, vector in {"scale": scale, "bias": bias, "mean": mean, "var": var}.items():
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ValueError(
                f"batch_norm: {name} must be ({x.shape[-1]},), one value a channel of x {x.shape}, got {vector.shape}."
            )
    if not 0 <= decay <= 1:
        raise ValueError(f"batch_norm: decay must be in [0, 1], got {decay}. It is the share that is kept.")
    if not eps > 0:
        raise ValueError(f"batch_norm: eps must be above 0, got {eps}. 1e-5 is usual.")
