"""Values, derivatives, transformations and dtypes; the errors are in test_conv_errors.py."""

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
    torch_kernel,
    torch_value_and_grads,
    value_and_grads,
    ways,
    weights_of,
)

from cnnjax import ops

CONV: dict[int, Any] = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def series(*values):
    return jnp.array(values, jnp.float32).reshape(1, -1, 1)


# Known values.


@pytest.mark.parametrize(
    ("kernel", "options", "expected"),
    [
        ([-1, 1], {"padding": "VALID"}, [1, 2, 4]),
        ([-1, 1], {}, [1, 2, 4, -8]),
        ([-1, 1], {"padding": "SAME_LOWER"}, [1, 1, 2, 4]),
        ([-1, 1], {"padding": "VALID", "stride": 2}, [1, 4]),
        ([-1, 1], {"padding": "VALID", "dilation": 2}, [3, 6]),
        ([-1, 1], {"padding": "CAUSAL"}, [1, 1, 2, 4]),
        ([-1, 1], {"padding": "CAUSAL", "dilation": 2}, [1, 2, 3, 6]),
        ([1, 0, 0], {"padding": "CIRCULAR"}, [8, 1, 2, 4]),
        ([0, 0, 1], {"padding": "CIRCULAR"}, [2, 4, 8, 1]),
        ([1, 0, 0], {"padding": "REFLECT"}, [2, 1, 2, 4]),
        ([0, 0, 1], {"padding": "REFLECT"}, [2, 4, 8, 4]),
        ([1, 0, 0], {"padding": "REPLICATE"}, [1, 1, 2, 4]),
        ([0, 1], {"padding": "CIRCULAR"}, [2, 4, 8, 1]),
        ([0, 1], {"padding": "REPLICATE", "stride": 2}, [2, 8]),
        ([1, 0], {"padding": 1}, [0, 1, 2, 4, 8]),
        ([1, 0], {"padding": (1,)}, [0, 1, 2, 4, 8]),
        ([1, 0], {"padding": ((2, 0),)}, [0, 0, 1, 2, 4]),
    ],
)
def test_series_by_hand(kernel, options, expected):
    y = ops.conv1d(series(1, 2, 4, 8), jnp.array(kernel, jnp.float32).reshape(-1, 1, 1), **options)
    np.testing.assert_array_equal(y.ravel(), expected)


def test_picture_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    kernel = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    y = ops.conv2d(x, kernel, jnp.array([0.5]), padding="VALID")
    np.testing.assert_array_equal(y[0, :, :, 0], [[27.5, 37.5], [57.5, 67.5]])


def test_volume_by_hand():
    y = ops.conv3d(jnp.ones((1, 3, 3, 3, 1)), jnp.ones((3, 3, 3, 1, 1)))
    assert y[0, 1, 1, 1, 0] == 27
    assert y[0, 0, 0, 0, 0] == 8
    assert y[0, 0, 1, 1, 0] == 18


def test_groups_by_hand():
    """Two groups: outputs 0 and 1 see channel 0, outputs 2 and 3 channel 1."""
    x = jnp.array([10.0, 1.0]).reshape(1, 1, 2)
    y = ops.conv1d(x, jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4), groups=2)
    np.testing.assert_array_equal(y.ravel(), [10, 20, 3, 4])


def test_kernel_is_not_flipped():
    impulse = jnp.zeros((1, 5, 1)).at[0, 2, 0].set(1)
    y = ops.conv1d(impulse, series(1, 2, 3).reshape(3, 1, 1))
    np.testing.assert_array_equal(y.ravel(), [0, 3, 2, 1, 0])


@pytest.mark.parametrize("mode", ["same", "Same", "SAME"])
def test_modes_in_any_case(mode):
    x, kernel = normal(0, 1, 5, 2), normal(1, 3, 2, 2)
    np.testing.assert_array_equal(ops.conv1d(x, kernel, padding=mode), ops.conv1d(x, kernel))
    lower = ops.conv1d(x, kernel, padding="causal")
    np.testing.assert_array_equal(lower, ops.conv1d(x, kernel, padding=((2, 0),)))


