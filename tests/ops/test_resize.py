import functools
import math
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

from cnnjax.ops import _resampling as resampling
from cnnjax.ops import resize

ranks = pytest.mark.parametrize("rank", [1, 2, 3])
METHODS = ["nearest", "nearest_exact", "linear", "cubic", "area"]
COORDINATES = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
methods = pytest.mark.parametrize("method", METHODS)


def series(*values, dtype="float32"):
    return jnp.asarray(values, dtype).reshape(1, -1, 1)


def jitted(x, **options):
    """One compilation instead of one a primitive."""
    return jax.jit(functools.partial(resize, **options))(x)


# The definition once more: one output of one axis at a time, all pixels and many beyond the edges.


def position(i, n, out, scale, coordinates):
    if coordinates == "align_corners":
        return i * (n - 1) / (out - 1) if out > 1 else 0
    if coordinates == "pytorch_half_pixel" and out == 1:
        return 0
    half = 0 if coordinates == "asymmetric" else 0.5
    p = ((i + half) * n / out if scale is None else (i + half) / scale) - half
    return p + (n - out / scale) / 2 if coordinates == "half_pixel_symmetric" and scale else p


def weight(d, method, a):
    d = abs(d)
    if method == "linear":
        return max(1 - d, 0)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0


def rounded(p, rounding):
    low = math.floor(p)
    if p == low or rounding == "floor":
        return low
    if rounding == "ceil" or p - low > 0.5:
        return low + 1
    return low + (p - low == 0.5 and rounding == "round_prefer_ceil")


