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
from ops_helpers import first, flat_pads, last, normal, ways, weights_of
from pool_calls import REFUSED, calls, pixels, windows

from cnnjax.ops import (
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_with_indices,
    max_pool3d,
    max_pool3d_with_indices,
)

POOL: dict[int, Any] = {1: max_pool1d_with_indices, 2: max_pool2d_with_indices, 3: max_pool3d_with_indices}
PLAIN: dict[int, Any] = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


def pooled(x, window, **options):
    """Values and indices, compiled: op by op, every slice is compiled by itself."""
    return jax.jit(lambda x: POOL[x.ndim - 2](x, window, **options))(x)


def everything(rank, x, window, options):
    """Values, indices, and the gradient of the values' weighted sum; float64 stays."""
    with jax.enable_x64(True):

        @jax.jit
        def run(x):
            y, pull, indices = jax.vjp(lambda x: POOL[rank](x, window, **options), x, has_aux=True)
            return y, indices, pull(weights_of(y.shape).astype(y.dtype))[0]

        return [np.asarray(part) for part in run(jnp.asarray(x))]


# Known values.


@pytest.mark.parametrize(
    ("window", "options", "values", "indices"),
    [
        (2, {}, [3, 2], [1, 2]),
        (2, {"stride": 1}, [3, 3, 2, 0], [1, 1, 2, 3]),
        (2, {"ceil_mode": True}, [3, 2, -1], [1, 2, 4]),
        (2, {"padding": "SAME_LOWER"}, [1, 3, 0], [0, 1, 3]),
        (2, {"padding": ((2, 0),), "dilation": 2, "stride": 1}, [1, 3, 2, 3, 2], [0, 1, 2, 1, 2]),
        (6, {"ceil_mode": True, "stride": 2}, [3], [1]),
    ],
)
def test_series_by_hand(window, options, values, indices):
    y, found = pooled(series(1, 3, 2, 0, -1), window, **options)
    np.testing.assert_array_equal(y.ravel(), values)
    np.testing.assert_array_equal(found.ravel(), indices)
    assert found.dtype == "int32"


def test_picture_and_volume_by_hand():
    """Flat in the plane of one's own picture and channel."""
    x = jnp.zeros((2, 3, 4, 2)).at[0, 2, 3, 0].set(1).at[1, 1, 2, 1].set(1)
    _, indices = pooled(x, (3, 4))
    np.testing.assert_array_equal(indices, np.array([[11, 0], [0, 6]]).reshape(2, 1, 1, 2))
    x = jnp.zeros((1, 3, 4, 5, 1)).at[0, 2, 1, 3, 0].set(1)
    assert pooled(x, (3, 4, 5))[1].item() == (2 * 4 + 1) * 5 + 3


@pytest.mark.parametrize(
    ("window", "options", "rows", "columns"),
    [
        (2, {}, [[6, 8], [16, 18]], [[6, 16], [8, 18]]),
        (5, {"stride": 1, "padding": 2}, [[12, 13, 14, 14, 14], [17, 18, 19, 19, 19]], None),
    ],
)
def test_onnx_counts_of_a_single_plane(window, options, rows, columns):
    """Its example pictures hold 1 to 25 row by row; storage_order=1 counts down the columns."""
    _, indices = pooled(jnp.arange(1.0, 26).reshape(1, 5, 5, 1), window, **options)
    plane = np.asarray(indices)[0, :, :, 0]
    np.testing.assert_array_equal(plane[: len(rows)], rows)
    if columns is not None:
        h, w = np.divmod(plane, 5)
        np.testing.assert_array_equal(h + w * 5, columns)


def test_onnx_counts_of_a_whole_tensor():
    """As the docstring says: (n * C + c) * H * W + index, in a tensor of (N, C, H, W)."""
    x = normal(0, 2, 4, 6, 3, dtype="float32")
    y, indices = pooled(x, 2)
    n, c = np.arange(2)[:, None, None, None], np.arange(3)
    onnx = (n * 3 + c) * 24 + np.asarray(indices)
    np.testing.assert_array_equal(x.transpose(0, 3, 1, 2).ravel()[onnx], y)
    np.testing.assert_array_equal(onnx % 24, indices)


# Against loops and libraries.


