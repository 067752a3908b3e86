"""cnnjax.accelerate: every transformation of JAX under it, what it leaves alone, and the switch itself."""

import json
import re
import subprocess
import sys
import threading
import warnings
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import export, lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import cnnjax
from cnnjax import ops
from cnnjax.cpu import acceleration, convolution, library, lowering, probe

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# What is compiled lightly computes the same, and the tests do little but compile.
lightly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


pytestmark = pytest.mark.skipif(
    not acceleration.knows_jax(), reason=f"accelerate() leaves jax {jax.__version__} alone, as it says"
)


@pytest.fixture(params=["oneDNN", "plain JAX"])
def accelerated(request, monkeypatch):
    """Acceleration by oneDNN where it passes its probe, and by plain JAX; stock again afterwards."""
    cnnjax.accelerate(False)
    if request.param == "plain JAX":
        monkeypatch.setattr(probe, "verdict", lambda: probe.Verdict(False, "a test says so."))
    now = cnnjax.accelerate()
    if request.param == "oneDNN" and not now.onednn:
        pytest.skip(f"oneDNN is not used here: {now.reason}")
    yield now
    cnnjax.accelerate(False)


@pytest.fixture
def stock():
    """Leave JAX's own rules behind, whatever the test does."""
    cnnjax.accelerate(False)
    yield
    cnnjax.accelerate(False)


