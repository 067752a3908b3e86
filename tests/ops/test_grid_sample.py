"""Values, derivatives and transformations of grid sampling, PyTorch's corner cases, and its errors."""

import functools
import itertools
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

from cnnjax.ops import grid_sample2d, grid_sample3d

OP: dict[int, Any] = {2: grid_sample2d, 3: grid_sample3d}
OPTIONS = ("method", "padding", "align_corners")
SAMPLE: dict[int, Any] = {rank: jax.jit(op, static_argnames=OPTIONS) for rank, op in OP.items()}
METHODS, PADDINGS = ("nearest", "linear", "cubic"), ("zeros", "border", "reflection")
TORCH = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}
ranks = pytest.mark.parametrize("rank", [2, 3])
methods = pytest.mark.parametrize("method", METHODS)
paddings = pytest.mark.parametrize("padding", PADDINGS)
corners = pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])


def row(*values):
    """A picture of one row."""
    return jnp.array(values, jnp.float32).reshape(1, 1, -1, 1)


def along(*xs):
    """The points of one row, in the middle of the picture's height."""
    return jnp.stack([jnp.array(xs, jnp.float32), jnp.zeros(len(xs))], -1)[None, None]


def identity(sizes, align_corners):
    """The grid whose points are the pixels."""
    ends = [np.linspace(-1, 1, n) if align_corners else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    return np.stack(np.meshgrid(*ends, indexing="ij")[::-1], -1)[None]


# Known values.


@pytest.mark.parametrize(
    ("xs", "options", "expected"),
    [
        ([-0.75, 0, 1, 1.25, -1.5], {}, [1, 3, 4, 0, 0]),
        ([-1, 0.5, 1, 1.25, -1.5], {"padding": "border"}, [1, 6, 8, 8, 1]),
        ([-1, 1.25, 1.5, -2.5, 4.75], {"padding": "reflection"}, [1, 8, 6, 6, 8]),
        ([-1.5, -1, -1 / 3, 0, 4 / 3], {"align_corners": True}, [0.25, 1, 2, 3, 4]),
        ([-5 / 3, -1, 0, 1, 5 / 3], {"align_corners": True, "padding": "reflection"}, [2, 1, 3, 8, 4]),
        ([-0.5, 0, 0.5, 1.01, 1.3], {"method": "nearest"}, [1, 4, 4, 0, 0]),
        ([-0.5, 0, 0.5, 1.01, 1.3], {"method": "nearest", "padding": "border"}, [1, 4, 4, 8, 8]),
        ([-0.5, 0, 0.5, 1.3, 2.0], {"method": "nearest", "padding": "reflection"}, [1, 4, 4, 8, 4]),
        # Halfway between two pixels the weights are -0.09375, 0.59375, 0.59375, -0.09375.
        ([0, -1, -1.5, 0.25, 3], {"method": "cubic"}, [2.71875, 0.40625, -0.09375, 4, 0]),
        ([0, -1, -1.5, 0.25, 3], {"method": "cubic", "padding": "border"}, [2.71875, 0.90625, 1, 4, 8]),
        ([0, -1, -1.5, 0.25, 1.75], {"method": "cubic", "padding": "reflection"}, [2.71875, 0.8125, 1.3125, 4, 4]),
    ],
)
def test_row_by_hand(xs, options, expected):
    y = SAMPLE[2](row(1, 2, 4, 8), along(*xs), **options)
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6, atol=1e-6)


@methods
@corners
def test_the_pixels_themselves(method, align_corners):
    x = normal(0, 1, 3, 4, 2, dtype="float32")
    grid = identity((3, 4), align_corners).astype("float32")
    y = SAMPLE[2](x, grid, method=method, align_corners=align_corners)
    np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)


def test_the_column_comes_first():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    y = SAMPLE[2](x, jnp.array([[1.0, -1.0], [-1.0, 1.0]]).reshape(1, 1, 2, 2), align_corners=True)
    np.testing.assert_array_equal(y.ravel(), [2, 3])
    x = jnp.arange(24.0).reshape(1, 2, 3, 4, 1)
    y = SAMPLE[3](x, jnp.eye(3).reshape(1, 1, 1, 3, 3) * 2 - 1, align_corners=True)
    np.testing.assert_array_equal(y.ravel(), [3, 8, 12])


# Against loops.


def place(coordinate, n, align_corners):
    return (coordinate + 1) * (n - 1) / 2 if align_corners else ((coordinate + 1) * n - 1) / 2