OPTIONS = {
    "plain": (2, {}),
    "stride": (3, {"stride": 2}),
    "gaps": (2, {"stride": 3}),
    "ceil and padding": (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "all": (2, {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}),
}
GRID = [(2, name) for name in OPTIONS] + [(rank, name) for rank in (1, 3) for name in ("ceil and padding", "all")]


@pytest.mark.parametrize(("rank", "name"), GRID)
def test_against_torch(rank, name):
    """With ties, NaN and infinities: the places too are PyTorch's."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    window, options = OPTIONS[name]
    # In volumes PyTorch gives windows of nothing but -inf an index outside of them.
    values = np.array([-3 if rank == 3 else -np.inf, -2, -1, 0, 1, 2, np.inf, np.nan])
    odds = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    x = np.random.default_rng(0).choice(values, (2, *(8, 7, 6)[:rank], 2), p=odds)
    y, indices, gradient = everything(rank, x, window, options)
    tensor = torch.tensor(x, requires_grad=True)
    pool = getattr(torch.nn.functional, f"max_pool{rank}d")
    theirs, places = (last(part) for part in pool(first(tensor), window, return_indices=True, **options))
    theirs.backward(torch.tensor(weights_of(tuple(theirs.shape))))
    np.testing.assert_array_equal(y, theirs.detach())
    np.testing.assert_array_equal(indices, places)
    np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-12, atol=1e-12)


@ranks
def test_values_per_axis_and_asymmetric_padding_against_torch(rank):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    window, stride, pairs = (3, 2, 2)[:rank], (2, 1, 2)[:rank], ((2, 0), (0, 1), (1, 0))[:rank]
    x = normal(0, 2, *(7, 6, 5)[:rank], 2)
    y, _, gradient = everything(rank, x, window, {"stride": stride, "padding": pairs, "dilation": 2})
    tensor = torch.tensor(x, requires_grad=True)
    padded = torch.nn.functional.pad(first(tensor), flat_pads(pairs), value=-float("inf"))
    theirs = last(getattr(torch.nn.functional, f"max_pool{rank}d")(padded, window, stride=stride, dilation=2))
    theirs.backward(torch.tensor(weights_of(tuple(theirs.shape))))
    np.testing.assert_array_equal(y, theirs.detach())
    np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-12, atol=1e-12)


def loops(x, found):
    """Values and indices: of equals the first, of several NaN the last."""
    spatial = x.shape[1:-1]
    y = np.zeros((x.shape[0], *map(len, found), x.shape[-1]), x.dtype)
    indices = np.zeros(y.shape, int)
    for place, ats in pixels(found, spatial):
        for n, c in np.ndindex(x.shape[0], x.shape[-1]):
            best = ats[0]
            for at in ats[1:]:
                if x[(n, *at, c)] > x[(n, *best, c)] or x[(n, *at, c)] != x[(n, *at, c)]:
                    best = at
            y[(n, *place, c)] = x[(n, *best, c)]
            indices[(n, *place, c)] = np.ravel_multi_index(best, spatial)
    return y, indices


DTYPES = {"float64": 1e-14, "float32": 1e-6, "bfloat16": 0.1, "float16": 1e-2, "int8": 0, "uint8": 0}


@drawn
@given(calls(), st.sampled_from(list(DTYPES)), st.integers(0, 2**32))
def test_any_call(call, dtype, seed):
    rank, shape, window, options = call
    family = "max_pool_with_indices, half precision" if "float16" in dtype else "max_pool_with_indices"
    found = windows(shape, window, options)
    rng = np.random.default_rng(seed)
    if "int" in dtype:
        values = rng.choice([jnp.iinfo(dtype).min, jnp.iinfo(dtype).min + 1, 3, jnp.iinfo(dtype).max], shape)
    else:
        values = rng.choice([-np.inf, -1.0, 0.0, 2.0, np.nan], shape, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    with jax.enable_x64(True):
        x = jnp.asarray(values, dtype)
        if found is None:
            with pytest.raises(ValueError, match=REFUSED):
                POOL[rank](x, window, **options)
            return
        expected, places = loops(values, found)
        if "int" in dtype:
            y, indices = pooled(x, window, **options)
        else:
            y, indices, gradient = everything(rank, x, window, options)
            weights = weights_of(y.shape).astype(dtype).astype(float)
            moved = np.zeros(shape)
            np.add.at(moved.reshape(shape[0], -1, shape[-1]), onto(places), weights.reshape(shape[0], -1, shape[-1]))
            close(family, gradient, moved, DTYPES[dtype])
    assert (y.dtype, indices.dtype) == (dtype, "int32")
    close(family, y, expected, 0)
    np.testing.assert_array_equal(indices, places)


def onto(indices):
    """The indices into planes (N, pixels, C), as NumPy takes them."""
    batch, *_, channels = indices.shape
    return np.arange(batch)[:, None, None], indices.reshape(batch, -1, channels), np.arange(channels)


@ranks
@pytest.mark.parametrize("dilation", [1, 2])
def test_values_are_those_of_max_pool(rank, dilation):
    x = normal(0, 2, *(7, 6, 5)[:rank], 2, dtype="float32")
    options = {"stride": 2, "padding": "SAME", "dilation": dilation}
    y, _ = pooled(x, 3, **options)
    np.testing.assert_array_equal(y, PLAIN[rank](x, 3, **options))


# Transformations.


@ways
def test_every_way(way):
    x, options = normal(0, 2, 6, 5, 2, dtype="float32"), {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}
    expected = everything(2, x, 2, options)
    y, indices = way(lambda x: max_pool2d_with_indices(x, 2, **options))(x)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(indices, expected[1])
    gradient = way(jax.grad(lambda x: jnp.sum(weights_of(y.shape) * max_pool2d_with_indices(x, 2, **options)[0])))(x)
    np.testing.assert_allclose(gradient, expected[2], rtol=1e-6, atol=1e-6)


@ranks
def test_derivatives_against_differences(rank):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(2 * 4**rank).reshape(1, *(4,) * rank, 2) * 0.1)
        pool = jax.jit(lambda x: POOL[rank](x, 2, stride=1, padding=1)[0])
        check_grads(pool, (x,), order=1, modes=["fwd", "rev"])


def test_first_of_equals_takes_the_tangent():
    x, tangent = series(1, 1, 1, 1), series(1, 2, 3, 4)
    _, moved = jax.jvp(lambda x: pooled(x, 2, stride=1)[0], (x,), (tangent,))
    np.testing.assert_array_equal(moved.ravel(), [1, 2, 3])


def test_second_derivative():
    x = series(1, 3, 2, 0, -1, 4)
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(max_pool1d_with_indices(x, 2, stride=1)[0] ** 2)))(x)
    np.testing.assert_array_equal(hessian.reshape(6, 6), np.diag([0, 4, 2, 2, 0, 2]))


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(max_pool1d_with_indices(y, 3, stride=1, padding=1)[0])

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return max_pool2d_with_indices(x, 2, ceil_mode=True)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


def test_work_grows_with_the_sides_of_the_window():
    """One axis after the other: 2 * 16 taps, not 16 * 16."""
    jaxpr = str(jax.make_jaxpr(lambda x: max_pool2d_with_indices(x, 16))(jnp.ones((1, 32, 32, 2))))
    assert jaxpr.count(" slice[") == 4 * 16


# Odd sizes and places.


@ranks
def test_the_first_pixel_of_a_window_without_a_maximum(rank):
    """Where all is -inf, or the lowest integer, no place in the padding is named, and the gradient stays."""
    for lowest in (-jnp.inf, jnp.finfo("float32").min):
        y, pull, indices = jax.vjp(
            lambda x: pooled(x, 3, stride=2, padding=1), jnp.full((1, *(3,) * rank, 1), lowest), has_aux=True
        )
        assert (y == lowest).all()
        np.testing.assert_array_equal(
            indices.ravel(), np.arange(3**rank).reshape((3,) * rank)[(slice(2),) * rank].ravel()
        )
        assert pull(jnp.ones_like(y))[0].sum() == y.size


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
def test_padding_never_wins_over_the_lowest_integer(dtype):
    x = jnp.full((1, 3, 1), jnp.iinfo(dtype).min, dtype)
    y, indices = pooled(x, 2, stride=2, padding=1)
    np.testing.assert_array_equal(y.ravel(), [jnp.iinfo(dtype).min] * 2)
    np.testing.assert_array_equal(indices.ravel(), [0, 1])


@ranks
def test_batch_of_none_and_no_channels(rank):
    for shape in [(0, *(6,) * rank, 2), (2, *(6,) * rank, 0)]:
        y, pull, indices = jax.vjp(lambda x: pooled(x, 3, padding=1), jnp.ones(shape), has_aux=True)
        assert y.shape == indices.shape == (shape[0], *(2,) * rank, shape[-1])
        assert pull(y)[0].shape == shape


def test_batch_of_one_is_one_of_many():
    x = normal(0, 3, 6, 5, 2, dtype="float32")
    np.testing.assert_array_equal(pooled(x, 2)[1][1:2], pooled(x[1:2], 2)[1])


def test_a_window_of_one_is_everything():
    x = normal(0, 1, 2, 3, 1, dtype="float32")
    y, indices = pooled(x, 1)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(indices.ravel(), np.arange(6))


# Errors.


@pytest.mark.parametrize(
    ("shape", "window", "options", "message"),
    [
        (
            (1, 4, 7, 3),
            5,
            {},
            "window (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller window.",
        ),
        ((8, 8, 3), 2, {}, "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None]."),
        ((1, 4, 7, 3), (2,), {}, "window takes one value an axis (2), got (2,). Give an int for all axes."),
        (
            (1, 4, 7, 3),
            2,
            {"padding": "FULL"},
            "padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'FULL'.",
        ),
        (
            (1, 4, 4, 3),
            2,
            {"padding": 2},
            "every window must see a pixel of x (1, 4, 4, 3), but with window (2, 2), dilation (1, 1) and padding 2 one"
            " sees padding alone. Pad less.",
        ),
    ],
)
def test_errors_word_for_word(shape, window, options, message):
    with pytest.raises(ValueError, match="max_pool2d_with_indices") as caught:
        max_pool2d_with_indices(jnp.ones(shape), window, **options)
    assert str(caught.value) == f"max_pool2d_with_indices: {message}"


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
@ranks
def test_dtypes_without_order(rank, dtype):
    message = rf"^max_pool{rank}d_with_indices: x must be floating point or integer, got {dtype}, which has no order"
    with pytest.raises(TypeError, match=message):
        POOL[rank](jnp.ones((1, *(4,) * rank, 1), dtype), 2)
