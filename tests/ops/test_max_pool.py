import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from jax.test_util import check_grads
from ops_helpers import (
    assert_same,
    first,
    flat_pads,
    last,
    normal,
    torch_value_and_grads,
    value_and_grads,
    ways,
    weights_of,
)

from cnnjax import ops

POOL: dict[int, Any] = {1: ops.max_pool1d, 2: ops.max_pool2d, 3: ops.max_pool3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])
forms = pytest.mark.parametrize("dilation", [1, 2], ids=["plain", "dilated"])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


# Known values.


@pytest.mark.parametrize(
    ("window", "options", "expected"),
    [
        (2, {}, [3, 2]),
        (2, {"stride": 1}, [3, 3, 2, 0]),
        (3, {"stride": 2}, [3, 2]),
        (2, {"ceil_mode": True}, [3, 2, -1]),
        (2, {"padding": "SAME"}, [3, 2, -1]),
        (2, {"padding": "SAME_LOWER"}, [1, 3, 0]),
        (2, {"padding": "same_lower"}, [1, 3, 0]),
        (2, {"padding": 1}, [1, 3, 0]),
        (2, {"padding": ((1, 0),)}, [1, 3, 0]),
        (2, {"padding": (1,), "ceil_mode": True}, [1, 3, 0]),
        (2, {"dilation": 2, "stride": 1}, [2, 3, 2]),
        (2, {"dilation": 3, "stride": 1, "padding": 1}, [2, 1, 3, 2]),
        (1, {"stride": 3}, [1, 0]),
        (5, {}, [3]),
        (6, {"ceil_mode": True, "stride": 2}, [3]),
    ],
)
def test_series_by_hand(window, options, expected):
    y = ops.max_pool1d(series(1, 3, 2, 0, -1), window, **options)
    np.testing.assert_array_equal(y.ravel(), expected)


def test_picture_and_volume_by_hand():
    np.testing.assert_array_equal(
        ops.max_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0], [[5, 7], [13, 15]]
    )
    y = ops.max_pool3d(jnp.arange(48.0).reshape(1, 2, 4, 3, 2), (2, 2, 3))
    np.testing.assert_array_equal(y, jnp.array([34.0, 35.0, 46.0, 47.0]).reshape(1, 1, 2, 1, 2))


# Against loops and libraries.


OPTIONS = {
    "plain": (2, {}),
    "stride": (3, {"stride": 2}),
    "gaps": (2, {"stride": 3}),
    "padding": (3, {"stride": 2, "padding": 1}),
    "ceil": (2, {"stride": 3, "ceil_mode": True}),
    "ceil and padding": (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "dilation": (2, {"stride": 1, "dilation": 2}),
    "all": (2, {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}),
}


@ranks
@pytest.mark.parametrize("name", list(OPTIONS))
def test_against_torch(rank, name):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    window, options = OPTIONS[name]
    pool = getattr(functional, f"max_pool{rank}d")
    x = normal(0, 2, *(8, 7, 6)[:rank], 2)
    ours = value_and_grads(lambda x: POOL[rank](x, window, **options), x)
    theirs = torch_value_and_grads(lambda x: last(pool(first(x), window, **options)), x)
    assert_same(ours, theirs, 1e-15)


@ranks
@forms
def test_values_per_axis_and_asymmetric_padding_against_torch(rank, dilation):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    window, stride, pairs = (3, 2, 2)[:rank], (2, 1, 2)[:rank], ((2, 0), (0, 1), (1, 0))[:rank]
    pool = getattr(functional, f"max_pool{rank}d")
    x = normal(0, 2, *(7, 6, 5)[:rank], 2)
    ours = value_and_grads(lambda x: POOL[rank](x, window, stride=stride, padding=pairs, dilation=dilation), x)
    theirs = torch_value_and_grads(
        lambda x: last(
            pool(
                functional.pad(first(x), flat_pads(pairs), value=-float("inf")),
                window,
                stride=stride,
                dilation=dilation,
            )
        ),
        x,
    )
    assert_same(ours, theirs, 1e-15)


@ranks
@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
def test_same_and_valid_against_loops(rank, padding):
    x = normal(0, 2, *(7, 6, 5)[:rank], 2, dtype="float32")
    for window, stride, dilation in [(3, 1, 1), (2, 2, 1), (3, 2, 2)]:
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        expected = reference.max_pool(x, window, **options)
        run = jax.jit(functools.partial(POOL[rank], window=window, **options))
        np.testing.assert_array_equal(run(x), expected)


@pytest.mark.parametrize(("window", "stride"), [(2, 1), (2, 2), (3, 2), (4, 3)])
def test_same_equals_that_of_lax(window, stride):
    x = normal(0, 1, 11, 8, 2, dtype="float32")
    theirs = lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), "SAME")
    np.testing.assert_array_equal(ops.max_pool2d(x, window, stride=stride, padding="SAME"), theirs)