def inward(position, n, padding, align_corners):
    """Where a position is read, and how fast that moves with it."""
    slope = 1
    if padding == "reflection":
        low, high = (0, n - 1) if align_corners else (-0.5, n - 0.5)
        while n > 1 and not low <= position <= high:
            position = 2 * (low if position < low else high) - position
            slope = -slope
    if padding != "zeros" and not 0 < position < n - 1:
        return min(max(position, 0), n - 1), 0
    return position, slope


def keys(d):
    d, a = abs(d), -0.75
    return ((a + 2) * d - (a + 3)) * d**2 + 1 if d <= 1 else ((d - 5) * d + 8) * d * a - 4 * a if d < 2 else 0


def keys_slope(d):
    sign, d, a = math.copysign(1, d), abs(d), -0.75
    return sign * (3 * (a + 2) * d - 2 * (a + 3)) * d if d <= 1 else sign * a * ((3 * d - 10) * d + 8) if d < 2 else 0


def axis_taps(coordinate, n, method, padding, align_corners):
    """The pixels of an axis that a point reads: (index, weight, the weight's derivative by the coordinate)."""
    position, scale = place(coordinate, n, align_corners), (n - 1 if align_corners else n) / 2
    if method == "cubic":
        low = math.floor(position)
        taps = [
            (inward(p, n, padding, align_corners)[0], keys(p - position), -scale * keys_slope(p - position))
            for p in range(low - 1, low + 3)
        ]
    else:
        position, slope = inward(position, n, padding, align_corners)
        low, slope = math.floor(position), slope * scale
        taps = [(low, low + 1 - position, -slope), (low + 1, position - low, slope)]
        if method == "nearest":
            taps = [(round(position), 1, 0)]
    return [(int(p), weight, derivative) for p, weight, derivative in taps if 0 <= p < n]


def loops(x, grid, weights, **options):
    """The value and the gradients of its weighted sum, point by point and tap by tap."""
    y, to_x, to_grid = np.zeros((*grid.shape[:-1], x.shape[-1])), np.zeros(x.shape), np.zeros(grid.shape)
    for point in np.ndindex(grid.shape[:-1]):
        axes = [axis_taps(c, n, **options) for c, n in zip(grid[point][::-1], x.shape[1:-1], strict=True)]
        for taps in itertools.product(*axes):
            at = (point[0], *(index for index, _, _ in taps))
            y[point] += math.prod(weight for _, weight, _ in taps) * x[at]
            to_x[at] += math.prod(weight for _, weight, _ in taps) * weights[point]
            for axis, (_, _, derivative) in enumerate(taps):
                others = math.prod(weight for i, (_, weight, _) in enumerate(taps) if i != axis)
                to_grid[(*point, len(taps) - 1 - axis)] += derivative * others * (x[at] @ weights[point])
    return y, [to_x, to_grid]


PRECISION = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 2**-7, "float16": 2**-10}


