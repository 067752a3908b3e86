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

from cnnjax.ops import pad

ranks = pytest.mark.parametrize("rank", [1, 2, 3])
MODES = ["constant", "reflect", "replicate", "circular"]
modes = pytest.mark.parametrize("mode", MODES)


def series(*values, dtype="float32"):
    return jnp.asarray(values, dtype).reshape(1, -1, 1)


def source(j, n, low, high, mode):
    """Where pixel j of the padded axis of n, counted from the first of x, comes from; None is the value."""
    if mode == "constant":
        return j if 0 <= j < n else None
    if mode == "reflect":
        return -j if j < 0 else 2 * (n - 1) - j if j >= n else j
    if mode == "replicate":
        return min(max(j, 0), n - 1)
    start, stop = max(-low, 0), n - max(-high, 0)
    return start + (j - start) % (stop - start)


def reference(x, pairs, mode="constant", value: Any = 0):
    for axis, (low, high) in enumerate(pairs, 1):
        x = np.moveaxis(x, axis, 0)
        n, y = len(x), np.zeros((len(x) + low + high, *x.shape[1:]), x.dtype)
        for i in range(len(y)):
            j = source(i - low, n, low, high, mode)
            y[i] = value if j is None else x[j]
        x = np.moveaxis(y, 0, axis)
    return x


# Values.


@pytest.mark.parametrize(
    ("pair", "mode", "expected"),
    [
        ((2, 1), "constant", [9, 9, 1, 2, 3, 4, 9]),
        ((2, 1), "reflect", [3, 2, 1, 2, 3, 4, 3]),
        ((3, 3), "reflect", [4, 3, 2, 1, 2, 3, 4, 3, 2, 1]),
        ((2, 1), "replicate", [1, 1, 1, 2, 3, 4, 4]),
        ((2, 1), "circular", [3, 4, 1, 2, 3, 4, 1]),
        ((5, 6), "circular", [4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2]),
        ((-1, -2), "constant", [2]),
        ((-1, -2), "reflect", [2]),
        ((-3, 2), "constant", [4, 9, 9]),
        ((-3, 2), "reflect", [4, 3, 2]),
        ((-3, 2), "replicate", [4, 4, 4]),
        ((-3, 2), "circular", [4, 4, 4]),
        ((2, -2), "circular", [1, 2, 1, 2]),
        ((-5, 6), "constant", [9, 9, 9, 9, 9]),
        ((-4, 5), "replicate", [4, 4, 4, 4, 4]),
        ((-4, 3), "reflect", [3, 2, 1]),
    ],
)
def test_by_hand(pair, mode, expected):
    value = {"value": 9} if mode == "constant" else {}
    np.testing.assert_array_equal(pad(series(1, 2, 3, 4), (pair,), mode=mode, **value).ravel(), expected)


def test_forms_of_the_amounts():
    x = normal(0, 1, 4, 5, 2, dtype="float32")
    np.testing.assert_array_equal(pad(x, 2), reference(x, [(2, 2), (2, 2)]))
    np.testing.assert_array_equal(pad(x, (1, -1)), reference(x, [(1, 1), (-1, -1)]))
    lists: Any = [[1, -2], (0, np.int64(3))]
    np.testing.assert_array_equal(pad(x, lists), reference(x, [(1, -2), (0, 3)]))
    np.testing.assert_array_equal(pad(x, 0, mode="circular"), x)


# Against the loops, and PyTorch.


TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2}


@st.composite
def calls(draw):
    """An array, its amounts, and a mode. The amounts are possible."""
    rank, mode = draw(st.integers(1, 3)), draw(st.sampled_from(MODES))
    spatial = [draw(st.integers(1, (9, 6, 4)[rank - 1])) for _ in range(rank)]
    pairs = []
    for n in spatial:
        most = n - 1 if mode == "reflect" else n + 3
        low = draw(st.integers(1 - n if mode == "circular" else -n - 1, most))
        left = n + min(low, 0) if mode == "circular" else n + low
        pairs.append((low, draw(st.integers(max(1 - left, -n - 1), most) if 1 - left <= most else st.nothing())))
    shape = (draw(st.integers(0, 2)), *spatial, draw(st.integers(1, 2)))
    dtype = draw(st.sampled_from(list(TOLERANCES)) | st.sampled_from(["int32", "uint8", "bool", "complex64"]))
    value = draw(st.integers(0, 1)) if mode == "constant" else 0
    return draw(st.integers(0, 2**16)), shape, dtype, pairs, mode, value


