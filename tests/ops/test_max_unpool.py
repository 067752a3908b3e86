from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax.ops import max_pool2d_with_indices, max_unpool1d, max_unpool2d, max_unpool3d

UNPOOL: dict[int, Any] = {1: max_unpool1d, 2: max_unpool2d, 3: max_unpool3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


# Known values.


@pytest.mark.parametrize(
    ("indices", "window", "options", "expected"),
    [
        ([1, 2], 2, {}, [0, 7, 8, 0]),
        ([0, 3], 2, {}, [7, 0, 0, 8]),
        ([3, 0], 2, {}, [8, 0, 0, 7]),
        ([1, 2], 2, {"output_size": 5}, [0, 7, 8, 0, 0]),
        ([1, 2], 2, {"output_size": (3,)}, [0, 7, 8]),
        ([1, 3], 3, {"stride": 1}, [0, 7, 0, 8]),
        ([1, 3], 2, {"stride": 3}, [0, 7, 0, 8, 0]),
        ([0, 1], 2, {"padding": 1}, [7, 8]),
        ([0, 2], 3, {"padding": ((2, 1),)}, [7, 0, 8]),
        ([0, 4], 2, {}, [7, 0, 0, 0]),
        ([-1, 2], 2, {}, [0, 0, 8, 0]),
    ],
)
def test_series_by_hand(indices, window, options, expected):
    y = max_unpool1d(series(7, 8), series(*indices, dtype="int32"), window, **options)
    np.testing.assert_array_equal(y.ravel(), expected)


def test_every_channel_has_its_own_plane():
    x = jnp.array([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
    indices = jnp.array([[[[0, 5]]], [[[3, 2]]]])
    y = max_unpool2d(x, indices, (2, 3))
    expected = np.zeros((2, 2, 3, 2))
    expected[0, 0, 0, 0], expected[0, 1, 2, 1], expected[1, 1, 0, 0], expected[1, 0, 2, 1] = 1, 2, 3, 4
    np.testing.assert_array_equal(y, expected)
    volume = max_unpool3d(jnp.full((1, 1, 1, 1, 1), 5.0), jnp.full((1, 1, 1, 1, 1), 17), (2, 3, 4))
    np.testing.assert_array_equal(np.argwhere(volume), [[0, 1, 1, 1, 0]])


def test_both_readings_of_onnx_output_shape():
    """Its example, 5, 6, 7, 8 in an output of 5 by 5: from a plane of 4 by 4, and as ONNX Runtime has it."""
    x, indices = jnp.array([5.0, 6, 7, 8]).reshape(1, 2, 2, 1), jnp.array([5, 7, 13, 15]).reshape(1, 2, 2, 1)
    published, run = np.zeros((5, 5)), np.zeros((5, 5))
    published[1, 1], published[1, 3], published[3, 1], published[3, 3] = 5, 6, 7, 8
    run[1, 0], run[1, 2], run[2, 3], run[3, 0] = 5, 6, 7, 8
    np.testing.assert_array_equal(np.pad(max_unpool2d(x, indices, 2)[0, :, :, 0], (0, 1)), published)
    np.testing.assert_array_equal(max_unpool2d(x, indices, 2, output_size=5)[0, :, :, 0], run)


def test_a_pool_and_back():
    """All but the maxima is lost, and those stay where they were."""
    x = normal(0, 2, 7, 6, 3, dtype="float32")

    @jax.jit
    def pool(x):
        return max_pool2d_with_indices(x, 3, stride=2, padding=1)

    y, indices = pool(x)
    back = max_unpool2d(y, indices, 3, stride=2, padding=1, output_size=(7, 6))
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    np.testing.assert_array_equal(pool(jnp.where(back == 0, -9, back))[0], y)


# Against loops and libraries.


@pytest.mark.parametrize(
    ("rank", "window", "options"),
    [
        (1, 3, {"stride": 2}),
        (1, 2, {}),
        (2, 2, {}),
        (2, 3, {"stride": 2, "padding": 1}),
        (2, 3, {"stride": 1}),
        (2, 2, {"stride": 3, "ceil_mode": True}),
        (3, 3, {"stride": 2, "padding": 1}),
    ],
)
def test_against_torch(rank, window, options):
    """Where windows overlap, equal indices all receive the gradient."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = torch.tensor(normal(0, 2, 2, *(8, 7, 6)[:rank]))
    pool, unpool = (getattr(torch.nn.functional, f"{name}{rank}d") for name in ("max_pool", "max_unpool"))
    y, indices = pool(x, window, return_indices=True, **options)
    options = {name: value for name, value in options.items() if name != "ceil_mode"}
    size = tuple(x.shape[2:])
    places = last(indices).numpy()
    ours = value_and_grads(lambda y: UNPOOL[rank](y, places, window, output_size=size, **options), last(y).numpy())
    theirs = torch_value_and_grads(
        lambda y: last(unpool(first(y), indices, window, output_size=size, **options)), last(y).numpy()
    )
    assert_same(ours, theirs, 1e-15)


@st.composite
def calls(draw):
    """Rank, shape of x, window, options, and the size of the output by the formula."""
    rank = draw(st.integers(1, 3))

    def each(smallest, largest):
        return tuple(draw(st.integers(smallest, largest)) for _ in range(rank))

    spatial, window = each(1, (8, 5, 3)[rank - 1]), each(1, 4)
    stride = draw(st.none() | st.just(each(1, 3)))
    pairs = tuple(tuple(draw(st.integers(0, k // 2)) for _ in range(2)) for k in window)
    usual = tuple(
        (n - 1) * s + k - sum(pair) for n, s, k, pair in zip(spatial, stride or window, window, pairs, strict=True)
    )
    options: dict[str, Any] = {"stride": stride, "padding": pairs}
    if draw(st.booleans()):
        more = [draw(st.integers(1 - s, s - 1)) for s in stride or window]
        options["output_size"] = tuple(n + m for n, m in zip(usual, more, strict=True))
    return rank, (draw(st.integers(1, 2)), *spatial, draw(st.integers(1, 2))), window, options, usual


@drawn
@given(calls(), st.sampled_from(["float64", "float32", "bfloat16", "int8"]), st.integers(0, 2**32))
def test_any_call(call, dtype, seed):
    """Some indices lie outside, and some are equal: those bring equal values."""
    rank, shape, window, options, usual = call
    output = options.get("output_size", usual)
    rng = np.random.default_rng(seed)
    size, batch, channels = int(np.prod(output)), shape[0], shape[-1]
    with jax.enable_x64(True):
        if min(output) < 1:
            with pytest.raises(ValueError, match=r"the output must have pixels|output_size must be at least 1"):
                UNPOOL[rank](jnp.ones(shape), jnp.zeros(shape, int), window, **options)
            return
        indices = rng.integers(-2, size + 2, shape)
        content = np.asarray(jnp.asarray(rng.integers(-99, 99, (batch, size, channels)), dtype), np.float64)
        inside = (indices >= 0) & (indices < size)
        values, expected = np.full(shape, 5.0), np.zeros((batch, size, channels))
        for at in np.argwhere(inside):
            n, *_, c = at
            place = (n, indices[tuple(at)], c)
            values[tuple(at)] = expected[place] = content[place]
        x = jnp.asarray(values, dtype)
        places = jnp.asarray(indices, "int32" if seed % 2 else "int64")
        if "int" in dtype:
            y = jax.jit(lambda x: UNPOOL[rank](x, places, window, **options))(x)
        else:
            y, (gradient,) = value_and_grads(lambda x: UNPOOL[rank](x, places, window, **options), x)
            weights = weights_of(y.shape).astype(dtype).astype(float).reshape(batch, size, channels)
            n, c = np.arange(batch).reshape(-1, *(1,) * (rank + 1)), np.arange(channels)
            gathered = np.where(inside, weights[n, np.where(inside, indices, 0), c], 0)
            close("max_unpool", gradient, gathered, 0)
    assert y.dtype == dtype
    assert y.shape == (batch, *output, channels)
    close("max_unpool", y.reshape(expected.shape), expected, 0)


# Transformations.


@ways
def test_every_way(way):
    """Over values and indices both."""
    x = normal(0, 2, 3, 2, 2, dtype="float32")
    indices = np.random.default_rng(0).permuted(np.tile(np.arange(24), (2, 2, 1)), axis=-1)[..., :6]
    indices = indices.reshape(2, 2, 3, 2).transpose(0, 2, 3, 1).astype("int32")
    expected = np.zeros((2, 24, 2), "float32")
    n, c = np.arange(2)[:, None, None], np.arange(2)
    expected[n, indices.reshape(2, 6, 2), c] = x.reshape(2, 6, 2)
    y = way(lambda x, indices: max_unpool2d(x, indices, 2))(x, indices)
    np.testing.assert_array_equal(y, expected.reshape(2, 6, 4, 2))
    weights = weights_of(y.shape)
    gradient = way(jax.grad(lambda x, indices: jnp.sum(weights * max_unpool2d(x, indices, 2))))(x, indices)
    gathered = weights.reshape(2, 24, 2)[n, indices.reshape(2, 6, 2), c].reshape(x.shape)
    np.testing.assert_allclose(gradient, gathered, rtol=1e-6)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, 2, 3, 1))
        indices = jnp.array([[0, 7, 5], [23, -1, 99]]).reshape(1, 2, 3, 1)
        unpool = jax.jit(lambda x: jnp.sin(max_unpool2d(x, indices, 2)))
        check_grads(unpool, (x,), order=2, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, indices = normal(0, 1, 6, 2, dtype="float32"), jnp.array([3, 0, 5, 1, 4, 2]).reshape(1, 6, 1).repeat(2, 2)

    def layer(y):
        return jnp.tanh(max_unpool1d(y, indices, 1))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2)))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, indices):
        return max_unpool2d(x, indices, 2)

    for seed in range(3):
        run(normal(seed, 1, 2, 2, 1, dtype="float32"), jnp.full((1, 2, 2, 1), seed))


def test_integers_inside_a_derivative():
    indices = series(0, 2, dtype="int32")
    loss = jax.grad(lambda f: f * max_unpool1d((f * series(1, 3)).astype("int32"), indices, 2).sum())
    assert loss(2.0) == 8


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "uint8", "int32"])
@pytest.mark.parametrize("indices", ["int32", "int8", "uint8", "uint32"])
def test_dtypes(dtype, indices):
    y = max_unpool1d(series(7, 8, dtype=dtype), series(1, 127, dtype=indices), 2)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.ravel(), [0, 7, 0, 0])


def test_nan_and_infinity_go_to_their_place():
    y = max_unpool1d(series(jnp.nan, -jnp.inf), series(1, 2, dtype="int32"), 2)
    np.testing.assert_array_equal(y.ravel(), [0, jnp.nan, -jnp.inf, 0])


@ranks
def test_batch_of_none_and_no_channels(rank):
    for shape in [(0, *(3,) * rank, 2), (2, *(3,) * rank, 0)]:
        y, pull = jax.vjp(lambda x, shape=shape: UNPOOL[rank](x, jnp.zeros(shape, int), 2), jnp.ones(shape))
        assert y.shape == (shape[0], *(6,) * rank, shape[-1])
        assert pull(y)[0].shape == shape


# Errors.


X, INDICES = jnp.ones((1, 2, 3, 1)), jnp.zeros((1, 2, 3, 1), int)


@pytest.mark.parametrize(
    ("x", "indices", "options", "message"),
    [
        (X[0], INDICES, {}, "x must be (N, H, W, C), got shape (2, 3, 1). Add a batch axis with x[None]."),
        (
            X,
            INDICES[:, :1],
            {},
            "x (1, 2, 3, 1) needs an index for every value, got indices (1, 1, 3, 1).",
        ),
        (X, INDICES, {"window": 0}, "window must be at least 1, got 0."),
        (
            X,
            INDICES,
            {"stride": (1, 2, 3)},
            "stride takes one value an axis (2), got (1, 2, 3). Give an int for all axes.",
        ),
        (
            X,
            INDICES,
            {"padding": "SAME"},
            "padding must be the amounts of the pool, got 'SAME'. `shapes.padding_amounts` computes them.",
        ),
        (X, INDICES, {"padding": -1}, "padding must be at least 0, got -1."),
        (
            X,
            INDICES,
            {"padding": 2},
            "the output must have pixels, got (0, 2) from x of (2, 3), window (2, 2), stride (2, 2) and padding 2."
            " Pad less, or give output_size.",
        ),
        (
            X,
            INDICES,
            {"output_size": (4, 8)},
            "output_size must be off (4, 6) by less than the stride (2, 2), got (4, 8)."
            " Take the spatial shape that was pooled.",
        ),
        (
            X,
            INDICES,
            {"output_size": (1, 4, 6, 1)},
            "output_size takes one value an axis (2), got (1, 4, 6, 1). Give an int for all axes.",
        ),
    ],
)
def test_errors_word_for_word(x, indices, options, message):
    with pytest.raises(ValueError, match="max_unpool2d") as caught:
        max_unpool2d(x, indices, **{"window": 2, **options})
    assert str(caught.value) == f"max_unpool2d: {message}"


@ranks
def test_errors_of_type(rank):
    x = jnp.ones((1, *(4,) * rank, 1))
    with pytest.raises(TypeError, match=rf"^max_unpool{rank}d: x must be floating point or integer, got complex64"):
        UNPOOL[rank](x.astype("complex64"), x.astype(int), 2)
    with pytest.raises(TypeError) as caught:
        UNPOOL[rank](x, x, 2)
    assert str(caught.value) == (
        f"max_unpool{rank}d: indices must be integers, got float32. Take those of max_pool{rank}d_with_indices."
    )