def weights_of_output(i, n, out, scale, method, coordinates, rounding, antialias, cubic_a, exclude_outside):
    """What output i takes from each of n pixels."""
    row, step = np.zeros(n), n / out if scale is None else 1 / scale
    p = position(i, n, out, scale, coordinates)
    half = 0.5 if method == "nearest_exact" else 0
    if method == "area":
        pixels = list(range(math.floor(i * n / out), math.ceil((i + 1) * n / out)))
        row[pixels] = 1 / len(pixels)
    elif rounding:
        row[min(max(rounded(p, rounding), 0), n - 1)] = 1
    elif out == n and coordinates == "half_pixel" and (antialias or method in ("nearest", "linear")):
        row[i] = 1
    elif method == "nearest" and coordinates == "half_pixel" and out == 2 * n:
        row[i // 2] = 1
    elif method.startswith("nearest"):
        edge = np.float32((i + half) * float(np.float32(step))) if coordinates == "half_pixel" else p + half
        row[min(max(math.floor(edge), 0), n - 1)] = 1
    else:
        if antialias and coordinates == "align_corners":
            step = (n - 1) / (out - 1) if out > 1 else 0
            p = (i + 0.5) * step - 0.5
        stretch = max(step, 1) if antialias else 1
        for j in range(-5 * n - 5, 6 * n + 5):
            if 0 <= j < n or not exclude_outside:
                row[min(max(j, 0), n - 1)] += weight((j - p) / stretch, method, cubic_a)
        if antialias or exclude_outside:
            row /= row.sum()
    return row


def reference(x, size: Any = None, *, scale: Any = None, exclude_outside=None, cubic_a=-0.75, **options):
    options = {"method": "linear", "coordinates": "half_pixel", "rounding": None, "antialias": False, **options}
    exclude_outside = options["antialias"] if exclude_outside is None else exclude_outside
    for axis in range(1, x.ndim - 1):
        n, ratio = x.shape[axis], None if scale is None else scale[axis - 1]
        out = size[axis - 1] if ratio is None else math.floor(n * ratio)
        x = np.moveaxis(x, axis, 0)
        rows = [
            weights_of_output(i, n, out, ratio, cubic_a=cubic_a, exclude_outside=exclude_outside, **options)
            for i in range(out)
        ]
        x = np.moveaxis(np.stack([sum(row[j] * x[j] for j in range(n)) for row in rows]), 0, axis)
    return x


# Values.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 6}, [1, 1.25, 1.75, 2.5, 3.5, 4]),
        ({"size": 5, "coordinates": "align_corners"}, [1, 1.5, 2, 3, 4]),
        ({"size": 1, "coordinates": "align_corners"}, [1]),
        ({"size": 1}, [2]),
        ({"size": 1, "coordinates": "pytorch_half_pixel"}, [1]),
        ({"size": 6, "coordinates": "asymmetric"}, [1, 1.5, 2, 3, 4, 4]),
        ({"scale": 0.7}, [1 + 3 / 14, 2 + 2 * 9 / 14]),
        ({"scale": 0.7, "coordinates": "half_pixel_symmetric"}, [1 + 2 / 7, 2 + 2 * 5 / 7]),
        ({"size": 2, "method": "area"}, [1.5, 3]),
        ({"size": 4, "method": "area"}, [1, 1.5, 3, 4]),
        ({"size": 5, "method": "nearest"}, [1, 1, 2, 2, 4]),
        ({"size": 5, "method": "nearest_exact"}, [1, 1, 2, 4, 4]),
        ({"size": 2, "method": "nearest"}, [1, 2]),
        ({"size": 2, "method": "nearest_exact"}, [1, 4]),
        ({"size": 2, "method": "nearest", "coordinates": "align_corners"}, [1, 4]),
        ({"size": 1, "method": "nearest", "rounding": "floor"}, [2]),
        # At 0.25 and 1.75.
        ({"size": 2, "method": "nearest", "rounding": "floor"}, [1, 2]),
        ({"size": 2, "method": "nearest", "rounding": "ceil"}, [2, 4]),
        # At 0, 0.5, 1, 1.5, 2.
        ({"size": 5, "method": "nearest", "coordinates": "align_corners", "rounding": "floor"}, [1, 1, 2, 2, 4]),
        ({"size": 5, "method": "nearest", "coordinates": "align_corners", "rounding": "ceil"}, [1, 2, 2, 4, 4]),
        (
            {"size": 5, "method": "nearest", "coordinates": "align_corners", "rounding": "round_prefer_floor"},
            [1, 1, 2, 2, 4],
        ),
        (
            {"size": 5, "method": "nearest", "coordinates": "align_corners", "rounding": "round_prefer_ceil"},
            [1, 2, 2, 4, 4],
        ),
        ({"size": 1, "antialias": True}, [(2 * 1 + 3 * 2 + 2 * 4) / 7]),
        ({"size": 1, "antialias": True, "exclude_outside": False}, [(3 * 1 + 3 * 2 + 3 * 4) / 9]),
        # Halfway, Keys' cubic weighs by (-1, 9, 9, -1) / 16.
        (
            {"scale": 2, "method": "cubic", "coordinates": "asymmetric", "cubic_a": -0.5},
            [1, (-1 + 9 + 18 - 4) / 16, 2, (-1 + 18 + 36 - 4) / 16, 4, (-2 + 36 + 36 - 4) / 16],
        ),
    ],
)
def test_by_hand(options, expected):
    np.testing.assert_allclose(jitted(series(1, 2, 4), **options).ravel(), expected, rtol=1e-6)