def configuration(seed):
    """A random call: x with many ties, and options under which the window may not fit or see padding alone."""
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 3]))
    spatial = [int(n) for n in rng.integers(1, (12, 8, 5)[rank - 1], rank)]
    window = tuple(int(n) for n in rng.integers(1, (6, 5, 4)[rank - 1], rank))
    pairs = [tuple(int(rng.integers(0, k // 2 + 1)) for _ in range(2)) for k in window]
    if rng.random() < 0.1:
        pairs = [(low + 1, high) for low, high in pairs]
    options = {
        "stride": None if rng.random() < 0.2 else tuple(int(n) for n in rng.integers(1, 4, rank)),
        "padding": str(rng.choice(["SAME", "SAME_LOWER", "VALID"])) if rng.random() < 0.5 else pairs,
        "dilation": tuple(int(n) for n in rng.integers(1, 3, rank)) if rng.random() < 0.5 else 1,
        "ceil_mode": bool(rng.random() < 0.5),
    }
    x = rng.integers(-4, 4, (int(rng.integers(1, 3)), *spatial, int(rng.integers(1, 3)))).astype("float32")
    return rank, x, window, options


def check_configuration(seed):
    """Against the loops: the value, and the gradient, which goes to the first of equal maxima."""
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
    np.testing.assert_array_equal(y, reference.max_pool(x, window, **options), err_msg=str((seed, options)))
    expected = reference.max_pool(x, window, **options, weights=weights_of(y.shape))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5, err_msg=str((seed, options)))


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
@forms
def test_every_way(way, rank, dilation):
    x = normal(0, 2, *(6, 5, 4)[:rank], 2, dtype="float32")
    options = {"stride": 2, "padding": 1, "dilation": dilation, "ceil_mode": True}
    y = way(lambda x: POOL[rank](x, 2, **options))(x)
    np.testing.assert_array_equal(y, reference.max_pool(x, 2, **options))


@ways
@forms
def test_gradient_every_way(way, dilation):
    x, options = normal(0, 2, 6, 5, 2, dtype="float32"), {"stride": 2, "padding": 1, "dilation": dilation}
    weights = weights_of(ops.max_pool2d(x, 2, **options).shape)
    gradient = way(jax.grad(lambda x: jnp.sum(weights * ops.max_pool2d(x, 2, **options))))(x)
    np.testing.assert_allclose(gradient, reference.max_pool(x, 2, **options, weights=weights), rtol=1e-6, atol=1e-6)


@ranks
@forms
def test_derivatives_against_differences(rank, dilation):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(2 * 4**rank).reshape(1, *(4,) * rank, 2) * 0.1)
        pool = jax.jit(lambda x: POOL[rank](x, 2, stride=1, padding=1, dilation=dilation))
        check_grads(pool, (x,), order=1, modes=["fwd", "rev"])


@forms
def test_second_derivative(dilation):
    x = normal(0, 1, 6, 1, dtype="float32")
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(ops.max_pool1d(x, 2, stride=1, dilation=dilation) ** 2)))(x)
    y = reference.max_pool(x, 2, stride=1, dilation=dilation)
    counts = reference.max_pool(x, 2, stride=1, dilation=dilation, weights=np.ones_like(y)).ravel()
    np.testing.assert_allclose(hessian.reshape(6, 6), 2 * np.diag(counts))


@forms
def test_checkpoint_and_scan(dilation):
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(ops.max_pool1d(y, 3, stride=1, padding=dilation, dilation=dilation))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return ops.max_pool2d(x, 2, ceil_mode=True)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(jax.make_jaxpr(lambda x: ops.max_pool2d(x, 2, padding="SAME", ceil_mode=True))(jnp.ones((1, 5, 5, 2))))
    assert jaxpr.count("reduce_window_max[") == 1
    assert " pad[" not in jaxpr