@drawn
@given(calls())
def test_any_call_against_loops(call):
    """The value to the bit, and the gradient along a random direction."""
    seed, shape, dtype, pairs, mode, value = call
    x, options = (3 * normal(seed, *shape)).astype(jnp.dtype(dtype)), {"mode": mode, "value": value}
    if dtype not in TOLERANCES:
        y = pad(x, pairs, **options)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, reference(x, pairs, **options))
        return
    y, (gradient,) = value_and_grads(lambda x: pad(x, pairs, **options), x)
    assert y.dtype == gradient.dtype == dtype
    close(f"pad {dtype}", y, reference(x, pairs, **options), 0)
    direction = normal(seed + 1, *shape)
    ours = np.vdot(gradient.astype("float64"), direction)
    theirs = np.vdot(weights_of(y.shape).astype(y.dtype).astype("float64"), reference(direction, pairs, mode))
    close(f"pad {dtype} gradient", ours, theirs, TOLERANCES[dtype] * max(y.size, 1) ** 0.5)


AMOUNTS = {
    "constant": [(2, 0), (-1, 3), (1, -2)],
    "reflect": [(2, 1), (-3, 2), (2, -3)],
    "replicate": [(5, 0), (-4, 5), (3, -2)],
    "circular": [(4, 1), (-1, 2), (1, -2)],
}


@ranks
@modes
def test_against_torch(rank, mode):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x, pairs = normal(0, 2, *(4, 5, 4)[:rank], 2), AMOUNTS[mode][:rank]
    options = {"mode": mode, **({"value": -1.5} if mode == "constant" else {})}
    ours = value_and_grads(lambda x: pad(x, pairs, **options), x)
    theirs = torch_value_and_grads(lambda x: last(torch.nn.functional.pad(first(x), flat_pads(pairs), **options)), x)
    assert_same(ours, theirs, 1e-15)


# Transformations.


@ways
@modes
def test_every_way(way, mode):
    x, pairs = normal(0, 2, 5, 4, 2, dtype="float32"), [(2, -1), (-1, 2)]
    np.testing.assert_array_equal(way(lambda x: pad(x, pairs, mode=mode))(x), reference(x, pairs, mode))


def test_derivatives_against_differences():
    def padded(x):
        return [pad(x, ((2, -1),), mode=mode) ** 2 for mode in MODES]

    with jax.enable_x64(True):
        check_grads(jax.jit(padded), (jnp.asarray(normal(0, 1, 4, 1)),), order=1, modes=["fwd", "rev"])


def test_the_value_is_an_argument_like_others():
    """Traced, mapped over, differentiated: alone and beside x."""
    x, pairs = normal(0, 2, 3, 4, 1, dtype="float32"), [(1, 1), (2, -2)]
    values = jnp.array([0.5, -np.inf, np.nan], "float32")
    y = jax.vmap(lambda value: pad(x, pairs, value=value))(values)
    for i, value in enumerate(values):
        np.testing.assert_array_equal(y[i], reference(x, pairs, value=float(value)))
    weights = weights_of(y.shape[1:]).astype("float32")
    outside = reference(np.zeros_like(x), pairs, value=1)
    run = jax.jit(lambda x, value: jnp.sum(weights * pad(x, pairs, value=value)))
    alone = jax.grad(run, 1)(x, jnp.float32(2))
    _, beside = jax.grad(run, (0, 1))(x, jnp.float32(2))
    np.testing.assert_allclose([alone, beside], np.vdot(weights, outside), rtol=1e-5)


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(2 * pad(pad(y, ((2, -1),), mode="reflect"), ((-1, 0),), mode="circular"))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2)))(x)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return [pad(x, 2, mode=mode) for mode in MODES]

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


# Dtypes and odd sizes.


@modes
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "bfloat16", "float32", "complex64"])
def test_dtype_is_kept(mode, dtype):
    x = np.array([1, 0, 1, 1]).reshape(1, 4, 1).astype(jnp.dtype(dtype))
    y = pad(jnp.asarray(x), ((2, 1),), mode=mode)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, reference(x, [(2, 1)], mode))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gradients_are_rounded_once(dtype):
    """The edge is copied 300 times: a sum in half precision would stop growing."""
    gradient = jax.jit(jax.grad(lambda x: pad(x, ((300, 0),), mode="replicate").sum()))(series(1, 2, dtype=dtype))
    np.testing.assert_array_equal(gradient.ravel(), jnp.asarray([301, 1], dtype))
    x, value = series(1, 2, dtype=dtype), jnp.asarray(3, dtype)
    assert jax.grad(lambda value: pad(x, ((300, 1),), value=value).sum())(value) == jnp.asarray(301, dtype)


@modes
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_goes_where_it_is_copied(mode, value):
    x = series(1, value, 3, 4)
    y = pad(x, ((2, 2),), mode=mode)
    np.testing.assert_array_equal(y, reference(np.asarray(x), [(2, 2)], mode))


@modes
def test_empty_axes(mode):
    y, pull = jax.vjp(lambda x: pad(x, ((2, -1), (1, 1)), mode=mode), jnp.ones((0, 4, 3, 2)))
    assert y.shape == (0, 5, 5, 2)
    assert pull(y)[0].shape == (0, 4, 3, 2)
    assert pad(jnp.ones((2, 4, 3, 0)), 1, mode=mode).shape == (2, 6, 5, 0)