PICTURE = jnp.arange(1.0, 17).reshape(1, 4, 4, 1)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        (None, {"scale": 0.6, "antialias": True, "exclude_outside": False}, [[2.875, 4.5], [9.375, 11]]),
        (
            None,
            {"scale": 0.6, "method": "cubic", "antialias": True, "exclude_outside": False},
            [[2.5180721, 4.2858863], [9.589329, 11.357142]],
        ),
        (
            None,
            {"scale": 0.8, "method": "cubic", "cubic_a": -0.5, "exclude_outside": True},
            [
                [1.36812675, 2.6695014, 4.0133367],
                [6.57362535, 7.875, 9.2188353],
                [11.94896657, 13.25034122, 14.59417652],
            ],
        ),
        (
            3,
            {"method": "cubic"},
            [
                [1.63078704, 3.00462963, 4.37847222],
                [7.12615741, 8.5, 9.87384259],
                [12.62152778, 13.99537037, 15.36921296],
            ],
        ),
        ((3, 1), {"coordinates": "pytorch_half_pixel"}, [[5 / 3], [7], [37 / 3]]),
    ],
)
def test_published_vectors_of_onnx(size, options, expected):
    np.testing.assert_allclose(jitted(PICTURE, size=size, **options)[0, :, :, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "options", "rows", "columns"),
    [
        ((7, 8), {"rounding": "round_prefer_floor"}, [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]),
        (8, {"rounding": "ceil"}, [0, 1, 1, 2, 2, 3, 3, 3], [0, 1, 1, 2, 2, 3, 3, 3]),
        (
            8,
            {"rounding": "floor", "coordinates": "align_corners"},
            [0, 0, 0, 1, 1, 2, 2, 3],
            [0, 0, 0, 1, 1, 2, 2, 3],
        ),
        (
            8,
            {"rounding": "round_prefer_ceil", "coordinates": "asymmetric"},
            [0, 1, 1, 2, 2, 3, 3, 3],
            [0, 1, 1, 2, 2, 3, 3, 3],
        ),
    ],
)
def test_published_roundings_of_onnx(size, options, rows, columns):
    n = 1 + max(rows)
    y = jitted(PICTURE[:, :n, :n], size=size, method="nearest", **options)
    np.testing.assert_array_equal(y, PICTURE[:, rows][:, :, columns])


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [(None, [1, 2, 3, 4]), ("floor", [1, 1, 2, 3]), ("round_prefer_floor", [1, 2, 3, 3]), ("ceil", [1, 2, 3, 4])],
)
def test_a_rounding_sees_a_scale_that_keeps_the_size(rounding, expected):
    """The positions are -1/12, 9/12, 19/12 and 29/12."""
    y = jitted(series(1, 2, 3, 4), scale=1.2, method="nearest", rounding=rounding)
    np.testing.assert_array_equal(y.ravel(), expected)


# Against the loops.


@st.composite
def calls(draw):
    """An array and the options of a call."""
    rank = draw(st.integers(1, 3))
    spatial = [draw(st.integers(1, (12, 7, 4)[rank - 1])) for _ in range(rank)]
    method = draw(st.sampled_from(METHODS))
    options = {"method": method}
    if method == "nearest":
        options["rounding"] = draw(st.sampled_from([None, *ROUNDINGS]))
    if method != "area":
        options["coordinates"] = draw(st.sampled_from(COORDINATES[: 3 if method.startswith("nearest") else 5]))
    if method in ("linear", "cubic"):
        options["antialias"] = draw(st.booleans())
        options["exclude_outside"] = draw(st.sampled_from([None, True, False]))
    if method == "cubic":
        options["cubic_a"] = draw(st.sampled_from([-0.75, -0.5, -1.0]))
    if draw(st.booleans()):
        options["size"] = tuple(draw(st.integers(1, (20, 10, 6)[rank - 1])) for _ in spatial)
    else:
        options["scale"] = tuple(draw(st.floats(1 / n, 2.5) | st.sampled_from([1.0, 1.5, 2.0, 1.05])) for n in spatial)
    shape = (draw(st.integers(1, 2)), *spatial, draw(st.integers(1, 2)))
    return draw(st.integers(0, 2**16)), shape, draw(st.sampled_from(["float64", "float32", "bfloat16"])), options


TOLERANCES = {"float64": 1e-11, "float32": 1e-5, "bfloat16": 1e-2}


@drawn
@given(calls())
def test_any_call_against_loops(call):
    """The value, and the gradient along a random direction: resizing is linear."""
    seed, shape, dtype, options = call
    with jax.enable_x64(True):
        x = jnp.asarray(normal(seed, *shape), dtype)
    y, (gradient,) = value_and_grads(lambda x: resize(x, **options), x)
    assert y.dtype == gradient.dtype == dtype
    direction = normal(seed + 1, *shape)
    close(f"resize {dtype}", y, reference(np.asarray(x, "float64"), **options), TOLERANCES[dtype])
    weights = weights_of(y.shape).astype(y.dtype).astype("float64")
    ours = np.vdot(np.asarray(gradient, "float64"), direction)
    theirs = np.vdot(weights, reference(direction, **options))
    close(f"resize {dtype} gradient", ours, theirs, TOLERANCES[dtype] * math.sqrt(y.size))


