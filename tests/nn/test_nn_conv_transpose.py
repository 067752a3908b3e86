"""The transposed convolutions as modules against flax.nnx, whose kernel lies flipped."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax.nn import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from cnnjax.ops import conv_transpose2d

MODULE: dict[int, Any] = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}
SPATIAL = {1: (5,), 2: (4, 3), 3: (3, 2, 3)}


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def tree(module):
    return nnx.to_pure_dict(nnx.state(module))


def converted(state, rank):
    """What the docstring says: the kernel flipped in space."""
    return {**state, "kernel": jnp.flip(state["kernel"], range(rank))}


@pytest.mark.parametrize(
    ("rank", "ours", "theirs"),
    [
        (2, {"stride": 2, "dilation": 2, "padding": 1}, {"strides": 2, "kernel_dilation": 2, "padding": 3}),
        (3, {"use_bias": False}, {"use_bias": False}),
    ],
)
def test_equals_nnx_seed_by_seed(rank, ours, theirs):
    """The same keys give the same values, once converted: so both compute the same."""
    module = MODULE[rank](4, 6, 3, **ours, rngs=nnx.Rngs(7))
    stock = nnx.ConvTranspose(4, 6, (3,) * rank, **theirs, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(tree(module), converted(tree(stock), rank))
    x = normal(2, *SPATIAL[rank], 4)
    np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_a_state_tree_moves_from_nnx(transpose_kernel):
    zeros = {"kernel_init": nnx.initializers.zeros_init(), "rngs": nnx.Rngs(3)}
    stock = nnx.ConvTranspose(4, 6, (3, 2), strides=2, transpose_kernel=transpose_kernel, **zeros)
    nnx.update(stock, jax.tree.map(lambda leaf: normal(*leaf.shape, seed=leaf.size), nnx.state(stock)))
    module = ConvTranspose2d(4, 6, (3, 2), stride=2, **zeros)
    state = tree(stock)
    kernel = state["kernel"]
    nnx.update(module, {**state, "kernel": kernel.swapaxes(2, 3) if transpose_kernel else kernel[::-1, ::-1]})
    x = normal(2, 4, 3, 4)
    np.testing.assert_allclose(module(x), stock(x), rtol=1e-5, atol=1e-5)


def test_made_inside_a_traced_function_it_has_the_same_values():
    def make(key):
        return tree(ConvTranspose2d(4, 6, 3, rngs=nnx.Rngs(key)))

    key = jax.random.key(7)
    chex.assert_trees_all_close(jax.jit(make)(key), make(key), rtol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(make, key), make(key))


@pytest.mark.parametrize("groups", [1, 64])
def test_groups_keep_the_spread_of_the_result(groups):
    """A sum over in_features // groups products of unit variance, with a kernel of that fan-in: variance 1."""
    module = ConvTranspose2d(64, 64, 3, groups=groups, rngs=nnx.Rngs(0))
    assert module.kernel.shape == (3, 3, 64, 64 // groups)
    assert 0.8 < module(normal(4, 8, 8, 64))[:, 1:-1, 1:-1].std() < 1.2


def test_initialisers_are_called_with_the_kernels_shape():
    def constant(key, shape, dtype):
        return jnp.arange(np.prod(shape), dtype=dtype).reshape(shape)

    module = ConvTranspose1d(4, 6, 3, groups=2, kernel_init=constant, bias_init=constant, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(module.kernel[...].ravel(), np.arange(3 * 4 * 3))
    assert module.bias is not None
    np.testing.assert_array_equal(module.bias[...], np.arange(6))


def test_module_calls_the_op_with_its_options():
    options = {"stride": (1, 2), "padding": ((1, 0), (0, 0)), "output_padding": (0, 1), "dilation": (2, 1), "groups": 2}
    module = ConvTranspose2d(2, 4, (3, 1), **options, rngs=nnx.Rngs(0))
    assert module.bias is not None
    module.bias[...] = jnp.arange(4.0)
    x, key = normal(1, 5, 5, 2), jax.random.key(0)
    expected = conv_transpose2d(x, module.kernel[...], module.bias[...], **options)
    np.testing.assert_array_equal(module(x), expected)
    np.testing.assert_array_equal(module(x, train=True, key=key), expected)


def test_dtypes():
    x = normal(2, 4, 4, 3)
    assert ConvTranspose2d(3, 4, 3, rngs=nnx.Rngs(0))(x.astype(jnp.bfloat16)).dtype == jnp.float32
    assert ConvTranspose2d(3, 4, 3, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)(x).dtype == jnp.bfloat16
    half = ConvTranspose2d(3, 4, 3, groups=1, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    assert half.kernel[...].dtype == jnp.bfloat16
    assert half(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_errors_name_the_module_and_the_fix():
    with pytest.raises(
        ValueError, match=r"ConvTranspose2d: groups must divide in_features and out_features, got groups=3"
    ):
        ConvTranspose2d(4, 6, 3, groups=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"ConvTranspose3d: kernel_size takes one value an axis \(3\), got \(3, 3\)"):
        ConvTranspose3d(4, 6, (3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"conv_transpose2d: x has 3 channels but kernel"):
        ConvTranspose2d(4, 6, 3, rngs=nnx.Rngs(0))(normal(1, 5, 5, 3))