@st.composite
def calls(draw):
    """Shapes and options; coordinates that every dtype holds exactly, often on a pixel or on an edge."""
    rank = draw(st.integers(2, 3))
    sizes = [draw(st.integers(1, (7, 4)[rank - 2])) for _ in range(rank)]
    points = [draw(st.integers(1, (4, 2)[rank - 2])) for _ in range(rank)]
    batch, channels = draw(st.sampled_from([1, 2, 2, 1, 0])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (batch, *points, rank)
    reach = draw(st.sampled_from([64, 128]))
    grid = np.where(rng.random(shape) < 0.2, rng.choice([-1000, -3, -1, 0, 1, 3, 1000], shape), 0.0)
    grid = np.where(grid == 0, rng.integers(-reach - 32, reach + 33, shape) / 64, grid)
    return rng.normal(size=(batch, *sizes, channels)), grid


@drawn
@given(calls(), st.sampled_from(METHODS), st.sampled_from(PADDINGS), st.booleans(), st.sampled_from(list(PRECISION)))
def test_any_options_against_loops(call, method, padding, align_corners, dtype):
    x, grid = (arg.astype(jnp.dtype(dtype)) for arg in call)
    options = {"method": method, "padding": padding, "align_corners": align_corners}
    op = OP[x.ndim - 2]
    y, grads = value_and_grads(lambda x, grid: op(x, grid, **options), x, grid)
    assert {array.dtype.name for array in (y, *grads)} == {dtype}
    weights = np.asarray(weights_of(y.shape).astype(y.dtype), np.float64)
    value, gradients = loops(x.astype("float64"), call[1], weights, **options)
    for our, their in zip((y, *grads), (value, *gradients), strict=True):
        close(f"grid_sample, {dtype}", our, their, PRECISION[dtype])


# Against PyTorch.


def torch_sample(x, grid, method, padding, align_corners):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    y = torch.nn.functional.grid_sample(
        first(x), grid, mode=TORCH[method], padding_mode=padding, align_corners=align_corners
    )
    return last(y)


def grid_of(rank, *points):
    """Random points around the picture, some on its corners, at its middle and far off, and some on pixels."""
    grid = normal(1, 2, *points, rank)
    grid.reshape(-1, rank)[:5] = np.array([[-1, 1, -1], [1, 1, 1], [0, 0, 0], [40.3, -71.9, 13], [0.5, -1, 0.25]])[
        :, :rank
    ]
    return grid


CALLS = [
    *itertools.product([2], METHODS, PADDINGS, [False, True]),
    *((3, method, padding, padding == "border") for method in METHODS[:2] for padding in PADDINGS),
]


@pytest.mark.parametrize(("rank", "method", "padding", "align_corners"), CALLS)
def test_against_torch(rank, method, padding, align_corners):
    x, grid = normal(0, 2, *(4, 5, 3)[:rank], 2), grid_of(rank, *(3, 4, 2)[:rank])
    options = {"method": method, "padding": padding, "align_corners": align_corners}
    ours = value_and_grads(lambda x, grid: OP[rank](x, grid, **options), x, grid)
    assert_same(ours, torch_value_and_grads(lambda x, grid: torch_sample(x, grid, **options), x, grid))


@corners
@pytest.mark.parametrize("sizes", [(1, 3), (1, 2, 1)])
def test_axes_of_one_pixel_against_torch(sizes, align_corners):
    rank = len(sizes)
    x, grid = normal(0, 2, *sizes, 2), grid_of(rank, *(2, 3, 1)[:rank])
    methods = ("linear", "cubic") if rank == 2 else ("linear",)

    def ours(x, grid):
        each = [OP[rank](x, grid, method=m, padding=p, align_corners=align_corners) for m in methods for p in PADDINGS]
        return jnp.concatenate(each, -1)

    def theirs(x, grid):
        torch = pytest.importorskip("torch", reason="compares with PyTorch")
        return torch.cat([torch_sample(x, grid, m, p, align_corners) for m in methods for p in PADDINGS], -1)

    assert_same(value_and_grads(ours, x, grid), torch_value_and_grads(theirs, x, grid))


@ranks
@paddings
def test_coordinates_that_are_not_finite_against_torch(rank, padding):
    """Values alone: PyTorch's gradient reads outside its memory here."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = normal(0, 1, *(2, 3, 4)[:rank], 1)
    grid = np.full((1, *(1,) * (rank - 1), 3 * rank, rank), 0.25)
    for i, (axis, value) in enumerate(itertools.product(range(rank), [np.nan, np.inf, -np.inf])):
        grid[..., i, axis] = value
    with jax.enable_x64(True):
        for method in METHODS[: 4 - rank + 1]:
            theirs = torch_sample(torch.tensor(x), torch.tensor(grid), method, padding, False)
            np.testing.assert_allclose(SAMPLE[rank](x, grid, method=method, padding=padding), theirs, rtol=1e-12)


@methods
@paddings
def test_pixels_that_are_not_finite_against_torch(method, padding):
    """A pixel with weight 0 is read all the same, one outside is not."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = np.ones((1, 3, 5, 2))
    x[0, 1, 4, 0], x[0, 1, 0, 0], x[0, 0, 0, 1] = np.inf, np.nan, -np.inf
    grid = np.stack(np.meshgrid(np.linspace(-1.5, 1.5, 13), np.linspace(-1.5, 1.5, 7)), -1)[None]
    with jax.enable_x64(True):
        ours = SAMPLE[2](x, grid, method=method, padding=padding, align_corners=True)
    theirs = torch_sample(torch.tensor(x), torch.tensor(grid), method, padding, True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@ranks
def test_a_lost_point_does_not_spoil_the_gradients_of_the_others(rank):
    x, grid = normal(0, 1, *(3,) * rank, 1, dtype="float32"), normal(1, 1, *(2,) * rank, rank, dtype="float32")
    grid[(0,) * (rank + 1)] = np.nan

    @jax.jit
    @jax.grad
    def gradient(args):
        return sum(jnp.nansum(OP[rank](*args, padding=padding)) for padding in PADDINGS)

    to_x, to_grid = gradient((x, grid))
    assert np.isfinite(to_x).all()
    assert np.isfinite(to_grid.reshape(-1, rank)[1:]).all()


# Transformations.


@ways
def test_every_way(way):
    x, grid = normal(0, 2, 3, 4, 2), normal(1, 2, 2, 3, 2)
    options = {"method": "linear", "padding": "reflection", "align_corners": False}
    y = way(lambda *args: grid_sample2d(*args, **options))(x.astype("float32"), grid.astype("float32"))
    np.testing.assert_allclose(y, loops(x, grid, np.zeros(y.shape), **options)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_any_argument(axes):
    args = normal(0, 3, 2, 4, 3, 2, dtype="float32"), normal(1, 3, 2, 2, 5, 2, dtype="float32")
    args = [arg if axis == 0 else arg[0] for arg, axis in zip(args, axes, strict=True)]
    y = jax.jit(jax.vmap(grid_sample2d, axes))(*args)
    for i in range(3):
        one = SAMPLE[2](*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "method"), [(2, "cubic"), (3, "linear")])
def test_derivatives_against_differences(rank, method):
    """At points between the pixels, where the derivative is one."""
    rng = np.random.default_rng(0)
    position = rng.integers(-1, 4, (1, *(2,) * rank, rank)) + rng.uniform(0.2, 0.8, (1, *(2,) * rank, rank))
    with jax.enable_x64(True):
        run = jax.jit(lambda *args: OP[rank](*args, method=method, padding="reflection"))
        args = jnp.asarray(normal(0, 1, *(4,) * rank, 2)), jnp.asarray((2 * position + 1) / 4 - 1)
        check_grads(run, args, order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, grids = normal(0, 1, 3, 4, 2, dtype="float32"), normal(1, 3, 1, 3, 4, 2, dtype="float32")

    def loop(grids):
        y = x
        for grid in grids:
            y = jnp.tanh(grid_sample2d(y, grid))
        return jnp.sum(y**2)

    def scanned(grids):
        layer = jax.checkpoint(lambda y, grid: (jnp.tanh(grid_sample2d(y, grid)), None))
        return jnp.sum(lax.scan(layer, jnp.asarray(x), grids)[0] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(way))(grids) for way in (scanned, loop))
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5)


def test_no_recompilation():
    run = jax.jit(chex.assert_max_traces(grid_sample2d, n=1))
    for seed in range(3):
        run(normal(seed, 1, 5, 5, 2, dtype="float32"), normal(seed, 1, 2, 3, 2, dtype="float32"))


@methods
def test_one_gather(method):
    jaxpr = str(
        jax.make_jaxpr(functools.partial(grid_sample3d, method=method))(
            jnp.ones((2, 3, 3, 3, 1)), jnp.ones((2, 2, 2, 2, 3))
        )
    )
    assert jaxpr.count("gather[") == 1


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """Value and gradient: a thousand points add up at one pixel."""
    x, grid = (jnp.asarray(normal(seed, 1, *shape) * 0.3, dtype) for seed, shape in enumerate([(2, 3, 2), (40, 50, 2)]))

    @jax.jit
    def run(x, grid):
        y, pull = jax.vjp(grid_sample2d, x, grid)
        return y, *pull(jnp.ones_like(y))

    for ours, wide in zip(run(x, grid), run(x.astype("float32"), grid.astype("float32")), strict=True):
        assert not (wide == wide.astype(dtype)).all()
        np.testing.assert_array_equal(ours, wide.astype(dtype))


def test_the_grid_keeps_its_own_precision():
    """Neighbouring pixels of 1024 that bfloat16 does not tell apart."""
    x = jnp.arange(1024.0).reshape(1, 1, 1024, 1)
    points = along(*((2 * np.arange(700, 703) + 1) / 1024 - 1))
    y, pull = jax.vjp(SAMPLE[2], (x % 256).astype("bfloat16"), points)
    np.testing.assert_array_equal(y.astype("float32").ravel(), np.arange(700, 703) % 256)
    assert [grad.dtype for grad in pull(y)] == ["bfloat16", "float32"]
    with jax.enable_x64(True):
        assert SAMPLE[2](x, points.astype("float64")).dtype == "float32"


def test_complex():
    """As two pictures, also to the gradient of the grid."""
    x, grid = normal(0, 1, 3, 3, 2) + 1j * normal(1, 1, 3, 3, 2), normal(2, 1, 2, 2, 2)
    y, (gradient,) = value_and_grads(lambda grid: jnp.square(jnp.abs(grid_sample2d(x, grid))), grid)
    parts = value_and_grads(lambda grid: grid_sample2d(x.real, grid) ** 2 + grid_sample2d(x.imag, grid) ** 2, grid)
    assert_same((y, [gradient]), parts)


@ranks
def test_batch_of_none_and_no_channels(rank):
    for batch, channels in [(0, 2), (2, 0)]:
        x, grid = np.ones((batch, *(3,) * rank, channels)), np.ones((batch, *(2,) * rank, rank))
        y, grads = value_and_grads(OP[rank], x, grid)
        assert y.shape == (batch, *(2,) * rank, channels)
        assert [grad.shape for grad in grads] == [x.shape, grid.shape]


def test_batch_of_one_is_one_of_many():
    x, grid = normal(0, 3, 4, 5, 2, dtype="float32"), normal(1, 3, 2, 3, 2, dtype="float32")
    np.testing.assert_allclose(SAMPLE[2](x, grid)[1:2], SAMPLE[2](x[1:2], grid[1:2]), rtol=1e-6)


# Errors.


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, GRID = ones(2, 8, 8, 3), ones(2, 4, 5, 2)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((ones(8, 8, 3), GRID), {}, "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None]."),
        (
            (ones(2, 0, 8, 3), GRID),
            {},
            "x must have pixels, got shape (2, 0, 8, 3). Only the batch axis may be empty.",
        ),
        (
            (PICTURE, ones(4, 5, 2)),
            {},
            "grid must be (N, Ho, Wo, 2), the (x, y) of every point, got shape (4, 5, 2).",
        ),
        (
            (PICTURE, ones(2, 4, 5, 3)),
            {},
            "grid must be (N, Ho, Wo, 2), the (x, y) of every point, got shape (2, 4, 5, 3).",
        ),
        (
            (PICTURE, ones(2, 2, 4, 5)),
            {},
            "grid (2, 2, 4, 5) looks channels-first: the (x, y) of a point come last. Use grid.transpose(0, 2, 3, 1).",
        ),
        (
            (PICTURE, ones(1, 4, 5, 2)),
            {},
            "grid must have the batch of x, 2, got shape (1, 4, 5, 2). Repeat one grid with jnp.broadcast_to.",
        ),
        (
            (PICTURE, ones(2, 0, 5, 2)),
            {},
            "grid must have points, got shape (2, 0, 5, 2). Only the batch axis may be empty.",
        ),
        ((PICTURE, GRID), {"method": "bilinear"}, "method must be one of nearest, linear, cubic, got 'bilinear'."),
        ((PICTURE, GRID), {"padding": "SAME"}, "padding must be one of zeros, border, reflection, got 'SAME'."),
    ],
)
def test_errors_word_for_word(args, options, message):
    with pytest.raises(ValueError, match="grid_sample2d") as caught:
        jax.eval_shape(functools.partial(grid_sample2d, **options), *args)
    assert str(caught.value) == f"grid_sample2d: {message}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((PICTURE.astype("uint8"), GRID), "x must be floating point, got uint8. Cast it with x.astype('float32')."),
        (
            (PICTURE, GRID.astype("int32")),
            "grid must be floating point, got int32. Cast it with grid.astype('float32').",
        ),
        (
            (PICTURE, GRID.astype("complex64")),
            "grid must be floating point, got complex64. Take its real and imaginary parts.",
        ),
    ],
)
def test_errors_of_dtype_word_for_word(args, message):
    with pytest.raises(TypeError, match="grid_sample2d") as caught:
        grid_sample2d(*args)
    assert str(caught.value) == f"grid_sample2d: {message}"


def test_errors_of_volumes():
    volume = ones(1, 2, 2, 2, 1)
    with pytest.raises(
        ValueError, match=r"^grid_sample3d: grid must be \(N, Do, Ho, Wo, 3\), the \(x, y, z\) of every"
    ):
        grid_sample3d(volume, ones(1, 2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"looks channels-first.*Use grid.transpose\(0, 2, 3, 4, 1\)"):
        grid_sample3d(volume, ones(1, 3, 4, 4, 4))


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        grid_sample2d(PICTURE, GRID, "linear")  # pyright: ignore[reportCallIssue]
