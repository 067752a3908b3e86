from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax import ops

POOL: dict[int, Any] = {1: ops.avg_pool1d, 2: ops.avg_pool2d, 3: ops.avg_pool3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])
counts = pytest.mark.parametrize("count_include_pad", [True, False], ids=["all", "pixels"])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


# Known values.


@pytest.mark.parametrize(
    ("window", "options", "expected"),
    [
        (2, {}, [4, 1]),
        (2, {"stride": 1}, [4, 4, 1, 2]),
        (2, {"ceil_mode": True}, [4, 1, 4]),
        (2, {"padding": 1}, [1, 4, 2]),
        (2, {"padding": 1, "count_include_pad": False}, [2, 4, 2]),
        (2, {"padding": "SAME"}, [4, 1, 2]),
        (2, {"padding": "SAME", "count_include_pad": False}, [4, 1, 4]),
        (2, {"padding": "SAME_LOWER"}, [1, 4, 2]),
        (2, {"padding": "same_lower", "count_include_pad": False}, [2, 4, 2]),
        (2, {"padding": ((0, 1),), "stride": 2}, [4, 1, 2]),
        (2, {"dilation": 2, "stride": 1}, [2, 3, 3]),
        (2, {"dilation": 2, "stride": 2, "padding": (1,)}, [3, 3, 0]),
        (2, {"dilation": 2, "stride": 2, "padding": (1,), "count_include_pad": False}, [6, 3, 0]),
        (3, {"stride": 3, "padding": 1, "ceil_mode": True}, [8 / 3, 2]),
        (4, {"stride": 3, "ceil_mode": True}, [2.5, 2]),
    ],
)
def test_series_by_hand(window, options, expected):
    y = ops.avg_pool1d(series(2, 6, 2, 0, 4), window, **options)
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)


def test_overhang_never_counts():
    """Window [3, 4, 5, 6] of 5 pixels and one of padding: 5 counts, 6 is what ceil_mode added."""
    options = {"stride": 3, "padding": ((0, 1),), "ceil_mode": True}
    np.testing.assert_allclose(ops.avg_pool1d(series(2, 6, 2, 0, 4), 4, **options).ravel(), [2.5, 4 / 3], rtol=1e-6)
    y = ops.avg_pool1d(series(2, 6, 2, 0, 4), 4, **options, count_include_pad=False)
    np.testing.assert_allclose(y.ravel(), [2.5, 2], rtol=1e-6)


def test_picture_and_volume_by_hand():
    np.testing.assert_array_equal(
        ops.avg_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]]
    )
    assert ops.avg_pool3d(jnp.arange(27.0).reshape(1, 3, 3, 3, 1), 3).item() == 13


@counts
def test_constants_stay_where_pixels_count(count_include_pad):
    y = ops.avg_pool2d(jnp.full((1, 5, 5, 1), 3.0), 3, stride=1, padding="SAME", count_include_pad=count_include_pad)
    assert (y == 3).all() == (not count_include_pad)


# Against loops and libraries.


