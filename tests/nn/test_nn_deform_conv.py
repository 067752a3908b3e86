"""The deformable convolution as a module: its parameters are those of a plain one."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax.nn import DeformConv2d
from cnnjax.ops import deform_conv2d


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def tree(module):
    return nnx.to_pure_dict(nnx.state(module))


def run(module, *args):
    """Compiled: op by op it takes ten times as long."""
    return jax.jit(lambda *args: module(*args))(*args)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"stride": 2, "groups": 2}, {"strides": 2, "feature_group_count": 2}),
        ({"padding": "VALID", "use_bias": False}, {"padding": "VALID", "use_bias": False}),
    ],
)
def test_without_offsets_it_is_nnx_seed_by_seed(ours, theirs):
    """flax.nnx has no deformable convolution: the same keys give the parameters of its plain one."""
    module, stock = DeformConv2d(4, 6, 3, **ours, rngs=nnx.Rngs(7)), nnx.Conv(4, 6, (3, 3), **theirs, rngs=nnx.Rngs(7))
    chex.assert_trees_all_equal(tree(module), tree(stock))
    x = normal(2, 6, 5, 4)
    y = stock(x)
    np.testing.assert_allclose(run(module, x, jnp.zeros((*y.shape[:3], 18))), y, rtol=1e-5, atol=1e-5)


def test_module_calls_the_op_with_its_options():
    options = {"stride": (1, 2), "padding": ((1, 0), (0, 0)), "dilation": (2, 1), "groups": 2, "offset_groups": 2}
    module = DeformConv2d(4, 6, (3, 1), **options, rngs=nnx.Rngs(0))
    assert module.bias is not None
    module.bias[...] = jnp.arange(6.0)
    x, offset, mask = normal(1, 5, 5, 4), normal(1, 2, 3, 12, seed=1), normal(1, 2, 3, 6, seed=2)
    op = functools.partial(deform_conv2d, **options)
    for weights in (None, mask):
        expected = jax.jit(op)(x, module.kernel[...], offset, weights, module.bias[...])
        np.testing.assert_array_equal(run(module, x, offset, weights), expected)
    noisy = functools.partial(module, train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(run(noisy, x, offset, mask), expected)


def test_offsets_are_learned():
    """Descending the gradient, offsets find the pixel that a picture was moved by."""
    module = DeformConv2d(1, 1, 1, rngs=nnx.Rngs(0), kernel_init=nnx.initializers.ones_init())
    x = jnp.exp(-((jnp.arange(9.0)[:, None] - 4) ** 2 + (jnp.arange(9.0) - 4) ** 2) / 8)[None, ..., None]
    target = jnp.roll(x, -1, axis=2)

    @jax.jit
    @jax.grad
    def gradient(offset):
        return jnp.sum((module(x, jnp.broadcast_to(offset, (1, 9, 9, 2))) - target) ** 2)

    offset = jnp.full(2, 0.1)
    for _ in range(40):
        offset -= 0.2 * gradient(offset)
    np.testing.assert_allclose(offset, [0, 1], atol=0.1)


def test_dtypes():
    x, offset, mask = normal(2, 4, 4, 3), normal(2, 4, 4, 18), normal(2, 4, 4, 9)
    half = x.astype(jnp.bfloat16)

    def dtype(x, **options):
        module = DeformConv2d(3, 4, 3, rngs=nnx.Rngs(0), **options)
        assert module.kernel[...].dtype == options.get("param_dtype", jnp.float32)
        return jax.eval_shape(lambda *args: module(*args), x, offset, mask).dtype

    assert dtype(half) == jnp.float32
    assert dtype(x, dtype=jnp.bfloat16) == jnp.bfloat16
    assert dtype(half, param_dtype=jnp.bfloat16) == jnp.bfloat16


def test_errors_name_the_module_and_the_fix():
    with pytest.raises(
        ValueError, match=r"DeformConv2d: groups must divide in_features and out_features, got groups=3"
    ):
        DeformConv2d(4, 6, 3, groups=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"deform_conv2d: x has 3 channels but kernel"):
        DeformConv2d(4, 6, 3, rngs=nnx.Rngs(0))(normal(1, 5, 5, 3), jnp.zeros((1, 5, 5, 18)))