# Against PyTorch. One compilation covers many sizes: they are resized side by side.


SIZES = {
    1: [{"size": 1}, {"size": 7}, {"size": 23}, {"size": 11}, {"scale": 0.6}, {"scale": 1.7}],
    2: [{"size": (1, 1)}, {"size": (3, 9)}, {"size": (14, 5)}, {"size": 7}, {"scale": (1.7, 0.6)}, {"scale": 2.0}],
    3: [{"size": 2}, {"size": (3, 4, 9)}, {"size": (4, 1, 3)}, {"scale": (0.6, 1.7, 2.4)}],
}
SPATIAL = {1: (11,), 2: (7, 6), 3: (4, 3, 5)}
TORCH = {
    "nearest": {1: "nearest", 2: "nearest", 3: "nearest"},
    "nearest_exact": {1: "nearest-exact", 2: "nearest-exact", 3: "nearest-exact"},
    "linear": {1: "linear", 2: "bilinear", 3: "trilinear"},
    "cubic": {2: "bicubic"},
    "area": {1: "area", 2: "area", 3: "area"},
}
COMPARABLE = [
    (method, rank, coordinates, antialias)
    for method, modes in TORCH.items()
    for rank in modes
    for coordinates in (["half_pixel", "align_corners"] if method in ("linear", "cubic") else ["half_pixel"])
    for antialias in ([False, True] if rank == 2 and method in ("linear", "cubic") else [False])
]


def torch_resize(x, method, coordinates, antialias, size=None, scale=None):
    """PyTorch's, channels last."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    corners = {"align_corners": coordinates == "align_corners"} if method in ("linear", "cubic") else {}
    mode = TORCH[method][x.ndim - 2]
    return last(functional.interpolate(first(x), size, scale, mode=mode, antialias=antialias, **corners))


@pytest.mark.parametrize(("method", "rank", "coordinates", "antialias"), COMPARABLE)
def test_against_torch(method, rank, coordinates, antialias):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = normal(0, 2, *SPATIAL[rank], 3)
    options = {"method": method, "coordinates": coordinates, "antialias": antialias}
    cubic = {"cubic_a": -0.5} if antialias else {}
    ours = value_and_grads(
        lambda x: jnp.concatenate([resize(x, **options, **cubic, **sizes).ravel() for sizes in SIZES[rank]]), x
    )
    theirs = torch_value_and_grads(
        lambda x: torch.cat([torch_resize(x, **options, **sizes).reshape(-1) for sizes in SIZES[rank]]), x
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("method", ["nearest", "nearest_exact"])
def test_nearest_pixels_against_torch(method):
    """The float32 of the steps decides where the quotient is, or is nearly, a whole number."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    mode = method.replace("_", "-")
    for n in range(1, 60):
        column = torch.arange(float(n)).reshape(1, 1, n, 1)
        for out in {1, 7, n, 2 * n, 49, n + 1, 41}:
            theirs = torch.nn.functional.interpolate(column, size=(out, 1), mode=mode).ravel()
            table = resampling.torch_nearest(n, out, None, exact=method == "nearest_exact")
            np.testing.assert_array_equal(table.indices[:, 0], theirs, err_msg=f"{n} to {out}")


@pytest.mark.parametrize("method", ["nearest", "nearest_exact", "linear"])
def test_scales_that_hardly_change_the_size_against_torch(method):
    """One axis keeps its 20 pixels, whatever the scale says; one of 4 doubles."""
    x, scale = normal(0, 1, 20, 4, 2), (1.04, 2.2)
    ours = value_and_grads(lambda x: resize(x, scale=scale, method=method), x)
    theirs = torch_value_and_grads(lambda x: torch_resize(x, method, "half_pixel", False, scale=scale), x)
    assert_same(ours, theirs)


