"""spatial_dropout, drop_block2d and drop_path; dropout itself is in test_dropout.py."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from ops_helpers import normal, value_and_grads, weights_of

from cnnjax.ops.dropout import _without_blocks, drop_block2d, drop_path, spatial_dropout

KEY = jax.random.key(0)
SHAPE = (16, 4, 4, 2)
DROPS = {
    "spatial_dropout": spatial_dropout,
    "drop_block2d": functools.partial(drop_block2d, block_size=2),
    "drop_path": drop_path,
}
every = pytest.mark.parametrize(("name", "drop"), list(DROPS.items()), ids=list(DROPS))


def share(rate, block, spatial):
    """The probability of a seed: equation 1 of the paper, for each axis."""
    for b, n in zip(block, spatial, strict=True):
        rate = rate / b * n / (n - b + 1)
    return rate


def blocks(x, seeds, block):
    """What is zeroed, seed by seed, and the scale of the rest."""
    kept = np.ones(x.shape)
    for n, i, j, c in np.argwhere(seeds):
        kept[n, i : i + block[0], j : j + block[1], c] = 0
    return kept * kept.size / max(kept.sum(), 1)


# Statistics, with a fixed key: five standard deviations.


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("drop", "shape"), [(spatial_dropout, (200, 2, 3, 500)), (drop_path, (100_000, 3))])
def test_share_and_scale(drop, shape, rate):
    y = np.asarray(drop(KEY, jnp.ones(shape), rate=rate))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    together = (1, 2) if drop is spatial_dropout else (1,)
    assert (y.min(together) == y.max(together)).all()
    kept = y.max(together) > 0
    deviation = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)


def test_channels_and_examples_are_independent():
    kept = np.asarray(spatial_dropout(KEY, jnp.ones((300, 1, 300)), rate=0.5))[:, 0] > 0
    for axis in range(2):
        assert abs((kept == np.roll(kept, 1, axis)).mean() - 0.5) < 5 * np.sqrt(0.25 / kept.size)
    kept = np.asarray(drop_path(KEY, jnp.ones(90_000), rate=0.5)) > 0
    assert abs((kept == np.roll(kept, 1)).mean() - 0.5) < 5 * np.sqrt(0.25 / kept.size)


@pytest.mark.parametrize(
    ("rate", "block", "spatial"), [(0.2, (3, 3), (8, 8)), (0.5, (2, 4), (5, 7)), (1, (2, 2), (4, 4))]
)
def test_every_pixel_is_zeroed_as_often_as_blocks_cover_it(rate, block, spatial):
    """One minus the probability that none of the places that cover it holds a seed."""
    pictures = 10_000
    y = np.asarray(drop_block2d(KEY, jnp.ones((100, *spatial, 100)), rate=rate, block_size=block))
    places = [n - b + 1 for n, b in zip(spatial, block, strict=True)]
    covers = np.zeros(spatial)
    for i, j in np.ndindex(*places):
        covers[i : i + block[0], j : j + block[1]] += 1
    expected = (1 - share(rate, block, spatial)) ** covers
    kept = (y > 0).mean((0, 3))
    assert (abs(kept - expected) < 5 * np.sqrt(expected * (1 - expected) / pictures)).all()
    np.testing.assert_allclose(y.mean(dtype=float), 1, rtol=1e-5)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (y > 0).mean()], rtol=1e-5)


def test_small_rates_zero_that_share():
    """Where blocks hardly meet, what is zeroed is the rate; a picture is zeroed whole or not, so count pictures."""
    pictures, rate = 100_000, 0.01
    y = np.asarray(drop_block2d(KEY, jnp.ones((100, 3, 3, 1000)), rate=rate, block_size=3))
    assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / pictures)


def test_blocks_of_channels_and_examples_are_independent():
    """Of the same size as the picture, they are coins."""
    kept = np.asarray(drop_block2d(KEY, jnp.ones((300, 2, 2, 300)), rate=0.5, block_size=2))[:, 0, 0] > 0
    for axis in range(2):
        assert abs((kept == np.roll(kept, 1, axis)).mean() - 0.5) < 5 * np.sqrt(0.25 / kept.size)


# Masks.


@st.composite
def configurations(draw):
    block = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    spatial = tuple(b + draw(st.integers(0, 5)) for b in block)
    return {
        "shape": (draw(st.integers(1, 3)), *spatial, draw(st.integers(1, 3))),
        "block": block,
        "share": draw(st.sampled_from([0.05, 0.1, 0.3, 0.6])),
        "dtype": draw(st.sampled_from(["float64", "float32", "bfloat16"])),
        "seed": draw(st.integers(0, 2**16)),
    }


@drawn
@given(configurations())
def test_random_blocks_against_loops(case):
    """Given where their seeds are, so that the loops need no key."""
    (n, *spatial, c), block, dtype = case["shape"], case["block"], case["dtype"]
    x = normal(case["seed"], *case["shape"], dtype=dtype)
    places = [size - b + 1 for size, b in zip(spatial, block, strict=True)]
    seeds = np.random.default_rng(case["seed"]).random((n, *places, c)) < case["share"]
    y, (gradient,) = value_and_grads(lambda x: _without_blocks(x, jnp.asarray(seeds), block), x)
    assert y.dtype == gradient.dtype == dtype
    mask, weights = blocks(x, seeds, block), weights_of(x.shape).astype(dtype).astype("float64")
    tolerance = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 1e-2}[dtype]
    close(f"drop_block2d, {dtype}", y, x.astype("float64") * mask, tolerance)
    close(f"drop_block2d, {dtype}", gradient, weights * mask, tolerance)


@pytest.mark.parametrize(("rate", "block", "shape"), [(0.3, (2, 3), (2, 5, 4, 3)), (1, (1, 1), (2, 2, 3, 1))])
def test_seeds_from_the_key(rate, block, shape):
    """One a place where the block fits, for every channel of every example, with the paper's probability."""
    places = [size - b + 1 for size, b in zip(shape[1:-1], block, strict=True)]
    seeds = jax.random.bernoulli(KEY, share(rate, block, shape[1:-1]), (shape[0], *places, shape[-1]))
    x = normal(0, *shape, dtype="float32")
    y = drop_block2d(KEY, x, rate=rate, block_size=block)
    np.testing.assert_allclose(y, x * blocks(x, np.asarray(seeds), block), rtol=1e-5)