# Ties, NaN, infinity.


@forms
@pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_first_of_equals_takes_the_gradient(dilation, run):
    x = jnp.ones((1, 2 * dilation, 2 * dilation, 1))
    gradient = run(jax.grad(lambda x: ops.max_pool2d(x, 2, stride=1, dilation=dilation).sum()))(x)
    expected = np.zeros((2 * dilation, 2 * dilation))
    expected[:dilation, :dilation] = 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


@forms
def test_first_of_equals_takes_the_tangent(dilation):
    x, tangent = series(1, 1, 1, 1), series(1, 2, 3, 4)
    _, moved = jax.jvp(lambda x: ops.max_pool1d(x, 2, stride=1, dilation=dilation), (x,), (tangent,))
    np.testing.assert_array_equal(moved.ravel(), [1, 2, 3][: 4 - dilation])


@forms
def test_zeros_of_both_signs_are_equal(dilation):
    x = series(-0.0, -0.0, 0.0, 0.0)
    gradient = jax.grad(lambda x: ops.max_pool1d(x, 2, stride=4, dilation=dilation).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0, 0])


@forms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("place", range(5))
def test_nan_propagates(dilation, dtype, place):
    x = series(1, 3, 2, jnp.inf, -jnp.inf, dtype=dtype).at[0, place, 0].set(jnp.nan)
    y = ops.max_pool1d(x, 2, stride=1, padding=1, dilation=dilation).ravel()
    seen = [place in axis for axis in reference.taps(5, 2, 1, 1, 1, dilation, False)]
    np.testing.assert_array_equal(np.isnan(y), seen)


@forms
def test_nan_takes_the_gradient_somewhere(dilation):
    """Which element is left open, but no output's gradient is lost."""
    x = series(1, jnp.nan, 2, 0, 1)
    y, pull = jax.vjp(lambda x: ops.max_pool1d(x, 2, stride=1, dilation=dilation), x)
    assert pull(jnp.ones_like(y))[0].sum() == y.size


@forms
def test_infinity_and_padding(dilation):
    y = ops.max_pool1d(jnp.full((1, 3, 1), -jnp.inf), 3, stride=1, padding=1, dilation=dilation)
    assert (y == -jnp.inf).all()
    y = ops.max_pool1d(series(-5, -jnp.inf, -7, jnp.inf, -9), 3, stride=2, padding=1, dilation=dilation)
    assert y.max() == jnp.inf
    np.testing.assert_array_equal(
        y,
        reference.max_pool(
            np.array([[[-5], [-np.inf], [-7], [np.inf], [-9]]]), 3, stride=2, padding=1, dilation=dilation
        ),
    )


# Dtypes and odd sizes.


@forms
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "uint8", "int32", "uint32"])
def test_dtypes(dilation, dtype):
    values = np.arange(12).reshape(1, 12, 1) * 7 % 12
    expected = reference.max_pool(values, 3, stride=2, padding=1, dilation=dilation)
    y = ops.max_pool1d(jnp.asarray(values, dtype), 3, stride=2, padding=1, dilation=dilation)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(int), expected)


@forms
@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_padding_never_wins_over_negative_integers(dilation, dtype):
    lowest = jnp.iinfo(dtype).min
    x = jnp.full((1, 3, 1), lowest, dtype).at[0, 1, 0].set(-1)
    y = ops.max_pool1d(x, 2, stride=2, padding=1, dilation=dilation)
    np.testing.assert_array_equal(y.ravel(), {1: [lowest, -1], 2: [-1, -1]}[dilation])


def test_float64():
    with jax.enable_x64(True):
        y = ops.max_pool1d(jnp.array([1.0, 1.0 + 1e-12]).reshape(1, 2, 1), 2)
        assert y.dtype == "float64"
        assert y.item() == 1 + 1e-12


@ranks
@forms
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_batch_of_none(rank, dilation, padding):
    x = jnp.ones((0, *(6,) * rank, 2))
    y, pull = jax.vjp(lambda x: POOL[rank](x, 2, padding=padding, dilation=dilation), x)
    assert y.shape == (0, *((2 if dilation == 2 and padding == "VALID" else 3,) * rank), 2)
    assert pull(y)[0].shape == x.shape