@pytest.mark.parametrize("antialias", [False, True])
def test_cubic_scales_that_hardly_change_the_size_against_torch(antialias):
    """The values alone: PyTorch's gradients are not those of its values here."""
    x, options = normal(0, 1, 20, 4, 2), {"method": "cubic", "antialias": antialias}
    with jax.enable_x64(True):
        y = jitted(x, scale=(1.04, 2.2), cubic_a=-0.5 if antialias else -0.75, **options)
    theirs, _ = torch_value_and_grads(
        lambda x: torch_resize(x, coordinates="half_pixel", scale=(1.04, 2.2), **options), x
    )
    np.testing.assert_allclose(y, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "coordinates", "antialias"),
    [
        ("nearest", "half_pixel", False),
        ("linear", "half_pixel", False),
        ("linear", "align_corners", False),
        ("linear", "half_pixel", True),
        ("cubic", "half_pixel", False),
        ("cubic", "align_corners", False),
        ("cubic", "half_pixel", True),
        ("area", "half_pixel", False),
    ],
)
def test_not_finite_travels_as_in_torch(method, coordinates, antialias):
    options = {"method": method, "coordinates": coordinates, "antialias": antialias}
    x = normal(0, 4, 5, 6, 1)
    x[:, 1, 1, 0], x[:, 4, 4, 0] = [np.nan, np.inf, -np.inf, np.inf], [np.nan, np.inf, -np.inf, -np.inf]
    for size in [(10, 11), (3, 4)]:
        theirs, _ = torch_value_and_grads(lambda x, size=size: torch_resize(x, size=size, **options), x)
        with jax.enable_x64(True):
            y = jitted(x, size=size, cubic_a=-0.5 if antialias else -0.75, **options)
        assert np.isnan(theirs).any()
        np.testing.assert_allclose(y, theirs, rtol=1e-10)


@methods
def test_not_finite_stays_where_it_is_seen(method):
    x = jnp.ones((1, 9, 7, 1)).at[0, 4, 3].set(jnp.nan)
    y = jitted(x, size=(18, 7), method=method)[0, :, :, 0]
    np.testing.assert_array_equal(np.isnan(y).any(0), np.arange(7) == 3)
    assert 2 <= np.isnan(y).sum() <= 8


# Transformations.


@ranks
@ways
def test_every_way(way, rank):
    x, size = normal(0, 2, *(5, 4, 3)[:rank], 2, dtype="float32"), (7, 2, 3)[:rank]
    y = way(lambda x: resize(x, size, method="cubic"))(x)
    np.testing.assert_allclose(y, reference(x, size, method="cubic"), rtol=1e-5, atol=1e-5)


@ways
def test_gradient_every_way(way):
    x, direction = normal(0, 2, 5, 4, 2, dtype="float32"), normal(1, 2, 5, 4, 2)
    weights = weights_of((2, 3, 9, 2)).astype("float32")
    gradient = way(jax.grad(lambda x: jnp.sum(weights * resize(x, (3, 9), antialias=True))))(x)
    expected = np.vdot(weights, reference(direction, (3, 9), antialias=True))
    np.testing.assert_allclose(np.vdot(gradient, direction), expected, rtol=1e-4)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, 4, 3, 1))
        check_grads(jax.jit(lambda x: resize(x, (3, 5)) ** 2), (x,), order=2, modes=["fwd", "rev"])


@methods
def test_the_tangent_is_that_of_a_linear_map(method):
    x, tangent = normal(0, 1, 4, 3, 2, dtype="float32"), normal(1, 1, 4, 3, 2, dtype="float32")
    run = functools.partial(resize, size=(3, 5), method=method)
    y, moved = jax.jit(lambda x, tangent: jax.jvp(run, (x,), (tangent,)))(x, tangent)
    np.testing.assert_allclose(y, reference(x, (3, 5), method=method), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved, reference(tangent, (3, 5), method=method), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "out"), [(3, 70), (70, 3), (40, 1), (1, 40)])