def normal(*shape, seed=0, dtype=jnp.float32):
    # NumPy's, for jax.random would be compiled again after each change of the state.
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def net(kernels, x):
    """A strided convolution, a depthwise one and a max pool, smooth between."""
    x = lax.conv_general_dilated(x, kernels[0], (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    x = lax.conv_general_dilated(
        jnp.tanh(x), kernels[1], (1, 1), "SAME", dimension_numbers=DIMENSIONS, feature_group_count=8
    )
    x = lax.reduce_window(jnp.tanh(x), -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    return jnp.square(x).mean()


def arguments(dtype=jnp.float32):
    return (normal(3, 3, 4, 8, seed=1, dtype=dtype) / 4, normal(3, 3, 1, 8, seed=2, dtype=dtype)), normal(
        4, 13, 11, 4, dtype=dtype
    )


def per_device(kernels, x):
    return lax.pmean(jax.grad(net)(kernels, x), "batch")


def in_scan(kernels, x):
    def step(kernels, _):
        gradients = jax.grad(net)(kernels, x)
        return jax.tree.map(lambda k, g: k - 0.1 * g, kernels, gradients), None

    return lax.scan(step, kernels, length=3)[0]


def in_while(kernels, x):
    def step(carry):
        return carry[0] + 1, jax.tree.map(lambda k, g: k - 0.1 * g, carry[1], jax.grad(net)(carry[1], x))

    return lax.while_loop(lambda carry: carry[0] < 3, step, (0, kernels))[1]


def in_cond(kernels, x):
    return lax.cond(x.sum() > -1e9, jax.grad(net), lambda kernels, x: kernels, kernels, x)


def tangent(kernels, x):
    return jax.jvp(net, (kernels, x), (kernels, jnp.ones_like(x)))


def linear(kernels, x):
    value, apply = jax.linearize(net, kernels, x)
    return value, apply(kernels, x)


def curvature(kernels, x):
    return jax.hessian(lambda depthwise: net((kernels[0], depthwise), x[:1, :5, :5]))(kernels[1])


def each_example(kernels, x):
    return jax.vmap(jax.grad(net), (None, 0))(kernels, x[:, None])


def each_kernel(kernels, x):
    several = jax.tree.map(lambda kernel: jnp.stack([kernel, -kernel]), kernels)
    return jax.vmap(jax.grad(net), (0, None))(several, x)


def by_pmap(kernels, x):
    return jax.pmap(per_device, axis_name="batch", in_axes=(None, 0), out_axes=None)(
        kernels, x.reshape(2, 2, *x.shape[1:])
    )


def by_shard_map(kernels, x, check=True):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    inner = jax.grad(net) if check else per_device  # under check_vma shard_map sums the gradient over devices itself
    mapped = jax.shard_map(inner, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=check)
    return mapped(kernels, x)


TRANSFORMATIONS = {
    "jit": net,
    "grad": jax.grad(net, (0, 1)),
    "jvp": tangent,
    "linearize": linear,
    "hessian": curvature,
    "vmap over examples": each_example,
    "vmap over kernels": each_kernel,
    "scan": in_scan,
    "while": in_while,
    "cond": in_cond,
    "remat": jax.grad(jax.checkpoint(net), (0, 1)),
    "pmap": by_pmap,
    "shard_map": by_shard_map,
    "shard_map unchecked": partial(by_shard_map, check=False),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_every_transformation_gives_what_stock_gives(accelerated, name):
    run = lightly(TRANSFORMATIONS[name])
    got = run(*arguments())
    cnnjax.accelerate(False)
    chex.assert_trees_all_close(got, lightly(TRANSFORMATIONS[name])(*arguments()), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03), ("float16", 0.004), ("float64", 1e-12)]
)
def test_every_float_dtype(accelerated, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        got = lightly(jax.value_and_grad(net))(*arguments(jnp.dtype(dtype)))
        assert got[0].dtype == got[1][0].dtype == jnp.dtype(dtype)
        cnnjax.accelerate(False)
        want = lightly(jax.value_and_grad(net))(*arguments(jnp.dtype(dtype)))
        chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


def text(function, *arguments, platform="cpu"):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def convolution_of(dtype):
    return lambda x, kernel: lax.conv_general_dilated(
        x.astype(dtype), kernel.astype(dtype), (1, 1), "SAME", dimension_numbers=DIMENSIONS
    )


def test_integers_are_stock(accelerated):
    operands = normal(2, 6, 6, 3) * 3, normal(3, 3, 3, 4) * 3
    accelerated_text = text(convolution_of(jnp.int32), *operands)
    cnnjax.accelerate(False)
    assert accelerated_text == text(convolution_of(jnp.int32), *operands)
    assert "stablehlo.convolution" in accelerated_text


def test_complex_numbers(accelerated):
    """JAX's own rule makes three real convolutions of a complex one."""
    operands = normal(2, 6, 6, 3), normal(3, 3, 3, 4)
    run = jax.jit(lambda x, kernel: convolution_of(jnp.complex64)(x * (1 + 2j), kernel * (3 - 1j)))
    np.testing.assert_allclose(run(*operands), convolution_of(jnp.float32)(*operands) * (5 + 5j), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 4], ids=["pointwise", "depthwise"])
def test_it_does_change_what_is_compiled_for_cpu(accelerated, groups):
    operands = normal(2, 6, 6, 4), normal(1, 1, 4 // groups, 4)

    def layer(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS, feature_group_count=groups
        )

    changed = text(layer, *operands)
    assert "stablehlo.convolution" not in changed
    assert ("__onednn$convolution" in changed) == accelerated.onednn
    cnnjax.accelerate(False)
    assert "stablehlo.convolution" in text(layer, *operands)


# oneDNN has depthwise kernels of its own for images, for volumes without dilation, and for little padding. For the rest
# it takes a general one that writes beyond its memory: those calls must never be made.
@pytest.mark.parametrize(
    ("x", "window", "stride", "padding", "dilation"),
    [
        ((31, 16, 17), (7,), (3,), (3, 0), 1),
        ((31, 64, 16), (3,), (2,), (0, 0), 1),
        ((4, 19, 39, 66), (3, 6), (1, 1), (5, 5), 2),
        ((2, 9, 9, 9, 16), (3, 3, 3), (1, 1, 1), (2, 2), 2),
        ((2, 9, 9, 9, 16), (3, 3, 3), (2, 2, 2), (1, 1), 1),
    ],
    ids=["series", "series, stride 2", "wide padding", "volume, dilated", "volume, stride 2"],
)
def test_depthwise_calls_are_those_that_onednn_has_kernels_for(accelerated, x, window, stride, padding, dilation):
    rank, channels = len(window), x[-1]

    def layer(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            stride,
            [padding] * rank,
            rhs_dilation=(dilation,) * rank,
            dimension_numbers=(f"N{'DHW'[-rank:]}C", f"{'DHW'[-rank:]}IO", f"N{'DHW'[-rank:]}C"),
            feature_group_count=channels,
        ).sum()

    program = text(jax.grad(layer, argnums=(0, 1)), normal(*x), normal(*window, 1, channels)).replace("\\22", '"')
    configs = [json.loads(config) for config in re.findall(r'backend_config = "(.*?)", operand', program)]
    calls = [c["onednn_conv_config"] for c in configs if "onednn_conv_config" in c]
    assert bool(calls) == accelerated.onednn
    for window in (call["window"] for call in calls if call["feature_groups"] == str(channels)):
        assert len(window["size"]) == 2 or (len(window["size"]) == 3 and set(window["window_dilations"]) == {"1"})
        assert max(map(int, window["pad_left"] + window["pad_right"])) <= 4


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_hold_the_stock_operations(accelerated, platform):
    lowered = text(jax.grad(net), *arguments(), platform=platform)
    assert "stablehlo.convolution" in lowered
    assert "stablehlo.select_and_scatter" in lowered
    assert "onednn" not in lowered


def test_an_exported_program_is_stock_also_with_symbolic_sizes(accelerated):
    kernels, x = arguments()
    batch, height = export.symbolic_shape("b, h")
    shape = jax.ShapeDtypeStruct((batch, height, 11, 4), jnp.float32)
    for argument in (x, shape):
        exported = export.export(jax.jit(net))(kernels, argument)
        assert "stablehlo.convolution" in exported.mlir_module()
        assert "onednn" not in exported.mlir_module()


def test_a_program_that_the_compiler_divides_is_stock(accelerated):
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    by_batch, everywhere = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())

    def layer(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS)

    compiled = (
        jax.jit(layer, in_shardings=(by_batch, everywhere)).lower(normal(8, 6, 6, 4), normal(3, 3, 4, 4)).compile()
    )
    assert not re.search("all-gather|onednn", compiled.as_text() or "")
    y = compiled(jax.device_put(normal(8, 6, 6, 4), by_batch), jax.device_put(normal(3, 3, 4, 4), everywhere))
    assert {shard.data.shape for shard in y.addressable_shards} == {(2, 6, 6, 4)}


def test_a_donated_buffer(accelerated):
    kernels, x = arguments()
    update = jax.jit(
        lambda kernels, x: jax.tree.map(jnp.subtract, kernels, jax.grad(net)(kernels, x)), donate_argnums=0
    )
    want = update(jax.tree.map(jnp.copy, kernels), x)
    chex.assert_trees_all_equal(update(kernels, x), want)


def test_two_devices_at_once(accelerated):
    kernels, x = arguments()
    run = lightly(jax.grad(net))
    placed = [jax.device_put((kernels, x), device) for device in jax.devices()[:4]]
    for got in [run(*operands) for operands in placed]:
        chex.assert_trees_all_close(got, run(kernels, x), rtol=1e-5)


def linen_conv(x):
    layer = linen.Conv(8, (3, 3), feature_group_count=4)
    return layer.apply(layer.init(jax.random.key(0), x), x)


LAYERS = {
    "nnx.Conv": lambda x: nnx.Conv(4, 8, (3, 3), strides=2, rngs=nnx.Rngs(0))(x),
    "nnx.ConvTranspose": lambda x: nnx.ConvTranspose(4, 8, (3, 3), strides=(2, 2), rngs=nnx.Rngs(0))(x),
    "linen.Conv": linen_conv,
    "nnx.avg_pool": lambda x: nnx.avg_pool(x, (3, 3), (2, 2), "SAME"),
    "ops.max_pool2d": lambda x: ops.max_pool2d(x, 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_unmodified_layers(accelerated, name):
    layer, x = LAYERS[name], normal(2, 9, 9, 4)
    value_and_gradient = lambda x: (layer(x), jax.grad(lambda x: jnp.square(layer(x)).sum())(x))  # noqa: E731
    got = lightly(value_and_gradient)(x)
    cnnjax.accelerate(False)
    chex.assert_trees_all_close(got, lightly(value_and_gradient)(x), rtol=1e-4, atol=1e-4)


def test_it_says_what_it_did_and_is_idempotent(accelerated):
    assert cnnjax.accelerate() is accelerated
    said = repr(accelerated)
    for part in (
        "conv_general_dilated",
        "select_and_scatter_add",
        "reduce_window_max",
        jax.__version__,
        accelerated.reason,
    ):
        assert part in said
    off = cnnjax.accelerate(False)
    assert not off.active
    assert off is cnnjax.accelerate(False)
    assert "off" in repr(off)


def test_the_stock_rules_come_back_as_they_were(stock):
    before = {platform: dict(rules) for platform, rules in lowering._mlir._platform_specific_lowerings.items()}
    cnnjax.accelerate()
    assert before["cpu"] != lowering._mlir._platform_specific_lowerings["cpu"]
    cnnjax.accelerate(False)
    after = lowering._mlir._platform_specific_lowerings
    assert {p: {k: r.rule for k, r in rules.items()} for p, rules in before.items()} == {
        p: {k: r.rule for k, r in rules.items()} for p, rules in after.items()
    }


def test_caches_are_cleared_when_the_state_changes_and_only_then(stock):
    traced = []
    run = jax.jit(lambda x: (traced.append(0), x + 1)[1])
    counts = []
    for on in (True, True, False, False, True):
        cnnjax.accelerate(on)
        run(1.0)
        counts.append(len(traced))
    assert counts == [1, 1, 2, 2, 3]


def test_many_threads_may_switch(stock):
    results = []
    threads = [threading.Thread(target=lambda: results.append(cnnjax.accelerate())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(result) for result in results}) == 1


@pytest.mark.parametrize("version", ["0.7.2", "0.13.0", "1.0.0"])
def test_an_unknown_jax_is_left_alone_with_one_warning(stock, monkeypatch, version):
    monkeypatch.setattr(jax, "__version__", version)
    with pytest.warns(UserWarning, match=f"jax {version} is not among the versions") as warned:
        assert not cnnjax.accelerate().active
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not cnnjax.accelerate().active
    assert "stablehlo.convolution" in text(net, *arguments())


def test_a_name_of_jax_that_moved_is_said(stock, monkeypatch):
    monkeypatch.delattr(lowering._mlir, "_platform_specific_lowerings")
    with pytest.warns(UserWarning, match="has no jax._src.interpreters.mlir._platform_specific_lowerings any more"):
        assert not cnnjax.accelerate().active
    monkeypatch.undo()
    cnnjax.accelerate(False)


def test_the_persistent_cache_does_not_warn(tmp_path):
    script = """
import warnings; warnings.simplefilter("error")
import jax, jax.numpy as jnp, cnnjax
from cnnjax import ops
jax.config.update("jax_compilation_cache_dir", "CACHE")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
cnnjax.accelerate()
print(float(jax.jit(ops.conv2d)(jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))).sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script.replace("CACHE", str(tmp_path))], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == 4 * 4 * (6 * 6 * 9 + 4 * 6 * 6 + 4 * 4)
    assert "rror" not in done.stderr


def test_importing_changes_nothing():
    script = """
import jax
from jax._src.interpreters import mlir
rule = mlir._platform_specific_lowerings["cpu"][jax.lax.conv_general_dilated_p]
import cnnjax
assert mlir._platform_specific_lowerings["cpu"][jax.lax.conv_general_dilated_p] is rule
assert jax.lax.reduce_window_max_p not in mlir._platform_specific_lowerings["cpu"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_pixels_no_formulation():
    found = convolution.choose(
        jax.ShapeDtypeStruct((0, 5, 5, 3), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32),
        library=library.plain,
        dimension_numbers=lax.conv_dimension_numbers((0, 5, 5, 3), (3, 3, 3, 4), DIMENSIONS),
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        lhs_dilation=(1, 1),
        rhs_dilation=(1, 1),
        feature_group_count=1,
        batch_group_count=1,
        preferred_element_type=None,
    )
    assert found is None