@pytest.mark.parametrize("block", [2, (2, 2), [2, 2], np.int64(2)])
def test_the_ways_to_write_a_block_agree(block):
    x = jnp.ones((2, 5, 6, 3))
    expected = drop_block2d(KEY, x, rate=0.3, block_size=2)
    assert 0 < (expected == 0).mean() < 0.5
    np.testing.assert_array_equal(drop_block2d(KEY, x, rate=0.3, block_size=block), expected)


def test_one_call_of_reduce_window():
    jaxpr = str(jax.make_jaxpr(lambda x: drop_block2d(KEY, x, rate=0.3, block_size=3))(jnp.ones((2, 5, 6, 3))))
    assert jaxpr.count("reduce_window_max[") == jaxpr.count("reduce_window") == 1


def test_nothing_is_kept():
    """Of pictures as small as the block, with a rate of 1: nothing, and no division by it."""
    y, pull = jax.vjp(lambda x: drop_block2d(KEY, x, rate=1, block_size=3), jnp.ones((2, 3, 3, 2)))
    np.testing.assert_array_equal(y, np.zeros((2, 3, 3, 2)))
    np.testing.assert_array_equal(pull(y + 1)[0], np.zeros((2, 3, 3, 2)))


# What all three do.


@every
def test_same_key_same_mask(name, drop):
    x = jnp.ones(SHAPE)
    y = drop(KEY, x, rate=0.5)
    np.testing.assert_array_equal(y, drop(KEY, x, rate=0.5))
    np.testing.assert_allclose(y, drop(KEY, 3 * x, rate=0.5) / 3, rtol=1e-6)
    np.testing.assert_array_equal(y, drop(jax.random.PRNGKey(0), x, rate=0.5))
    assert not (y == drop(jax.random.key(1), x, rate=0.5)).all()


@every
@pytest.mark.parametrize("rate", [0, 0.0])
def test_rate_of_nothing(name, drop, rate):
    x = normal(0, 3, 4, 4, 2, dtype="float32")
    y, pull = jax.vjp(lambda x: drop(KEY, x, rate=rate), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], jnp.ones_like(y))


@pytest.mark.parametrize("drop", [spatial_dropout, drop_path])
def test_rate_of_everything(drop):
    y, pull = jax.vjp(lambda x: drop(KEY, x, rate=1), jnp.full((2, 3, 4), jnp.nan))
    np.testing.assert_array_equal(y, np.zeros((2, 3, 4)))
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], np.zeros((2, 3, 4)))


@every
def test_every_way(name, drop):
    x, keys = normal(0, 3, *SHAPE, dtype="float32"), jax.random.split(KEY, 3)
    run = functools.partial(drop, rate=0.5)
    np.testing.assert_allclose(jax.jit(run)(KEY, x[0]), run(KEY, x[0]), rtol=1e-6)
    together = jax.vmap(run)(keys, x)
    for key, one, y in zip(keys, x, together, strict=True):
        np.testing.assert_allclose(y, run(key, one), rtol=1e-6)
    shared = jax.vmap(run, (None, 0))(KEY, x)
    np.testing.assert_allclose(shared[2], run(KEY, x[2]), rtol=1e-6)


@every
def test_gradient_is_the_mask(name, drop):
    x = normal(0, *SHAPE, dtype="float32")
    mask, run = drop(KEY, jnp.ones_like(x), rate=0.5), functools.partial(drop, KEY, rate=0.5)
    y, pull = jax.vjp(run, x)
    np.testing.assert_allclose(y, x * mask, rtol=1e-6)
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], mask)
    np.testing.assert_allclose(jax.jvp(run, (x,), (x,))[1], y, rtol=1e-6)


