"""The normalisations as modules, against flax.nnx: same parameters, same initial values, same outputs."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax.nn import GroupNorm, InstanceNorm, LayerNorm, RMSNorm

PAIRS: dict[str, Any] = {
    "LayerNorm": (LayerNorm, nnx.LayerNorm, {}, {}),
    "RMSNorm": (RMSNorm, nnx.RMSNorm, {}, {}),
    "GroupNorm": (GroupNorm, nnx.GroupNorm, {"groups": 4}, {"num_groups": 4}),
    "InstanceNorm": (InstanceNorm, nnx.InstanceNorm, {}, {}),
}
every = pytest.mark.parametrize(("ours", "theirs", "options", "their_options"), list(PAIRS.values()), ids=list(PAIRS))


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def tree(module):
    return nnx.to_pure_dict(nnx.state(module))


@every
def test_equals_nnx_seed_by_seed(ours, theirs, options, their_options):
    """With initialisers that draw, too: the keys are used in the same order."""
    drawn: dict[str, Any] = {"scale_init": nnx.initializers.normal(1.0)}
    if ours is not RMSNorm:
        drawn["bias_init"] = nnx.initializers.normal(1.0)
    x = normal(2, 5, 6, 8)
    for initial in ({}, drawn):
        module = ours(8, **options, **initial, rngs=nnx.Rngs(7))
        stock = theirs(8, **their_options, **initial, rngs=nnx.Rngs(7))
        chex.assert_trees_all_equal(tree(module), tree(stock))
        np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)


@every
def test_a_state_tree_moves_from_nnx(ours, theirs, options, their_options):
    source, module = theirs(8, **their_options, rngs=nnx.Rngs(3)), ours(8, **options, rngs=nnx.Rngs(4))
    state = jax.tree.map(lambda leaf: normal(*leaf.shape), nnx.state(source))
    nnx.update(source, state)
    nnx.update(module, state)
    x = normal(2, 5, 8, seed=1)
    np.testing.assert_allclose(module(x), source(x), rtol=1e-5, atol=1e-5)


@every
def test_options_equal_those_of_nnx(ours, theirs, options, their_options):
    without: dict[str, Any] = {"use_scale": False}
    if ours is not RMSNorm:
        without["use_bias"] = False
    module = ours(8, **options, **without, eps=0.1, rngs=nnx.Rngs(0))
    stock = theirs(8, **their_options, **without, epsilon=0.1, rngs=nnx.Rngs(0))
    assert tree(module) == tree(stock) == {}
    x = normal(2, 5, 8)
    np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)


def test_the_default_of_32_groups_is_that_of_nnx():
    x = normal(2, 5, 64)
    np.testing.assert_allclose(
        GroupNorm(64, rngs=nnx.Rngs(0))(x), nnx.GroupNorm(64, rngs=nnx.Rngs(0))(x), rtol=1e-5, atol=1e-5
    )


def test_several_axes():
    x = normal(2, 4, 5, 3)
    module = LayerNorm((4, 5, 3), axis=(1, 2, 3), use_bias=False, rngs=nnx.Rngs(0))
    assert jax.tree.map(jnp.shape, tree(module)) == {"scale": (4, 5, 3)}
    stock = nnx.LayerNorm(3, reduction_axes=(1, 2, 3), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(GroupNorm(3, groups=1, rngs=nnx.Rngs(0))(x), stock(x), rtol=1e-5, atol=1e-5)
    root = nnx.RMSNorm(3, reduction_axes=(1, 2), feature_axes=-1, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(RMSNorm((4, 5), axis=(1, 2), rngs=nnx.Rngs(0))(x), root(x), rtol=1e-5, atol=1e-5)


@every
def test_dtypes(ours, theirs, options, their_options):
    x = normal(2, 5, 8)
    assert ours(8, **options, rngs=nnx.Rngs(0))(x.astype("bfloat16")).dtype == "float32"
    assert ours(8, **options, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x).dtype == "bfloat16"
    half = ours(8, **options, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert half.scale[...].dtype == half(x.astype("bfloat16")).dtype == "bfloat16"


@every
def test_called_like_a_model_and_trained(ours, theirs, options, their_options):
    """Training changes nothing, and every parameter has a gradient."""
    module, x = ours(8, **options, rngs=nnx.Rngs(0)), normal(2, 5, 8)
    np.testing.assert_array_equal(module(x, train=True, key=jax.random.key(0)), module(x))
    graphdef, state = nnx.split(module)
    grads = jax.jit(jax.grad(lambda state: jnp.sum(nnx.merge(graphdef, state)(x) ** 3)))(state)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_errors_name_the_module_and_the_fix():
    with pytest.raises(ValueError, match="GroupNorm") as caught:
        GroupNorm(48, rngs=nnx.Rngs(0))
    assert str(caught.value) == "GroupNorm: groups must divide num_features, got groups=32 for 48. Use a divisor."
    with pytest.raises(ValueError, match=r"^GroupNorm: groups must divide num_features, got groups=0 for 48"):
        GroupNorm(48, groups=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^layer_norm: scale must be \(4,\), one value a channel of x \(2, 4\), got"):
        LayerNorm(3, rngs=nnx.Rngs(0))(jnp.ones((2, 4)))
