"""Random dense layers, batch normalisations and global pools against NumPy: values and gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from ops_helpers import normal, value_and_grads, weights_of

from cnnjax import ops

# Of the largest number.
TOLERANCES = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 1e-2, "float16": 1.5e-3}

dtypes = st.sampled_from(list(TOLERANCES))
seeds = st.integers(0, 2**16)


def cotangent(shape, dtype):
    """The weights of `value_and_grads`, as that dtype holds them."""
    return weights_of(shape).astype(dtype).astype("float64")


# Dense.


@drawn
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 6), st.integers(1, 5), st.booleans(), dtypes, seeds)
def test_random_dense(leading, inputs, outputs, with_bias, dtype, seed):
    shapes = [(*leading, inputs), (inputs, outputs), (outputs,)][: 2 + with_bias]
    args = [normal(seed + i, *shape).astype(dtype) for i, shape in enumerate(shapes)]
    y, grads = value_and_grads(ops.dense, *args)
    assert y.shape == (*leading, outputs)
    assert {y.dtype, *(grad.dtype for grad in grads)} == {np.dtype(dtype)}
    x, kernel, *bias = (arg.astype("float64") for arg in args)
    close(f"dense {dtype}", y, x @ kernel + sum(bias), TOLERANCES[dtype])
    weights = cotangent(y.shape, dtype)
    rows, row_weights = x.reshape(-1, inputs), weights.reshape(-1, outputs)
    expected = [weights @ kernel.T, rows.T @ row_weights, row_weights.sum(0)]
    for grad, their in zip(grads, expected[: len(grads)], strict=True):
        close(f"dense's gradients {dtype}", grad, their, TOLERANCES[dtype])


# Batch normalisation.


def batch_norm_reference(x, parameters, weights, train, decay, eps):
    """(y, mean, var), and the gradients of the weighted sum of y with respect to x and the parameters given."""
    channels = x.shape[-1]
    values, weights = x.reshape(-1, channels), weights.reshape(-1, channels)
    scale, bias = parameters.get("scale", np.ones(channels)), parameters.get("bias", np.zeros(channels))
    mean, var = parameters["mean"], parameters["var"]
    m, v = (values.mean(0), values.var(0)) if train else (mean, var)
    root = np.sqrt(v + eps)
    z = (values - m) / root
    pushed = weights * scale
    grads = {"x": pushed / root, "scale": (weights * z).sum(0), "bias": weights.sum(0)}
    if train:
        grads["x"] = (pushed - pushed.mean(0) - z * (pushed * z).mean(0)) / root
        mean, var = decay * mean + (1 - decay) * m, decay * var + (1 - decay) * v
        grads |= {"mean": np.zeros(channels), "var": np.zeros(channels)}
    else:
        grads |= {"mean": -(pushed / root).sum(0), "var": -(pushed * z).sum(0) / (2 * root**2)}
    return (z * scale + bias).reshape(x.shape), mean, var, {**grads, "x": grads["x"].reshape(x.shape)}


@drawn
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sets(st.sampled_from(["scale", "bias"])),
    st.booleans(),
    st.sampled_from([0, 0.25, 0.9, 1]),
    st.sampled_from([1e-5, 1e-3, 0.1]),
    st.sampled_from([0, 3, 100]),
    dtypes,
    seeds,
)
def test_random_batch_norms(leading, channels, given_vectors, train, decay, eps, offset, dtype, seed):
    """Statistics and parameters are float32 beside half precision; a large mean costs its share of x's digits."""
    wide = "float64" if dtype == "float64" else "float32"
    x = (normal(seed, *leading, channels) + offset).astype(dtype)
    names = [name for name in ("scale", "bias") if name in given_vectors]
    parameters = {name: normal(seed + 1 + i, channels).astype(wide) for i, name in enumerate([*names, "mean", "var"])}
    parameters["var"] = parameters["var"] ** 2 + np.asarray(0.5, wide)

    @jax.jit
    def run(x, parameters, weights):
        def norm(x, parameters):
            y, *kept = ops.batch_norm(
                x,
                parameters.get("scale"),
                parameters.get("bias"),
                parameters["mean"],
                parameters["var"],
                train=train,
                decay=decay,
                eps=eps,
            )
            return y, kept

        y, pull, kept = jax.vjp(norm, x, parameters, has_aux=True)
        return y, kept, pull(weights)

    with jax.enable_x64(True):
        weights = jnp.asarray(weights_of(x.shape), dtype)
        y, kept, (to_x, to_parameters) = run(x, parameters, weights)
    assert y.dtype == to_x.dtype == dtype
    assert {array.dtype for array in [*kept, *to_parameters.values()]} == {np.dtype(wide)}
    exact = {name: value.astype("float64") for name, value in parameters.items()}
    *expected, grads = batch_norm_reference(
        x.astype("float64"), exact, np.asarray(weights, "float64"), train, decay, eps
    )
    # In float32, x around 100 with a spread of 1 is known to 1e-7 * 100 spreads, and a spread may be small.
    tolerance = {"float64": 1e-11, "float32": 1e-3}.get(dtype, TOLERANCES[dtype])
    close(f"batch_norm {dtype}", y, expected[0], tolerance)
    for ours, theirs in zip(kept, expected[1:], strict=True):
        close("batch_norm's statistics", ours, theirs, 1e-5)
    if train and dtype == "float32":
        # A mean of 100 is known to 4e-6, and the gradient to as much over a variance, which may be smaller still.
        tolerance += 4e-8 * offset / (x.astype("float64").var(tuple(range(len(leading)))).min() + eps)
    close(f"batch_norm's gradient {dtype}", to_x, grads["x"], tolerance)
    for name, ours in to_parameters.items():
        close("batch_norm's gradients of parameters", ours, grads[name], 1e-3)


# Global pools.

pictures = st.tuples(st.integers(0, 2), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 3)).map(
    lambda parts: (parts[0], *parts[1], parts[2])
)


@drawn
@given(pictures, dtypes, seeds)
def test_random_global_avg_pools(shape, dtype, seed):
    x = normal(seed, *shape).astype(dtype)
    y, (gradient,) = value_and_grads(ops.global_avg_pool, x)
    axes = tuple(range(1, x.ndim - 1))
    assert y.dtype == gradient.dtype == dtype
    close(f"global_avg_pool {dtype}", y, x.astype("float64").mean(axes), TOLERANCES[dtype])
    weights = np.expand_dims(cotangent(y.shape, dtype), axes)
    expected = np.broadcast_to(weights, shape) / math.prod(shape[1:-1])
    close(f"global_avg_pool's gradient {dtype}", gradient, expected, TOLERANCES[dtype])


@drawn
@given(pictures, dtypes, st.booleans(), seeds)
def test_random_global_max_pools(shape, dtype, with_nan, seed):
    """The gradient goes to the first of equal maxima; where NaN gives it is left open."""
    x = np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)
    if with_nan and x.size:
        x.reshape(-1)[seed % x.size] = np.nan
    y, (gradient,) = value_and_grads(ops.global_max_pool, x)
    flat = x.astype("float64").reshape(shape[0], math.prod(shape[1:-1]), shape[-1])
    assert y.dtype == gradient.dtype == dtype
    close("global_max_pool", y, flat.max(1), 0)
    if not with_nan:
        expected = np.zeros_like(flat)
        np.put_along_axis(expected, flat.argmax(1)[:, None], cotangent(y.shape, dtype)[:, None], 1)
        close("global_max_pool's gradient", gradient, expected.reshape(shape), 0)