@pytest.mark.parametrize("stride", [(2, 2), [2, 2], np.int64(2)])
@pytest.mark.parametrize("padding", [(1, 1), [1, 1], ((1, 1), (1, 1)), [[1, 1], [1, 1]], np.int64(1)])
def test_the_ways_to_write_an_argument_agree(stride, padding):
    x, kernel = normal(0, 1, 7, 8, 2), normal(1, 3, 3, 2, 2)
    y = ops.conv2d(x, kernel, stride=2, padding=1, dilation=2)
    np.testing.assert_array_equal(y, ops.conv2d(x, kernel, stride=stride, padding=padding, dilation=stride))


# Against loops and libraries.


@ranks
@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
def test_same_and_valid_against_loops(rank, padding):
    x = normal(0, 2, *(7, 6, 5)[:rank], 2)
    for size, stride, dilation in [(3, 1, 1), (2, 2, 1), (2, 1, 3), (1, 2, 1)]:
        kernel = normal(1, *(size,) * rank, 2, 3)
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        y = CONV[rank](x.astype("float32"), kernel.astype("float32"), **options)
        np.testing.assert_allclose(y, reference.conv(x, kernel, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride", "dilation"), [(2, 1, 1), (4, 3, 1), (3, 2, 2), (5, 1, 1)])
def test_same_equals_that_of_lax(size, stride, dilation):
    x, kernel = normal(0, 1, 11, 8, 2, dtype="float32"), normal(1, size, size, 2, 2, dtype="float32")
    theirs = lax.conv_general_dilated(
        x, kernel, (stride,) * 2, "SAME", rhs_dilation=(dilation,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = ops.conv2d(x, kernel, stride=stride, dilation=dilation)
    np.testing.assert_array_equal(ours, theirs)


OPTIONS = {
    "plain": {"padding": 0},
    "stride": {"stride": 2, "padding": 0},
    "padding": {"padding": 2},
    "dilation": {"dilation": 2, "padding": 0},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": 1, "stride": 2},
    "all": {"stride": 3, "padding": 2, "dilation": 2, "groups": 2},
}


@ranks
@pytest.mark.parametrize("name", list(OPTIONS))
def test_against_torch(rank, name):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    options = OPTIONS[name]
    x = normal(0, 2, *(8, 7, 6)[:rank], 4)
    kernel = normal(1, *(3, 2, 3)[:rank], 4 // options.get("groups", 1), 8)
    args = x, kernel, normal(2, 8)
    conv = getattr(functional, f"conv{rank}d")
    ours = value_and_grads(lambda *args: CONV[rank](*args, **options), *args)
    theirs = torch_value_and_grads(lambda x, k, b: last(conv(first(x), torch_kernel(k), b, **options)), *args)
    assert_same(ours, theirs)


@ranks
def test_values_per_axis_and_asymmetric_padding_against_torch(rank):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    pairs = ((2, 0), (1, 3), (0, 1))[:rank]
    options = {"stride": (2, 1, 3)[:rank], "dilation": (1, 2, 1)[:rank]}
    args = normal(0, 2, *(6, 7, 5)[:rank], 2), normal(1, *(3, 2, 2)[:rank], 2, 3)
    conv, pad = getattr(torch, f"conv{rank}d"), torch.nn.functional.pad
    ours = value_and_grads(lambda *args: CONV[rank](*args, padding=pairs, **options), *args)
    theirs = torch_value_and_grads(
        lambda x, k: last(conv(pad(first(x), flat_pads(pairs)), torch_kernel(k), **options)), *args
    )
    assert_same(ours, theirs)


@ranks
@pytest.mark.parametrize("mode", ["CIRCULAR", "REFLECT", "REPLICATE"])
@pytest.mark.parametrize(("size", "stride", "dilation"), [(4, 2, 1), (2, 1, 2)])
def test_filled_padding_against_torch(rank, mode, size, stride, dilation):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    span = (size - 1) * dilation + 1
    pads = flat_pads([((span - 1) // 2, span // 2)] * rank)
    conv, pad = getattr(torch, f"conv{rank}d"), torch.nn.functional.pad
    args = normal(0, 2, *(6, 5, 4)[:rank], 2), normal(1, *(size,) * rank, 1, 2)
    options = {"stride": stride, "dilation": dilation, "groups": 2}
    ours = value_and_grads(lambda *args: CONV[rank](*args, padding=mode, **options), *args)
    theirs = torch_value_and_grads(
        lambda x, k: last(conv(pad(first(x), pads, mode=mode.lower()), torch_kernel(k), **options)), *args
    )
    assert_same(ours, theirs)


def test_causal_against_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    args = normal(0, 2, 9, 4), normal(1, 3, 2, 6), normal(2, 6)
    ours = value_and_grads(lambda *args: ops.conv1d(*args, padding="CAUSAL", dilation=2, stride=2, groups=2), *args)
    theirs = torch_value_and_grads(
        lambda x, k, b: last(
            torch.conv1d(torch.nn.functional.pad(first(x), (4, 0)), torch_kernel(k), b, dilation=2, stride=2, groups=2)
        ),
        *args,
    )
    assert_same(ours, theirs)


def test_windows_that_see_padding_alone_against_torch():
    """Of such padding on one side, XLA:CPU's own gradient with respect to the input is wrong."""
    F = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x, kernel = normal(0, 16, 5, 6, 8, dtype="float32"), normal(1, 3, 1, 8, 16, dtype="float32")
    ours = jax.jit(jax.grad(lambda x: jnp.sum(ops.conv2d(x, kernel, padding=((4, 1), (0, 2))) * weights)))
    weights = weights_of((16, 8, 8, 16)).astype("float32")
    _, (theirs, _) = torch_value_and_grads(
        lambda x, k: last(F.conv2d(F.pad(first(x), flat_pads([(4, 1), (0, 2)])), torch_kernel(k))),
        x.astype("float64"),
        kernel.astype("float64"),
    )
    np.testing.assert_allclose(ours(x), theirs, rtol=1e-4, atol=1e-4)


def test_causal_sees_no_future():
    kernel = normal(1, 3, 1, 1, dtype="float32")
    jacobian = jax.jacobian(lambda x: ops.conv1d(x.reshape(1, 8, 1), kernel, padding="CAUSAL", dilation=2).ravel())
    assert not np.triu(jacobian(jnp.ones(8)), 1).any()


@pytest.mark.parametrize("mode", ["CIRCULAR", "REPLICATE"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_filled_padding_of_more_than_the_input(mode, n):
    x, kernel = normal(0, 1, n, 2), normal(1, 8, 2, 1)
    y = ops.conv1d(x.astype("float32"), kernel.astype("float32"), padding=mode)
    assert y.shape == (1, n, 1)
    np.testing.assert_allclose(y, reference.conv(x, kernel, padding=mode), rtol=1e-4, atol=1e-4)


def configuration(seed):
    """A random call: its arguments and options. The kernel may be too large, or REFLECT may add too much."""
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 3]))
    groups, block, each = (int(n) for n in rng.integers(1, 4, 3))
    spatial = [int(n) for n in rng.integers(1, (12, 8, 5)[rank - 1], rank)]
    window = [int(n) for n in rng.integers(1, (6, 5, 3)[rank - 1], rank)]
    pairs = [(int(low), int(high)) for low, high in rng.integers(0, 4, (rank, 2))]
    modes = ["SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", "REPLICATE", *(["CAUSAL"] if rank == 1 else [])]
    paddings = [str(rng.choice(modes)), pairs, int(rng.integers(0, 3)), tuple(low for low, _ in pairs)]
    options = {
        "stride": [int(n) for n in rng.integers(1, 4, rank)],
        "padding": paddings[rng.choice(4, p=[0.5, 0.2, 0.15, 0.15])],
        "dilation": [int(n) for n in rng.integers(1, 4, rank)],
        "groups": groups,
    }
    x = rng.normal(size=(int(rng.integers(1, 3)), *spatial, groups * block))
    return rank, (x, rng.normal(size=(*window, block, groups * each)), rng.normal(size=groups * each)), options


def loops(x, kernel, bias, options):
    padding = options["padding"]
    if isinstance(padding, tuple):
        padding = [(p, p) for p in padding]
    return reference.conv(x, kernel, bias, **{**options, "padding": padding})


def check_configuration(seed):
    """Against the loops: the value, and the gradients along a random direction (the convolution is bilinear)."""
    rank, (x, kernel, bias), options = configuration(seed)
    window, spatial = kernel.shape[:rank], x.shape[1:-1]
    spans = [(k - 1) * d + 1 for k, d in zip(window, options["dilation"], strict=True)]
    if options["padding"] == "REFLECT" and any(span // 2 >= n for span, n in zip(spans, spatial, strict=True)):
        with pytest.raises(ValueError, match="REFLECT must add fewer pixels"):
            CONV[rank](x, kernel, bias, **options)
        return
    try:
        expected = loops(x, kernel, bias, options)
    except ValueError:  # NumPy: negative dimensions
        expected = np.zeros(0)
    if expected.size == 0:
        with pytest.raises(ValueError, match="does not fit the padded input"):
            CONV[rank](x, kernel, bias, **options)
        return
    # In float32: XLA's CPU compiler aborts on some float64 gradients of depthwise kernels larger than the output.
    args = (arg.astype("float32") for arg in (x, kernel, bias))
    y, (to_x, to_kernel, to_bias) = value_and_grads(lambda *args: CONV[rank](*args, **options), *args)
    assert y.dtype == to_x.dtype == to_kernel.dtype == to_bias.dtype == "float32"
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4, err_msg=str((seed, options)))
    close(y, expected)
    weights, rng = weights_of(y.shape), np.random.default_rng(seed)
    dx, dk = rng.normal(size=x.shape), rng.normal(size=kernel.shape)
    close(np.vdot(to_x, dx), np.vdot(weights, loops(dx, kernel, None, options)), atol=1e-3)
    close(np.vdot(to_kernel, dk), np.vdot(weights, loops(x, dk, None, options)), atol=1e-3)
    close(to_bias, weights.reshape(-1, bias.size).sum(0))


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
    x, kernel, bias = normal(0, 2, *(5,) * rank, 4), normal(1, *(3,) * rank, 2, 4), normal(2, 4)
    options = {"stride": 2, "dilation": 1, "groups": 2}
    run = way(lambda *args: CONV[rank](*args, **options))
    y = run(*(arg.astype("float32") for arg in (x, kernel, bias)))
    np.testing.assert_allclose(y, reference.conv(x, kernel, bias, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "REFLECT"])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_x_and_kernel(axes, padding):
    x, kernel = normal(0, 3, 2, 6, 5, 4, dtype="float32"), normal(1, 3, 3, 3, 2, 4, dtype="float32")
    args = [arg if axis == 0 else arg[0] for arg, axis in zip((x, kernel), axes, strict=True)]

    def conv(x, kernel):
        return ops.conv2d(x, kernel, stride=2, groups=2, padding=padding)

    y = jax.vmap(conv, axes)(*args)
    for i in range(3):
        one = conv(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


@ranks
@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
def test_derivatives_against_differences(rank, padding):
    args = normal(0, 1, *(3,) * rank, 2), normal(1, *(2,) * rank, 1, 2), normal(2, 2)
    with jax.enable_x64(True):
        check_grads(
            jax.jit(lambda *args: CONV[rank](*args, groups=2, padding=padding)),
            tuple(jnp.asarray(arg) for arg in args),
            order=1,
            modes=["fwd", "rev"],
        )


def test_checkpoint_and_scan():
    x, kernels = normal(0, 1, 6, 2, dtype="float32"), normal(1, 3, 3, 2, 2, dtype="float32")

    def loop(kernels):
        y = x
        for kernel in kernels:
            y = jnp.tanh(ops.conv1d(y, kernel))
        return jnp.sum(y**2)

    def scanned(kernels):
        layer = jax.checkpoint(lambda y, kernel: (jnp.tanh(ops.conv1d(y, kernel)), None))
        return jnp.sum(lax.scan(layer, jnp.asarray(x), kernels)[0] ** 2)

    for ours, theirs in zip(jax.value_and_grad(scanned)(kernels), jax.value_and_grad(loop)(kernels), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, kernel):
        return ops.conv2d(x, kernel, stride=2, padding="REFLECT")

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"), normal(seed, 3, 3, 1, 1, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(jax.make_jaxpr(ops.conv2d)(jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 2)), jnp.ones(2)))
    assert jaxpr.count("conv_general_dilated[") == 1
    assert "pad[" not in jaxpr


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtype_is_kept(dtype):
    x, kernel = jnp.ones((1, 4, 2), dtype), jnp.ones((3, 2, 2), dtype)
    y, pull = jax.vjp(ops.conv1d, x, kernel, jnp.ones(2, dtype))
    assert y.dtype == dtype
    assert {grad.dtype for grad in pull(y)} == {jnp.dtype(dtype)}


def test_float64():
    with jax.enable_x64(True):
        assert ops.conv1d(jnp.ones((1, 4, 2)), jnp.ones((3, 2, 2))).dtype == "float64"


def test_complex_against_loops():
    x, kernel = normal(0, 1, 5, 2) + 1j * normal(1, 1, 5, 2), normal(2, 3, 2, 1) + 1j * normal(3, 3, 2, 1)
    y = ops.conv1d(x.astype("complex64"), kernel.astype("complex64"))
    np.testing.assert_allclose(y, reference.conv(x, kernel), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """Sums of integers are exact in float32, and beyond the 8 or 11 bits of the halves."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.integers(-3, 9, shape), dtype) for shape in [(2, 6, 6, 300), (3, 3, 300, 4)])
    wide = ops.conv2d(x.astype("float32"), kernel.astype("float32"))
    assert not (wide == wide.astype(dtype)).all()
    np.testing.assert_array_equal(ops.conv2d(x, kernel), wide.astype(dtype))


@pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("argument", [0, 1, 2], ids=["x", "kernel", "bias"])
def test_half_precision_gradients_are_rounded_once(argument, run):
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.integers(-3, 5, shape), "bfloat16") for shape in [(8, 20, 20, 2), (3, 3, 2, 3), (3,)]]
    weights = jnp.asarray(rng.integers(-3, 5, (8, 20, 20, 3)), "bfloat16")

    def gradient(*args):
        return jax.vjp(ops.conv2d, *args)[1](weights.astype(args[0].dtype))[argument]

    wide = gradient(*(arg.astype("float32") for arg in args))
    np.testing.assert_array_equal(run(gradient)(*args), wide.astype("bfloat16"))


def test_preferred_element_type():
    x, kernel, bias = jnp.full((1, 1, 3), 1.0, "bfloat16"), jnp.full((1, 3, 1), 1 / 3, "bfloat16"), jnp.ones(1)
    y = ops.conv1d(x, kernel, bias.astype("bfloat16"), preferred_element_type=jnp.float32)
    assert y.dtype == "float32"
    assert y.item() == 3 * float(kernel[0, 0, 0]) + 1


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="jax before 0.10 does not differentiate lax's own option")
def test_preferred_element_type_is_differentiated():
    x, kernel = jnp.full((1, 1, 3), 1.0, "bfloat16"), jnp.full((1, 3, 1), 1 / 3, "bfloat16")
    grads = jax.grad(lambda *args: ops.conv1d(*args, preferred_element_type=jnp.float32).sum(), (0, 1))(x, kernel)
    assert [grad.dtype for grad in grads] == ["bfloat16", "bfloat16"]


def test_precision_reaches_lax():
    jaxpr = jax.make_jaxpr(lambda x, k: ops.conv1d(x, k, precision="highest"))(jnp.ones((1, 3, 1)), jnp.ones((1, 1, 1)))
    assert "HIGHEST" in str(jaxpr)


@ranks
@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR", "REFLECT", "REPLICATE", 1])
def test_batch_of_none(rank, padding):
    x, kernel = jnp.ones((0, *(4,) * rank, 2)), jnp.ones((*(3,) * rank, 2, 3))
    y, pull = jax.vjp(lambda *args: CONV[rank](*args, padding=padding), x, kernel, jnp.ones(3))
    assert y.shape == (0, *((2 if padding == "VALID" else 4,) * rank), 3)
    to_x, to_kernel, to_bias = pull(y)
    assert to_x.shape == x.shape
    assert not to_kernel.any()
    assert not to_bias.any()


def test_batch_of_one_is_one_of_many():
    x, kernel = normal(0, 3, 6, 5, 2, dtype="float32"), normal(1, 3, 3, 2, 4, dtype="float32")
    np.testing.assert_allclose(ops.conv2d(x, kernel)[1:2], ops.conv2d(x[1:2], kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_stays_in_its_windows(value):
    x = jnp.ones((1, 7, 1)).at[0, 3, 0].set(value)
    y = ops.conv1d(x, jnp.ones((3, 1, 1))).ravel()
    np.testing.assert_array_equal(np.isfinite(y), [True, True, False, False, False, True, True])


def test_takes_what_is_no_jax_array():
    assert ops.conv1d([[[1.0], [2.0]]], [[[1.0]]]).tolist() == [[[1.0], [2.0]]]  # pyright: ignore[reportArgumentType]