def test_many_taps_are_added_in_groups(n, out):
    x = normal(0, 1, n, 2)
    for options in [{"method": "area"}, {"method": "cubic", "antialias": True}]:
        y, (gradient,) = value_and_grads(lambda x, options=options: resize(x, out, **options), x)
        np.testing.assert_allclose(y, reference(x, (out,), **options), rtol=1e-10, atol=1e-10)
        weights, direction = weights_of(y.shape), normal(1, *x.shape)
        expected = np.vdot(weights, reference(direction, (out,), **options))
        np.testing.assert_allclose(np.vdot(gradient, direction), expected, rtol=1e-9)


def test_the_gradient_gathers():
    """Scatters are slow on CPU, and on GPU not deterministic."""
    x = jnp.ones((1, 5, 6, 2))
    for options in [{}, {"method": "cubic"}, {"method": "nearest"}, {"method": "area"}, {"antialias": True}]:
        gradient = jax.jit(jax.grad(lambda x, options=options: resize(x, (7, 4), **options).sum()))
        assert "scatter" not in gradient.lower(x).as_text()


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(resize(resize(y, 9), 6, method="cubic"))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2)))(x)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return resize(x, scale=1.5, method="cubic", antialias=True)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@methods
def test_half_precision_is_rounded_once(dtype, method):
    x = jnp.asarray(normal(0, 2, 5, 4, 3), dtype)

    @jax.jit
    def run(x):
        y, pull = jax.vjp(functools.partial(resize, size=(8, 3), method=method), x)
        return y, pull(jnp.cos(5 * y.astype(dtype)).astype(y.dtype))[0]

    (y, gradient), (wide, wide_gradient) = run(x), run(x.astype("float32"))
    assert y.dtype == gradient.dtype == dtype
    np.testing.assert_array_equal(y, wide.astype(dtype))
    np.testing.assert_array_equal(gradient, wide_gradient.astype(dtype))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "complex64"])
@pytest.mark.parametrize("method", ["nearest", "nearest_exact"])
def test_labels(dtype, method):
    labels = np.array([0, 1, 5, 200]).reshape(1, 2, 2, 1).astype(dtype)
    y = resize(jnp.asarray(labels), (2, 4), method=method)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, labels.repeat(2, 2))


def test_labels_beside_a_gradient():
    labels = jnp.arange(4).reshape(1, 4, 1)
    loss = jax.jit(jax.grad(lambda x: jnp.sum(resize(x, 8) * resize(labels, 8, method="nearest"))))
    np.testing.assert_allclose(loss(jnp.ones((1, 4, 1))).sum(), 12)


@methods
def test_empty_axes(method):
    y, pull = jax.vjp(lambda x: resize(x, (7, 40), method=method), jnp.ones((0, 4, 3, 2)))
    assert y.shape == (0, 7, 40, 2)
    assert pull(y)[0].shape == (0, 4, 3, 2)
    assert resize(jnp.ones((2, 4, 3, 0)), (7, 40), method=method).shape == (2, 7, 40, 0)


def test_the_same_size_is_a_copy():
    x = normal(0, 2, 4, 3, 2, dtype="float32")
    for method in METHODS:
        np.testing.assert_array_equal(resize(x, (4, 3), method=method), x)
    assert "gather" not in str(jax.make_jaxpr(lambda x: resize(x, (4, 3), method="cubic"))(x))


@pytest.mark.parametrize(
    ("n", "scale", "out"), [(5, 0.6, 3), (7, 1.5, 10), (10, 0.29, 2), (3, np.float32(2), 6), (4, 1, 4)]
)
def test_size_of_a_scale(n, scale, out):
    assert resize(jnp.ones((1, n, 1)), scale=scale).shape == (1, out, 1)


def test_takes_what_is_no_jax_array():
    assert resize([[[1.0], [2.0]]], np.int64(4)).ravel().tolist() == [1, 1.25, 1.75, 2]  # pyright: ignore[reportArgumentType]