def test_batch_of_one_is_one_of_many():
    x = normal(0, 3, 6, 5, 2, dtype="float32")
    np.testing.assert_array_equal(ops.max_pool2d(x, 2)[1:2], ops.max_pool2d(x[1:2], 2))


def test_no_channels():
    assert ops.max_pool2d(jnp.ones((2, 4, 4, 0)), 2).shape == (2, 2, 2, 0)


# Errors.


X = jnp.ones((1, 4, 7, 3))


@pytest.mark.parametrize(
    ("x", "window", "options", "message"),
    [
        (
            X,
            5,
            {},
            "max_pool2d: window (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller window.",
        ),
        (
            X,
            3,
            {"dilation": 3, "padding": ((1, 1), (0, 0)), "stride": 1},
            "max_pool2d: window (3, 3) with dilation (3, 3) does not fit the padded input (6, 7) along H."
            " Pad, or use a smaller window.",
        ),
        (
            jnp.ones((8, 8, 3)),
            2,
            {},
            "max_pool2d: x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None].",
        ),
        (
            jnp.ones((1, 8, 0, 3)),
            2,
            {},
            "max_pool2d: x must have pixels, got shape (1, 8, 0, 3). Only the batch axis may be empty.",
        ),
        (X, (2, 2, 2), {}, "max_pool2d: window takes one value an axis (2), got (2, 2, 2). Give an int for all axes."),
        (X, 0, {}, "max_pool2d: window must be at least 1, got 0."),
        (X, 2, {"stride": 0}, "max_pool2d: stride must be at least 1, got 0."),
        (X, 2, {"dilation": (0, 1)}, "max_pool2d: dilation must be at least 1, got (0, 1)."),
        (X, 2, {"padding": -1}, "max_pool2d: padding must be at least 0, got -1."),
        (
            X,
            2,
            {"padding": "CIRCULAR"},
            "max_pool2d: padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'CIRCULAR'.",
        ),
    ],
)
def test_errors_word_for_word(x, window, options, message):
    with pytest.raises(ValueError, match="max_pool2d") as caught:
        ops.max_pool2d(x, window, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("mode", ["CAUSAL", "CIRCULAR", "REFLECT", "REPLICATE", "reflect", "FULL"])
@ranks
def test_modes_that_pools_refuse(rank, mode):
    with pytest.raises(ValueError, match=rf"^max_pool{rank}d: .* one of SAME, SAME_LOWER, VALID, got '{mode}'"):
        POOL[rank](jnp.ones((1, *(8,) * rank, 1)), 2, padding=mode)


@forms
@pytest.mark.parametrize("pair", [(2, 0), (0, 2), (5, 5)])
def test_windows_of_padding_alone(dilation, pair):
    span = dilation + 1
    options = {"stride": 1, "dilation": dilation, "padding": tuple(p * span for p in pair)}
    with pytest.raises(ValueError, match=r"^max_pool1d: every window must see a pixel of x \(1, 6, 1\).*window \(2,\)"):
        ops.max_pool1d(jnp.ones((1, 6, 1)), 2, **{**options, "padding": (options["padding"],)})


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
@ranks
def test_dtypes_without_order(rank, dtype):
    with pytest.raises(TypeError, match=rf"^max_pool{rank}d: x must be floating point or integer, got {dtype}"):
        POOL[rank](jnp.ones((1, *(4,) * rank, 1), dtype), 2)


@pytest.mark.parametrize(("name", "value"), [("window", 2.0), ("stride", "2"), ("dilation", 1.5), ("padding", 0.5)])
def test_errors_of_type(name, value):
    with pytest.raises(TypeError, match=rf"^max_pool2d: {name} must be an int or 2 ints, got {value!r}"):
        ops.max_pool2d(X, **{"window": 2, name: value})


def test_errors_come_before_lax(monkeypatch):
    monkeypatch.setattr(lax, "reduce_window", lambda *args, **options: pytest.fail("lax saw the call"))
    for options in [{"padding": 3}, {"stride": 0}, {"padding": "FULL"}, {"window": 9}]:
        with pytest.raises(ValueError, match=r"^max_pool2d: "):
            ops.max_pool2d(X, **{"window": 2, **options})