OPTIONS = {
    "plain": (2, {}),
    "stride": (3, {"stride": 2}),
    "gaps": (2, {"stride": 3}),
    "padding": (3, {"stride": 2, "padding": 1}),
    "ceil": (2, {"stride": 3, "ceil_mode": True}),
    "ceil and padding": (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "long strides": (4, {"stride": 3, "padding": 2, "ceil_mode": True}),
}


@ranks
@counts
@pytest.mark.parametrize("name", list(OPTIONS))
def test_against_torch(rank, name, count_include_pad):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    window, options = OPTIONS[name]
    options = {**options, "count_include_pad": count_include_pad}
    pool = getattr(functional, f"avg_pool{rank}d")
    x = normal(0, 2, *(8, 7, 6)[:rank], 2)
    ours = value_and_grads(lambda x: POOL[rank](x, window, **options), x)
    theirs = torch_value_and_grads(lambda x: last(pool(first(x), window, **options)), x)
    assert_same(ours, theirs)


def test_the_divisor_of_torch_is_a_factor():
    """What hangs over counts in PyTorch's override, so here it must be padding that was asked for."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x = normal(0, 2, 9, 8, 2)
    ours = value_and_grads(lambda x: ops.avg_pool2d(x, (4, 3), stride=(2, 3), padding=((1, 2), (1, 1))) * (12 / 5), x)
    options = {"stride": (2, 3), "padding": 1, "ceil_mode": True, "divisor_override": 5}
    for count_include_pad in (True, False):
        pool = partial(functional.avg_pool2d, kernel_size=(4, 3), count_include_pad=count_include_pad, **options)
        assert_same(ours, torch_value_and_grads(lambda x, pool=pool: last(pool(first(x))), x))


@ranks
@counts
@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
def test_same_and_valid_against_loops(rank, padding, count_include_pad):
    x = normal(0, 2, *(7, 6, 5)[:rank], 2, dtype="float32")
    for window, stride, dilation in [(3, 1, 1), (2, 2, 1), (3, 2, 2)]:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "count_include_pad": count_include_pad}
        expected = reference.avg_pool(x, window, **options)
        np.testing.assert_allclose(POOL[rank](x, window, **options), expected, rtol=1e-5, atol=1e-5)


def configuration(seed):
    """A random call. The window may not fit, or see padding alone."""
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 3]))
    spatial = [int(n) for n in rng.integers(1, (12, 8, 5)[rank - 1], rank)]
    window = tuple(int(n) for n in rng.integers(1, (6, 5, 4)[rank - 1], rank))
    pairs = [tuple(int(rng.integers(0, k // 2 + 1)) for _ in range(2)) for k in window]
    if rng.random() < 0.1:
        pairs = [(low, high + 1) for low, high in pairs]
    options = {
        "stride": None if rng.random() < 0.2 else tuple(int(n) for n in rng.integers(1, 4, rank)),
        "padding": str(rng.choice(["SAME", "SAME_LOWER", "VALID"])) if rng.random() < 0.5 else pairs,
        "dilation": tuple(int(n) for n in rng.integers(1, 3, rank)) if rng.random() < 0.5 else 1,
        "ceil_mode": bool(rng.random() < 0.5),
        "count_include_pad": bool(rng.random() < 0.5),
    }
    return rank, rng.normal(size=(int(rng.integers(1, 3)), *spatial, int(rng.integers(1, 3)))), window, options


def check_configuration(seed):
    """Against the loops: the value, and the gradient along a random direction (the mean is linear)."""
    rank, x, window, options = configuration(seed)
    spatial = x.shape[1:-1]
    windows, _ = reference.pool_windows(
        spatial, window, options["stride"], options["padding"], options["dilation"], options["ceil_mode"]
    )
    if not reference.legal(windows, spatial):
        with pytest.raises(ValueError, match=r"does not fit the padded input|every window must see a pixel"):
            POOL[rank](x, window, **options)
        return
    y, (gradient,) = value_and_grads(lambda x: POOL[rank](x, window, **options), x)
    expected = reference.avg_pool(x, window, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10, err_msg=str((seed, options)))
    dx = np.random.default_rng(seed).normal(size=x.shape)
    moved = np.vdot(weights_of(y.shape), reference.avg_pool(dx, window, **options))
    np.testing.assert_allclose(np.vdot(gradient, dx), moved, rtol=1e-10, atol=1e-10, err_msg=str((seed, options)))


@pytest.mark.parametrize("seed", range(60))
def test_sweep(seed):
    check_configuration(seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 11))
def test_long_sweep(hundred):
    for seed in range(100 * hundred, 100 * hundred + 100):
        check_configuration(seed)


# Transformations.


@ranks
@ways
def test_every_way(way, rank):
    x = normal(0, 2, *(6, 5, 4)[:rank], 2, dtype="float32")
    options = {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True, "count_include_pad": False}
    y = way(lambda x: POOL[rank](x, 2, **options))(x)
    np.testing.assert_allclose(y, reference.avg_pool(x, 2, **options), rtol=1e-5, atol=1e-6)


@ranks
def test_derivatives_against_differences(rank):
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, *(4,) * rank, 2))
        pool = jax.jit(lambda x: POOL[rank](x, 2, stride=1, padding=1, dilation=2, count_include_pad=False))
        check_grads(pool, (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(ops.avg_pool1d(y, 3, stride=1, padding="SAME"))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return ops.avg_pool2d(x, 2, padding="SAME", count_include_pad=False)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(jax.make_jaxpr(lambda x: ops.avg_pool2d(x, 2, padding="SAME", dilation=2))(jnp.ones((1, 5, 5, 2))))
    assert jaxpr.count("reduce_window_sum[") == 1
    assert " pad[" not in jaxpr


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@counts
def test_dtype_is_kept(dtype, count_include_pad):
    x = jnp.ones((1, 4, 1), dtype)
    y, pull = jax.vjp(lambda x: ops.avg_pool1d(x, 2, padding=1, count_include_pad=count_include_pad), x)
    assert y.dtype == pull(y)[0].dtype == dtype
    np.testing.assert_array_equal(y.ravel(), [0.5, 1, 0.5] if count_include_pad else [1, 1, 1])


def test_float64():
    with jax.enable_x64(True):
        y = ops.avg_pool1d(jnp.array([1.0, 1.0 + 1e-12]).reshape(1, 2, 1), 2)
        assert y.dtype == "float64"
        assert y.item() == pytest.approx(1 + 5e-13, abs=1e-15)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 9, (2, 32, 32, 3)), dtype)
    wide = ops.avg_pool2d(x.astype("float32"), 32)
    np.testing.assert_array_equal(ops.avg_pool2d(x, 32), wide.astype(dtype))


def test_half_precision_does_not_overflow():
    assert ops.avg_pool1d(jnp.full((1, 64, 1), 6e4, "float16"), 64).item() == jnp.float16(6e4)


def test_half_precision_gradient_is_rounded_once():
    """Every pixel is in 64 windows: one addition at a time, 1 / 64 would stop growing in bfloat16."""
    x = jnp.ones((1, 1024, 1), "bfloat16")
    gradient = jax.grad(lambda x: 300 * ops.avg_pool1d(x, 300, stride=1).astype("float32").sum())(x)
    wide = jax.grad(lambda x: 300 * ops.avg_pool1d(x, 300, stride=1).sum())(x.astype("float32"))
    np.testing.assert_array_equal(gradient, wide.astype("bfloat16"))


@ranks
@pytest.mark.parametrize("padding", ["VALID", "SAME", 1])
def test_batch_of_none(rank, padding):
    x = jnp.ones((0, *(6,) * rank, 2))
    y, pull = jax.vjp(lambda x: POOL[rank](x, 3, padding=padding), x)
    assert y.shape == (0, *(2,) * rank, 2)
    assert pull(y)[0].shape == x.shape


def test_batch_of_one_is_one_of_many():
    x = normal(0, 3, 6, 5, 2, dtype="float32")
    np.testing.assert_array_equal(ops.avg_pool2d(x, 2)[1:2], ops.avg_pool2d(x[1:2], 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_stays_in_its_windows(value):
    y = ops.avg_pool1d(series(1, 1, 1, value, 1, 1, 1), 2, stride=1).ravel()
    np.testing.assert_array_equal(y, [1, 1, value, value, 1, 1])


def test_opposite_infinities():
    y = ops.avg_pool1d(series(np.inf, -np.inf, 1, 1), 2).ravel()
    np.testing.assert_array_equal(y, [np.nan, 1])


# Errors.


X = jnp.ones((1, 4, 7, 3))


@pytest.mark.parametrize(
    ("x", "window", "options", "message"),
    [
        (
            X,
            5,
            {},
            "avg_pool2d: window (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller window.",
        ),
        (
            X,
            (1, 4),
            {"dilation": (1, 3), "stride": 1},
            "avg_pool2d: window (1, 4) with dilation (1, 3) does not fit the padded input (4, 7) along W."
            " Pad, or use a smaller window.",
        ),
        (
            jnp.ones((8, 8, 3)),
            2,
            {},
            "avg_pool2d: x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None].",
        ),
        (
            jnp.ones((1, 8, 0, 3)),
            2,
            {},
            "avg_pool2d: x must have pixels, got shape (1, 8, 0, 3). Only the batch axis may be empty.",
        ),
        (X, (2,), {}, "avg_pool2d: window takes one value an axis (2), got (2,). Give an int for all axes."),
        (X, 0, {}, "avg_pool2d: window must be at least 1, got 0."),
        (X, 2, {"stride": (0, 1)}, "avg_pool2d: stride must be at least 1, got (0, 1)."),
        (X, 2, {"dilation": -1}, "avg_pool2d: dilation must be at least 1, got -1."),
        (X, 2, {"padding": (0, -1)}, "avg_pool2d: padding must be at least 0, got (0, -1)."),
        (
            X,
            2,
            {"padding": "REFLECT"},
            "avg_pool2d: padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'REFLECT'.",
        ),
    ],
)
def test_errors_word_for_word(x, window, options, message):
    with pytest.raises(ValueError, match="avg_pool2d") as caught:
        ops.avg_pool2d(x, window, **options)
    assert str(caught.value) == message


@ranks
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_refused(rank, dtype):
    with pytest.raises(TypeError, match="avg_pool") as caught:
        POOL[rank](jnp.ones((1, *(4,) * rank, 1), dtype), 2)
    assert str(caught.value) == (
        f"avg_pool{rank}d: x must be floating point, got {dtype}. Cast it with x.astype('float32')."
    )


@ranks
def test_windows_of_padding_alone(rank):
    with pytest.raises(
        ValueError, match=rf"^avg_pool{rank}d: every window must see a pixel of x .*padding 2 .*Pad less"
    ):
        POOL[rank](jnp.ones((1, *(4,) * rank, 1)), 2, padding=2)


@pytest.mark.parametrize("mode", ["CAUSAL", "CIRCULAR", "REPLICATE", "FULL"])
def test_modes_that_pools_refuse(mode):
    with pytest.raises(ValueError, match=rf"^avg_pool1d: .* one of SAME, SAME_LOWER, VALID, got '{mode}'"):
        ops.avg_pool1d(jnp.ones((1, 8, 1)), 2, padding=mode)
