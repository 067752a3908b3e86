"""The modules against flax.nnx and against their ops."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from cnnjax.nn import (
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConv3d,
    LocalConv1d,
    LocalConv2d,
    SeparableConv1d,
    SeparableConv2d,
    SeparableConv3d,
)
from cnnjax.ops import local_conv2d, separable_conv2d

DEPTHWISE = {1: DepthwiseConv1d, 2: DepthwiseConv2d, 3: DepthwiseConv3d}
SEPARABLE = {1: SeparableConv1d, 2: SeparableConv2d, 3: SeparableConv3d}
LOCAL: dict[int, Any] = {1: LocalConv1d, 2: LocalConv2d}
SPATIAL = {1: (9,), 2: (7, 6), 3: (4, 5, 4)}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tree(module):
    return nnx.to_pure_dict(nnx.state(module))


def run(function, x):
    """One compilation instead of one an operation."""
    return jax.jit(lambda x: function(x))(x)


# Sampling compiles for a second a shape: one rank takes flax's default, others a cheaper one, and the rest none.
cheap, constant = {"kernel_init": nnx.initializers.uniform(1.0)}, {"kernel_init": nnx.initializers.ones_init()}


@pytest.mark.parametrize(
    ("rank", "ours", "theirs"),
    [
        (2, {"multiplier": 2}, {}),
        (1, {"stride": 2, "padding": "VALID", **cheap}, {"strides": 2, "padding": "VALID", **cheap}),
        (3, {"padding": "REFLECT", "dilation": 2, **cheap}, {"padding": "REFLECT", "kernel_dilation": 2, **cheap}),
    ],
)
def test_depthwise_equals_nnx_seed_by_seed(rank, ours, theirs):
    module = DEPTHWISE[rank](4, 2, **ours, rngs=nnx.Rngs(7))
    outputs = 4 * ours.get("multiplier", 1)
    stock = nnx.Conv(4, outputs, (2,) * rank, feature_group_count=4, **theirs, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(tree(module), tree(stock))
    x = normal(2, *SPATIAL[rank], 4)
    np.testing.assert_allclose(run(module, x), run(stock, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "init"), [(1, cheap), (2, {}), (3, cheap)])
def test_separable_equals_two_of_nnx_seed_by_seed(rank, init):
    options = {"padding": "CIRCULAR", "rngs": nnx.Rngs(7), **init}
    module, rngs = SEPARABLE[rank](3, 5, 2, multiplier=2, stride=2, **options), nnx.Rngs(7)
    theirs = {**options, "rngs": rngs, "strides": 2, "feature_group_count": 3, "use_bias": False}
    depthwise = nnx.Conv(3, 6, (2,) * rank, **theirs)
    pointwise = nnx.Conv(6, 5, (1,) * rank, rngs=rngs, **init)
    kernels = {"depthwise_kernel": tree(depthwise)["kernel"], "pointwise_kernel": tree(pointwise)["kernel"]}
    chex.assert_trees_all_equal(tree(module), {**kernels, "bias": tree(pointwise)["bias"]})
    x = normal(2, *SPATIAL[rank], 3)
    np.testing.assert_allclose(run(module, x), run(lambda x: pointwise(depthwise(x)), x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rank", "ours", "theirs"),
    [
        (2, {}, {}),
        (1, {"stride": 2, "padding": "VALID"}, {"strides": 2, "padding": "VALID"}),
        (2, {"dilation": 2, "padding": 1, "use_bias": False}, {"kernel_dilation": 2, "padding": 1, "use_bias": False}),
    ],
)
def test_local_takes_the_parameters_of_linen(rank, ours, theirs):
    x = normal(2, *SPATIAL[rank], 3)
    module = LOCAL[rank](3, 5, 3, input_size=SPATIAL[rank], **constant, **ours, rngs=nnx.Rngs(0))
    stock = linen.ConvLocal(5, (3,) * rank, **theirs)
    shapes = jax.eval_shape(stock.init, jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda leaf: normal(*leaf.shape, seed=leaf.size), shapes)
    chex.assert_trees_all_equal_shapes_and_dtypes(tree(module), params)
    nnx.update(module, params)
    theirs = run(lambda x: stock.apply({"params": params}, x), x)
    np.testing.assert_allclose(run(module, x), theirs, rtol=1e-4, atol=1e-5)


def test_local_outputs_are_as_large_as_those_of_a_convolution():
    """Not divided by the number of places, as under an initialiser that takes them for a window."""
    module = LocalConv2d(8, 16, 5, input_size=12, padding="VALID", rngs=nnx.Rngs(0))
    y = run(module, normal(16, 12, 12, 8))
    assert 0.9 < y.std() < 1.1
    assert 0.9 < float(module.kernel[...].std() * np.sqrt(8 * 25)) < 1.1


def make(name, **options):
    options = {**constant, "rngs": nnx.Rngs(0), **options}
    return {
        "depthwise": lambda: DepthwiseConv2d(3, 3, **options),
        "separable": lambda: SeparableConv2d(3, 3, 3, **options),
        "local": lambda: LocalConv2d(3, 3, 3, input_size=6, **options),
    }[name]()


kinds = pytest.mark.parametrize("name", ["depthwise", "separable", "local"])


@kinds
def test_dtypes(name):
    single, half = (jax.ShapeDtypeStruct((2, 6, 6, 3), dtype) for dtype in ("float32", "bfloat16"))
    assert jax.eval_shape(make(name), half).dtype == "float32"
    assert jax.eval_shape(make(name, dtype=jnp.bfloat16), single).dtype == "bfloat16"
    module = make(name, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree(module))} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(module, half).dtype == "bfloat16"


@kinds
def test_called_like_a_model(name):
    module, x = make(name), normal(2, 6, 6, 3)
    y = jax.eval_shape(lambda x: module(x, train=True, key=jax.random.key(0)), x)
    assert y.shape == x.shape
    assert "bias" not in tree(make(name, use_bias=False))


@kinds
def test_made_inside_a_traced_function(name):
    key = jax.random.key(7)
    shapes = jax.eval_shape(lambda key: tree(make(name, rngs=nnx.Rngs(key))), key)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, tree(make(name)))


def test_modules_call_their_ops_with_their_options():
    x, options = normal(1, 5, 6, 2), {"stride": (1, 2), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}
    separable = SeparableConv2d(2, 3, (3, 2), **constant, **options, rngs=nnx.Rngs(0))
    nnx.update(separable, jax.tree.map(lambda leaf: normal(*leaf.shape, seed=leaf.size), tree(separable)))
    values = [tree(separable)[name] for name in ("depthwise_kernel", "pointwise_kernel", "bias")]
    expected = run(lambda x: separable_conv2d(x, *values, **options), x)
    np.testing.assert_allclose(run(separable, x), expected, rtol=1e-5, atol=1e-5)
    local = LocalConv2d(2, 3, (3, 2), input_size=(5, 6), **constant, **options, rngs=nnx.Rngs(0))
    nnx.update(local, jax.tree.map(lambda leaf: normal(*leaf.shape, seed=leaf.size), tree(local)))
    values = [tree(local)[name] for name in ("kernel", "bias")]
    expected = run(lambda x: local_conv2d(x, *values, window=(3, 2), **options), x)
    np.testing.assert_allclose(run(local, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda r: DepthwiseConv2d(3, 3, multiplier=0, rngs=r),
            "DepthwiseConv2d: multiplier must be at least 1, got 0.",
        ),
        (lambda r: SeparableConv1d(0, 3, 3, rngs=r), "SeparableConv1d: in_features must be at least 1, got 0."),
        (
            lambda r: DepthwiseConv3d(3, (3, 3), rngs=r),
            "DepthwiseConv3d: kernel_size takes one value an axis (3), got (3, 3). Give an int for all axes.",
        ),
        (
            lambda r: LocalConv2d(3, 3, 3, input_size=(4, 2), padding="VALID", rngs=r),
            "LocalConv2d: kernel_size (3, 3) does not fit the padded input (4, 2) along W."
            " Pad, or use a smaller kernel_size.",
        ),
        (
            lambda r: LocalConv1d(3, 3, 3, input_size=8, rngs=r)(normal(1, 9, 3)),
            "local_conv1d: kernel must have one filter a place, (9,) for x (1, 9, 3), got shape (8, 9, 3)."
            " Resize x, or make the kernel for this size.",
        ),
    ],
)
def test_errors_name_the_module_and_the_fix(build, message):
    with pytest.raises(ValueError, match=r"must|takes|fit") as caught:
        build(nnx.Rngs(0))
    assert str(caught.value) == message