# Errors.


X = jnp.ones((1, 4, 7, 3))


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X, {}, "resize: give either size or scale, got neither."),
        (X, {"size": 8, "scale": 2.0}, "resize: give either size or scale, got both."),
        (X, {"size": 0}, "resize: size must be at least 1, got 0."),
        (X, {"size": (8, 8, 8)}, "resize: size takes one value an axis (2), got (8, 8, 8). Give an int for all axes."),
        (X, {"scale": (2.0,)}, "resize: scale takes one value an axis (2), got (2.0,). Give a number for all axes."),
        (X, {"scale": 0.2}, "resize: scale 0.2 leaves no pixel of 4 along H. Use a larger scale, or give the size."),
        (X, {"scale": (1.0, -2)}, "resize: scale must be above 0 and finite, got (1.0, -2)."),
        (X, {"scale": float("nan")}, "resize: scale must be above 0 and finite, got nan."),
        (
            X,
            {"size": 8, "method": "bilinear"},
            "resize: method must be one of nearest, nearest_exact, linear, cubic, area, got 'bilinear'.",
        ),
        (
            X,
            {"size": 8, "coordinates": "tf_crop_and_resize"},
            "resize: coordinates must be one of half_pixel, align_corners, asymmetric, pytorch_half_pixel,"
            " half_pixel_symmetric, got 'tf_crop_and_resize'.",
        ),
        (
            X,
            {"size": 8, "method": "area", "coordinates": "align_corners"},
            "resize: area takes coordinates half_pixel alone, got 'align_corners'. Use another method.",
        ),
        (
            X,
            {"size": 8, "method": "nearest", "rounding": "round"},
            "resize: rounding must be one of floor, ceil, round_prefer_floor, round_prefer_ceil, got 'round'.",
        ),
        (
            X,
            {"size": 8, "method": "nearest_exact", "rounding": "floor"},
            "resize: rounding is for nearest, got method 'nearest_exact'. Leave it out.",
        ),
        (
            X,
            {"size": 8, "method": "nearest", "antialias": True},
            "resize: antialias is for linear and cubic, got method 'nearest'. Leave it out.",
        ),
        (
            jnp.ones((8, 8)),
            {"size": 8},
            "resize: x must be (N, *spatial, C) with one to three spatial axes, got shape (8, 8)."
            " Add a batch axis with x[None].",
        ),
        (
            jnp.ones((1,) * 6),
            {"size": 8},
            "resize: x must be (N, *spatial, C) with one to three spatial axes, got shape (1, 1, 1, 1, 1, 1)."
            " Use vmap for more batch axes.",
        ),
        (
            jnp.ones((1, 0, 8, 3)),
            {"size": 8},
            "resize: x must have pixels, got shape (1, 0, 8, 3). Only the batch axis may be empty.",
        ),
    ],
)
def test_errors_word_for_word(x, options, message):
    with pytest.raises(ValueError, match="resize") as caught:
        resize(x, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X, {"size": 8.0}, r"^resize: size must be an int or 2 ints, got 8.0"),
        (X, {"scale": "2"}, r"^resize: scale must be a number or 2 numbers, got '2'"),
        (X, {"scale": (1.0, None)}, r"^resize: scale must be a number or 2 numbers, got \(1.0, None\)"),
        (X.astype(int), {"size": 8}, r"^resize: x must be floating point, got int32"),
        (X.astype("complex64"), {"size": 8}, r"^resize: x must be floating point, got complex64"),
    ],
)
def test_errors_of_type(x, options, message):
    with pytest.raises(TypeError, match=message):
        resize(x, **options)


def test_a_traced_size_is_refused():
    with pytest.raises(TypeError, match=r"^resize: size must be an int or 2 ints"):
        jax.jit(lambda size: resize(X, size))(8)
    with pytest.raises(TypeError, match=r"^resize: scale must be a number or 2 numbers"):
        jax.jit(lambda scale: resize(X, scale=scale))(2.0)