@modes
def test_one_pixel(mode):
    if mode == "reflect":
        with pytest.raises(
            ValueError, match=r"^pad: reflect must add fewer pixels than there are, got 1 for 1 along L"
        ):
            pad(series(7), 1, mode=mode)
    else:
        np.testing.assert_array_equal(
            pad(series(7), 1, mode=mode).ravel(), [0, 7, 0] if mode == "constant" else [7] * 3
        )


def test_takes_what_is_no_jax_array():
    assert pad([[[1.0], [2.0]]], 1, value=np.float32(3)).ravel().tolist() == [3, 1, 2, 3]  # pyright: ignore[reportArgumentType]


# Errors.


X = jnp.ones((1, 4, 7, 3))


@pytest.mark.parametrize(
    ("padding", "options", "message"),
    [
        (1, {"mode": "edge"}, "pad: mode must be one of constant, reflect, replicate, circular, got 'edge'."),
        (
            4,
            {"mode": "reflect"},
            "pad: reflect must add fewer pixels than there are, got 4 for 4 along H. Use replicate, or pad less.",
        ),
        (
            ((0, 0), (-1, 7)),
            {"mode": "reflect"},
            "pad: reflect must add fewer pixels than there are, got 7 for 7 along W. Use replicate, or pad less.",
        ),
        (-2, {}, "pad: padding (-2, -2) leaves no pixel of 4 along H. Crop less."),
        (((0, 0), (1, -8)), {"mode": "replicate"}, "pad: padding (1, -8) leaves no pixel of 7 along W. Crop less."),
        (((-4, 4), (0, 0)), {"mode": "circular"}, "pad: padding (-4, 4) leaves no pixel of 4 along H. Crop less."),
        ((1, 2, 3), {}, "pad: padding takes one value an axis (2), got (1, 2, 3). Give an int for all axes."),
        (((1, 2),), {}, "pad: padding takes one (low, high) pair an axis (2), got ((1, 2),)."),
        (((1, 2), (1, 2, 3)), {}, "pad: each pair of padding takes one value an axis (2), got (1, 2, 3)."),
        (1, {"mode": "reflect", "value": 1}, "pad: value is for mode constant, got value=1 with mode 'reflect'."),
        (1, {"value": 1j}, "pad: value must be a number that float32 holds, got 1j. Cast x first."),
        (1, {"value": np.ones(3)}, "pad: value must be a scalar, got shape (3,)."),
    ],
)
def test_errors(padding, options, message):
    with pytest.raises(ValueError, match="pad") as caught:
        pad(X, padding, **options)
    assert str(caught.value).startswith(message)


def test_a_flat_pair_is_no_pair():
    with pytest.raises(ValueError, match="pad") as caught:
        pad(series(1, 2, 3), (1, 2))
    message = "pad: padding takes one value an axis (1), got (1, 2). Nest (low, high) pairs, one an axis."
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [0.5, 256, -1, float("nan"), float("inf"), 1j])
def test_values_that_a_dtype_does_not_hold(value):
    with pytest.raises(ValueError, match=r"^pad: value must be a number that uint8 holds, got .* Cast x first\.$"):
        pad(X.astype("uint8"), 1, value=value)


@pytest.mark.parametrize(
    ("padding", "options", "message"),
    [
        (1.0, {}, r"^pad: padding must be an int or 2 ints, got 1.0"),
        ("SAME", {}, r"^pad: padding must be an int or 2 ints, got 'SAME'"),
        (((1, 0.5), (0, 0)), {}, r"^pad: each pair of padding must be an int or 2 ints, got \(1, 0.5\)"),
        ((1, (2, 3)), {}, r"^pad: padding must be an int or 2 ints, got \(1, \(2, 3\)\)"),
        (1, {"value": jnp.int32(1)}, r"^pad: x is float32 but value is int32. Cast one, as in value.astype"),
    ],
)
def test_errors_of_type(padding, options, message):
    with pytest.raises(TypeError, match=message):
        pad(X, padding, **options)


@pytest.mark.parametrize("shape", [(8, 8), (1,) * 6, (1, 0, 8, 3)])
def test_errors_of_shape(shape):
    with pytest.raises(
        ValueError, match=r"^pad: x must (be \(N, \*spatial, C\) with one to three|have pixels), got|^pad: x must be"
    ):
        pad(jnp.ones(shape), 1)


def test_errors_come_before_lax(monkeypatch):
    monkeypatch.setattr(lax, "pad", lambda *args, **options: pytest.fail("lax saw the call"))
    for padding, options in [(4, {"mode": "reflect"}), (-9, {}), (1, {"value": 1j}), ((1, 2, 3), {})]:
        with pytest.raises(ValueError, match=r"^pad: "):
            pad(X, padding, **options)