@every
def test_checkpoint_and_scan(name, drop):
    x, keys = normal(0, *SHAPE, dtype="float32"), jax.random.split(KEY, 3)

    def layer(x, key):
        return jnp.sin(drop(key, x, rate=0.5)), None

    def loop(x):
        for i in range(len(keys)):  # keys know no iteration under jit
            x, _ = layer(x, keys[i])
        return jnp.sum(x)

    def scanned(x):
        return jnp.sum(lax.scan(jax.checkpoint(layer), x, keys)[0])

    ours, theirs = (jax.jit(jax.value_and_grad(function))(x) for function in (scanned, loop))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, x):
        return [drop(key, x, rate=0.5) for drop in DROPS.values()]

    for seed in range(3):
        run(jax.random.key(seed), normal(seed, *SHAPE, dtype="float32"))


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_is_kept(name, drop, dtype):
    y, pull = jax.vjp(lambda x: drop(KEY, x, rate=0.5), jnp.ones(SHAPE, dtype))
    assert y.dtype == pull(y)[0].dtype == dtype


@every
@pytest.mark.parametrize("rate", [0, 0.5, 1])
@pytest.mark.parametrize("shape", [(0, 3, 3, 2), (1, 3, 3, 2), (2, 3, 3, 0)])
def test_odd_shapes(name, drop, shape, rate):
    assert drop(KEY, jnp.ones(shape), rate=rate).shape == shape


def test_any_rank():
    for spatial in [(5,), (1, 2, 1, 2)]:
        y = np.asarray(spatial_dropout(KEY, jnp.ones((9, *spatial, 7)), rate=0.5)).reshape(9, -1, 7)
        np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
        assert 0 < (y == 0).mean() < 1
    y = np.asarray(drop_path(KEY, jnp.ones((64, 2, 3, 4, 5)), rate=0.5)).reshape(64, -1)
    np.testing.assert_array_equal(y[:, -1], drop_path(KEY, jnp.ones(64), rate=0.5))


# Errors.


@every
@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_bad_rates(name, drop, rate):
    with pytest.raises(ValueError, match=name) as caught:
        drop(KEY, jnp.ones((2, 4, 4, 1)), rate=rate)
    assert str(caught.value) == f"{name}: rate must be in [0, 1], got {rate}. It is the share that is zeroed."


@every
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_are_refused(name, drop, dtype):
    with pytest.raises(TypeError, match=name) as caught:
        drop(KEY, jnp.ones((2, 4, 4, 1), dtype), rate=0.5)
    assert str(caught.value) == f"{name}: x must be floating point, got {dtype}. Cast it with x.astype('float32')."


@pytest.mark.parametrize(
    ("drop", "shape", "message"),
    [
        (
            spatial_dropout,
            (4, 3),
            "spatial_dropout: x must be (N, *spatial, C) with a spatial axis, got shape (4, 3)."
            " Add a batch axis with x[None], or use dropout.",
        ),
        (drop_path, (), "drop_path: x must be (N, ...), got shape (). Add a batch axis with x[None]."),
        (
            DROPS["drop_block2d"],
            (4, 4, 3),
            "drop_block2d: x must be (N, H, W, C), got shape (4, 4, 3). Add a batch axis with x[None].",
        ),
        (
            DROPS["drop_block2d"],
            (2, 4, 1, 3),
            "drop_block2d: block (2, 2) does not fit x (2, 4, 1, 3). Use a smaller block_size.",
        ),
        (
            DROPS["drop_block2d"],
            (2, 0, 4, 3),
            "drop_block2d: x must have pixels, got shape (2, 0, 4, 3). Only the batch axis may be empty.",
        ),
    ],
)
@pytest.mark.parametrize("rate", [0, 0.5])
def test_shapes_that_do_not_fit(drop, shape, message, rate):
    with pytest.raises(ValueError, match="drop") as caught:
        drop(KEY, jnp.ones(shape), rate=rate)
    assert str(caught.value) == message


def test_bad_blocks():
    x = jnp.ones((1, 4, 4, 1))
    with pytest.raises(ValueError, match=r"^drop_block2d: block_size must be at least 1, got 0"):
        drop_block2d(KEY, x, rate=0.1, block_size=0)
    with pytest.raises(ValueError, match=r"^drop_block2d: block_size takes one value an axis \(2\), got \(1, 2, 3\)"):
        drop_block2d(KEY, x, rate=0.1, block_size=(1, 2, 3))
    with pytest.raises(TypeError, match=r"^drop_block2d: block_size must be an int or 2 ints, got 1\.5"):
        drop_block2d(KEY, x, rate=0.1, block_size=1.5)  # pyright: ignore[reportArgumentType]
