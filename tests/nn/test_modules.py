"""The modules against flax.nnx: same parameters, same initial values, same outputs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import nn, ops

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SPATIAL = {1: (11,), 2: (9, 7), 3: (6, 5, 7)}


def normal(*shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def tree(module):
    return nnx.to_pure_dict(nnx.state(module))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"stride": 2, "padding": "VALID"}, {"strides": 2, "padding": "VALID"}),
        ({"dilation": 2, "groups": 2}, {"kernel_dilation": 2, "feature_group_count": 2}),
        ({"padding": 1, "use_bias": False}, {"padding": 1, "use_bias": False}),
        ({"padding": "CIRCULAR"}, {"padding": "CIRCULAR"}),
        ({"padding": "REFLECT", "stride": 2}, {"padding": "REFLECT", "strides": 2}),
    ],
)
def test_conv_equals_nnx_seed_by_seed(rank, ours, theirs):
    window = (3,) * rank
    module = CONV[rank](4, 6, 3, **ours, rngs=nnx.Rngs(7))
    stock = nnx.Conv(4, 6, window, **theirs, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(tree(module), tree(stock))
    x = normal(2, *SPATIAL[rank], 4)
    np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)


def test_a_module_made_inside_a_traced_function_has_the_same_values():
    def make(key):
        return tree(nn.Conv2d(4, 6, 3, rngs=nnx.Rngs(key)))

    key = jax.random.key(7)
    chex.assert_trees_all_close(jax.jit(make)(key), make(key), rtol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(make, key), make(key))


def test_causal_conv_equals_nnx():
    module = nn.Conv1d(4, 6, 3, dilation=2, padding="CAUSAL", rngs=nnx.Rngs(7))
    stock = nnx.Conv(4, 6, (3,), kernel_dilation=2, padding="CAUSAL", rngs=nnx.Rngs(7))
    x = normal(2, 11, 4)
    np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "stock", "x"),
    [
        (lambda r: nn.Conv2d(3, 5, 3, rngs=r), lambda r: nnx.Conv(3, 5, (3, 3), rngs=r), (2, 6, 6, 3)),
        (lambda r: nn.Dense(3, 5, rngs=r), lambda r: nnx.Linear(3, 5, rngs=r), (2, 4, 3)),
        (lambda r: nn.BatchNorm(3, rngs=r), lambda r: nnx.BatchNorm(3, use_running_average=True, rngs=r), (2, 6, 3)),
    ],
)
def test_a_state_tree_moves_from_nnx(ours, stock, x):
    source = stock(nnx.Rngs(3))
    # Values that no initialiser gives, so that nothing passes by having the same defaults.
    state = jax.tree.map(lambda leaf: normal(*leaf.shape, seed=leaf.size) ** 2 + 0.5, nnx.state(source))
    nnx.update(source, state)
    module = ours(nnx.Rngs(4))
    nnx.update(module, state)
    x = normal(*x)
    np.testing.assert_allclose(module(x), source(x), rtol=1e-5, atol=1e-5)


def test_batch_norm_trains_as_nnx():
    module, stock = nn.BatchNorm(3, decay=0.8, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, momentum=0.8, rngs=nnx.Rngs(0))
    x = normal(4, 5, 3)
    for seed in range(3):
        x = normal(4, 5, 3, seed=seed) * 2 + 1
        np.testing.assert_allclose(module(x, train=True), stock(x), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(tree(module), tree(stock), rtol=1e-4)
    np.testing.assert_allclose(module(x), stock(x, use_running_average=True), rtol=1e-4, atol=1e-5)


def test_batch_norm_without_parameters_owns_none():
    module = nn.BatchNorm(3, use_scale=False, use_bias=False, rngs=nnx.Rngs(0))
    assert sorted(tree(module)) == ["mean", "var"]
    assert module(normal(2, 3)).shape == (2, 3)


def test_batch_norm_evaluates_without_changing():
    module = nn.BatchNorm(3, rngs=nnx.Rngs(0))
    before = tree(module)
    module(normal(4, 3) + 9)
    chex.assert_trees_all_equal(tree(module), before)


@pytest.mark.parametrize("make", [lambda **k: nn.Conv2d(3, 4, 3, **k), lambda **k: nn.Dense(3, 4, **k)])
def test_dtypes(make):
    x = normal(2, 6, 6, 3)
    assert make(rngs=nnx.Rngs(0))(x.astype(jnp.bfloat16)).dtype == jnp.float32
    assert make(rngs=nnx.Rngs(0), dtype=jnp.bfloat16)(x).dtype == jnp.bfloat16
    half = make(rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    assert half.kernel[...].dtype == jnp.bfloat16
    assert half(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_every_module_is_called_like_a_model():
    x, key = normal(2, 6, 6, 3), jax.random.key(0)
    for module in (
        nn.Conv2d(3, 3, 3, rngs=nnx.Rngs(0)),
        nn.BatchNorm(3, rngs=nnx.Rngs(0)),
        nn.Dense(3, 3, rngs=nnx.Rngs(0)),
    ):
        assert module(x, train=True, key=key).shape == x.shape


def test_module_calls_the_op_with_its_options():
    module = nn.Conv2d(2, 4, (3, 1), stride=(1, 2), padding=((1, 0), (0, 0)), groups=2, rngs=nnx.Rngs(0))
    assert module.bias is not None
    x = normal(1, 5, 5, 2)
    expected = ops.conv2d(x, module.kernel[...], module.bias[...], stride=(1, 2), padding=((1, 0), (0, 0)), groups=2)
    np.testing.assert_array_equal(module(x), expected)


def test_errors_name_the_module_and_the_fix():
    with pytest.raises(ValueError, match=r"Conv2d: groups must divide in_features and out_features, got groups=3"):
        nn.Conv2d(4, 6, 3, groups=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Conv3d: kernel_size takes one value an axis \(3\), got \(3, 3\)"):
        nn.Conv3d(4, 6, (3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"conv2d: x has 3 channels but kernel"):
        nn.Conv2d(4, 6, 3, rngs=nnx.Rngs(0))(normal(1, 5, 5, 3))
