"""The architectures: published parameters and sizes, and one train step, recomputed, on many devices, in bfloat16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnjax import explain, models, train

# As published, or added up layer by layer where it says so. Batch statistics are no parameters.
PUBLISHED = {
    "vgg11": (models.vgg11, (224, 224, 3), 132_863_336),
    "vgg13": (models.vgg13, (224, 224, 3), 133_047_848),
    "vgg16": (models.vgg16, (224, 224, 3), 138_357_544),
    "vgg19": (models.vgg19, (224, 224, 3), 143_667_240),
    "vgg11 with batch-norm": (functools.partial(models.vgg11, batch_norm=True), (224, 224, 3), 132_868_840),
    "vgg13 with batch-norm": (functools.partial(models.vgg13, batch_norm=True), (224, 224, 3), 133_053_736),
    "vgg16 with batch-norm": (functools.partial(models.vgg16, batch_norm=True), (224, 224, 3), 138_365_992),
    "vgg19 with batch-norm": (functools.partial(models.vgg19, batch_norm=True), (224, 224, 3), 143_678_248),
    "resnet18": (models.resnet18, (224, 224, 3), 11_689_512),
    "resnet34": (models.resnet34, (224, 224, 3), 21_797_672),
    "resnet50": (models.resnet50, (224, 224, 3), 25_557_032),
    "resnet18 for cifar": (functools.partial(models.resnet18, stem="cifar", num_classes=10), (32, 32, 3), 11_173_962),
    "mobilenet": (models.MobileNetV2, (224, 224, 3), 3_504_872),
    "convnext_tiny": (models.convnext_tiny, (224, 224, 3), 28_589_128),
    # The stem, 80 * 48 and 2 * 48 of its norm; 6, 8, 12 and 6 convolutions of 3 * a * b and their norms of 2 * b, where
    # a = b = 48, 96, 192 and 384 but for the first of the last three, with a = b / 2; 384 * 10 + 10.
    "resnet1d": (
        models.ResNet1d,
        (8000, 1),
        80 * 48 + 96
        + 3 * (6 * 48**2 + 15 * 96**2 // 2 + 23 * 192**2 // 2 + 11 * 384**2 // 2)
        + 2 * (6 * 48 + 8 * 96 + 12 * 192 + 6 * 384)
        + 3_850,
    ),
    # The bias of the whitened patches, six kernels without biases, a bias a batch-norm, the last layer without one.
    "speednet": (
        functools.partial(models.SpeedNet, whitening=np.zeros((2, 2, 3, 24), np.float32)), (32, 32, 3),
        24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 2 * (64 + 256 + 256) + 256 * 10,
    ),
    # 70,000 in table 1 of the paper. 16 convolutions, the first of 7 * 1 * 25 and the rest of 7 * 25 * 25, each with 25
    # lengths and 25 biases; the projection of the first block, 25 + 25; 25 * 10 + 10.
    "tcn": (models.TCN, (784, 1), 175 + 15 * 4_375 + 16 * 50 + 50 + 260),
    # 3x3 convolutions down, of 64 to 1024 channels; for each level on the way up a 2x2 one and two of 3x3; a 1x1 one; a
    # bias each. The often quoted 31,031,685 is of another net, with 2 channels and then 1 at the end.
    "unet2d": (
        models.unet2d,
        (32, 32, 1),
        9 * (64 + 64**2 + sum(a * 2 * a + (2 * a) ** 2 for a in (64, 128, 256, 512)))
        + sum(4 * 2 * a * a + 9 * (2 * a * a + a * a) for a in (64, 128, 256, 512))
        + 64 * 2 + 2 * (64 + 128 + 256 + 512 + 1024) + 3 * (64 + 128 + 256 + 512) + 2,
    ),
    # 19,069,955 in section 2 of the paper, which counts a bias a 3x3x3 filter (2,336 filters), and none of batch-norm's
    # parameters. Here each filter has a scale besides.
    "unet3d": (models.unet3d, (16, 16, 16, 3), 19_069_955 + 2_336),
}  # fmt: skip

SERIES, VOLUMES = (1100, 2), (6, 5, 7, 2)
WHITENING = np.random.default_rng(3).normal(size=(2, 2, 3, 24)).astype(np.float32)
SMALL = {
    "vgg": (models.VGG, (9, 10, 3), {"convs": (1, 2), "widths": (4, 6), "shape": (9, 10, 3), "hidden": (8,)}),
    "vgg with batch-norm": (
        models.VGG, (9, 10, 3),
        {"convs": (1, 1), "widths": (4, 6), "shape": (9, 10, 3), "hidden": (8,), "batch_norm": True},
    ),
    "resnet": (models.ResNet, (9, 10, 3), {"blocks": (1, 1), "widths": (4, 6), "stem": "cifar"}),
    "resnet with bottlenecks": (models.ResNet, (33, 30, 3), {"blocks": (1, 1), "widths": (3, 4), "bottleneck": True}),
    "mobilenet": (models.MobileNetV2, (17, 18, 3), {"stages": ((1, 8, 1, 1), (2, 8, 1, 1)), "width": 0.5}),
    "convnext": (models.ConvNeXt, (17, 18, 3), {"depths": (1, 1), "widths": (6, 8)}),
    "speednet": (models.SpeedNet, (32, 32, 3), {"whitening": WHITENING, "widths": (28, 32, 8)}),
    "resnet1d": (models.ResNet1d, SERIES, {"blocks": (1, 1), "width": 4}),
    "tcn": (models.TCN, (30, 2), {"widths": (4, 4), "kernel_size": 3}),
    "unet2d": (models.UNet, (9, 6, 2), {"rank": 2, "widths": (4, 6)}),
    "unet3d": (models.UNet, VOLUMES, {"rank": 3, "widths": (4, 8), "norm": "group"}),
}  # fmt: skip
every_small = pytest.mark.parametrize("name", SMALL)
needs_eight = pytest.mark.skipif(jax.local_device_count() < 8, reason="needs 8 (virtual) devices")


def small(name, **options) -> Any:
    make, shape, arguments = SMALL[name]
    channels = {} if make in (models.VGG, models.SpeedNet) else {"channels": shape[-1]}
    return make(**arguments, **channels, num_classes=3, **options, rngs=nnx.Rngs(0))


def inputs(name, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(8, *SMALL[name][1])), dtype)


def abstract(name, **options):
    """Shapes without values: enough to trace, and nothing to compile."""
    return nnx.eval_shape(lambda: small(name, **options))


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_and_the_shape_of_the_logits(name):
    make, shape, parameters = PUBLISHED[name]
    model = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    assert count(model) == parameters
    logits = nnx.eval_shape(lambda model, x: model(x), model, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    classes = model.output.kernel.shape[-1]
    assert logits.shape == ((2, *shape[:-1], classes) if name.startswith("unet") else (2, classes))


def test_the_sums_above():
    assert [PUBLISHED[name][2] for name in ("resnet1d", "tcn", "unet2d")] == [3_972_778, 66_910, 31_030_658]


def loss_fn(model, batch, key):
    logits = model(batch["x"], train=True)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return losses.reshape(len(losses), -1).mean(1), {}


def batch_of(name, dtype):
    shape = (8, *SMALL[name][1][:-1]) if name.startswith("unet") else (8,)
    return {"x": inputs(name, dtype), "label": np.random.default_rng(1).integers(0, 3, shape)}


def drawn(name, param_dtype, **options):
    """A model with parameters of that dtype, none of them 0 behind which nothing would have a gradient."""
    model, rng = abstract(name, **options), np.random.default_rng(2)

    def value(leaf):
        shape = leaf.shape
        drawn = rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5
        return jnp.asarray(drawn.astype(param_dtype))

    nnx.update(model, jax.tree.map(value, nnx.state(model, nnx.Param)))
    for path, statistic in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        start = np.zeros if path[-1] == "mean" else np.ones
        nnx.update(
            model, nnx.from_flat_state({path: statistic.replace(jnp.asarray(start(statistic.shape, param_dtype)))})
        )
    if isinstance(model, models.SpeedNet):
        nnx.update(model, nnx.State({"whitening": model.whitening.replace(jnp.asarray(WHITENING, param_dtype))}))
    return model


@needs_eight
@every_small
def test_a_step_lowers_the_loss_and_is_the_same_recomputed_on_eight_devices(name):
    with jax.enable_x64(True):
        tx, batch, key = optax.sgd(1e-3), batch_of(name, jnp.float64), jax.random.key(0)
        graphdef, first = train.create(drawn(name, np.float64), tx)
        step = train.make_train_step(graphdef, tx, loss_fn)
        run = train.parallel.jit(step)
        state, before = run(first, batch, key)
        _, after = run(state, batch, key)
        assert after["loss"] < before["loss"]
        graphdef, again = train.create(drawn(name, np.float64, remat=True), tx)
        recomputing = train.make_train_step(graphdef, tx, loss_fn)
        plain, more = (str(jax.make_jaxpr(f)(first, batch, key)).count("conv_general") for f in (step, recomputing))
        assert more > plain
        other = train.parallel.pmap(recomputing)(again, batch, key)
    moved = [
        np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(*map(jax.tree.leaves, (first, state)), strict=True)
    ]
    assert np.median(moved) > 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), (state, before), other)


@every_small
def test_bfloat16_computes_and_float32_stays(name):
    model = drawn(name, np.float32, dtype=jnp.bfloat16)
    tx = optax.sgd(1e-2)
    graphdef, state = train.create(model, tx)
    run = train.parallel.jit(train.make_train_step(graphdef, tx, loss_fn))
    state, metrics = run(state, batch_of(name, jnp.float32), jax.random.key(0))
    leaves = jax.tree.leaves((state.params, state.model_state, metrics))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    features = nnx.eval_shape(lambda model, x: model.features(x), model, inputs(name))
    assert features.dtype == jnp.bfloat16
    assert nnx.eval_shape(lambda model, x: model(x), model, inputs(name)).dtype == jnp.float32


def program(model, function, *arguments):
    """What a call of the model computes, as text: equal texts, equal numbers, and nothing to compile."""
    graphdef, state = nnx.split(model)
    return str(jax.make_jaxpr(lambda state, *rest: function(nnx.merge(graphdef, state), *rest))(state, *arguments))


@every_small
def test_a_model_is_its_head_on_its_features(name):
    model, x = abstract(name), inputs(name)
    assert program(model, lambda m, x: m.head(m.features(x)), x) == program(model, lambda m, x: m(x), x)


@every_small
def test_noise_needs_training_and_a_key(name):
    model, x, key = abstract(name), inputs(name), jax.random.key(0)
    noisy = name.split()[0] in ("vgg", "mobilenet", "convnext", "tcn")
    assert "random_bits" not in program(model, lambda m, x, key: m(x, key=key), x, key)
    assert "random_bits" not in program(model, lambda m, x, key: m(x, train=True), x, key)
    assert ("random_bits" in program(model, lambda m, x, key: m(x, train=True, key=key), x, key)) == noisy


def test_recomputed_noise_is_the_same_noise():
    x, key = inputs("tcn"), jax.random.key(0)
    plain, recomputed = (
        jax.jit(lambda x, remat=remat: small("tcn", dropout=0.5, remat=remat)(x, train=True, key=key))(x)
        for remat in (False, True)
    )
    np.testing.assert_array_equal(plain, recomputed)
    assert not np.array_equal(plain, small("tcn")(x))


@every_small
def test_a_recomputed_model_has_the_same_layers_to_explain(name):
    plain, recomputed = (explain.summary(abstract(name, remat=remat), inputs(name)) for remat in (False, True))
    assert str(plain) == str(recomputed)


@pytest.mark.parametrize(
    ("make", "shape", "features"),
    [
        (functools.partial(models.vgg11, shape=(65, 100, 3), hidden=(8,)), (65, 100, 3), (2, 3, 512)),
        (models.resnet18, (65, 100, 3), (3, 4, 512)),
        (functools.partial(models.resnet18, stem="cifar"), (33, 40, 3), (5, 5, 512)),
        (models.resnet50, (33, 1, 3), (2, 1, 2048)),
        (models.MobileNetV2, (65, 100, 3), (3, 4, 1280)),
        (functools.partial(models.MobileNetV2, width=0.35), (33, 31, 3), (2, 1, 1280)),
        (functools.partial(models.MobileNetV2, width=1.4), (33, 31, 3), (2, 1, 1792)),
        (models.convnext_tiny, (65, 100, 3), (2, 3, 768)),
        (functools.partial(models.convnext_tiny, patch=1), (33, 31, 3), (4, 3, 768)),
        (models.ResNet1d, (9001, 1), (8, 384)),
        (models.TCN, (11, 1), (11, 25)),
        (models.unet2d, (37, 1, 1), (37, 1, 64)),
        (models.unet3d, (9, 12, 17, 3), (9, 12, 17, 64)),
    ],
)
def test_odd_sizes(make, shape, features):
    x = jnp.zeros((2, *shape))
    assert nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)).features(x)).shape == (2, *features)


def test_a_tcn_is_causal():
    model = small("tcn")
    x = inputs("tcn")
    features = jax.jit(model.features)
    first, other = features(x), features(x.at[:, 17].add(1.0))
    np.testing.assert_array_equal(first[:, :17], other[:, :17])
    reach = 1 + 2 * (3 - 1) * (2**2 - 1)
    changed = np.abs(np.asarray(first - other)).max((0, 2)) > 0
    assert changed[17]
    assert not changed[17 + reach :].any()
    # The last step decides, and has seen that far back.
    np.testing.assert_array_equal(model.head(first), model.output(first)[:, -1])


def test_the_receptive_field_of_a_tcn_is_the_published_one():
    model = nnx.eval_shape(lambda: models.TCN(widths=(4,) * 4, kernel_size=3, rngs=nnx.Rngs(0)))
    fields = explain.receptive_field(model, jax.ShapeDtypeStruct((1, 100, 1), jnp.float32))
    sizes = [fields[f"blocks.{i}.conv2"][0].size for i in range(4)]
    assert sizes == [1 + 2 * (3 - 1) * (2**n - 1) for n in range(1, 5)]


def test_weight_normalisation_starts_at_the_drawn_kernel_and_scales_its_length():
    conv = small("tcn").blocks[0].conv1
    x = inputs("tcn")
    first = conv(x)
    conv.direction[...] = 3 * conv.direction[...]
    np.testing.assert_allclose(conv(x), first, rtol=1e-5, atol=1e-5)
    conv.scale[...] = 2 * conv.scale[...]
    np.testing.assert_allclose(conv(x), 2 * first, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(conv.scale[...], 2 / 3 * np.sqrt((conv.direction[...] ** 2).sum((0, 1))), rtol=1e-5)


@pytest.mark.parametrize(("zero_init", "start"), [(True, 0.0), (False, 1.0)])
def test_zero_init_makes_blocks_begin_as_their_shortcut(zero_init, start):
    block = small("resnet", zero_init=zero_init).blocks[0]
    assert {float(value) for value in block.norms[-1].scale[...]} == {start}
    x = jax.random.uniform(jax.random.key(0), (2, 9, 10, 4))
    assert np.array_equal(block(x), x) == zero_init


def test_kernels_start_with_the_deviation_of_the_papers():
    block = models.ResNet(blocks=(1,), widths=(64,), rngs=nnx.Rngs(0)).blocks[0]
    assert float(block.convs[0].kernel[...].std()) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    block = models.ConvNeXt(depths=(1,), widths=(96,), rngs=nnx.Rngs(0)).stages[0][0]
    assert float(block.widen.kernel[...].std()) == pytest.approx(0.02, rel=0.02)
    assert float(jnp.abs(block.widen.kernel[...]).max()) < 0.0456
    np.testing.assert_array_equal(block.scale[...], np.float32(1e-6))


def test_rates_of_stochastic_depth_rise_evenly():
    model = nnx.eval_shape(lambda: models.ConvNeXt(depths=(1, 2), widths=(4, 4), drop_path=0.2, rngs=nnx.Rngs(0)))
    assert [block.drop_path for stage in model.stages for block in stage] == pytest.approx([0.0, 0.1, 0.2])


def test_what_is_no_option_is_refused():
    with pytest.raises(ValueError, match=r"ResNet: stem must be imagenet or cifar, got 'small'."):
        models.resnet18(stem="small", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"UNet: rank must be 2 or 3, got 1."):
        models.unet2d(rank=1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"UNet: norm must be None, batch or group, got 'layer'."):
        models.unet2d(norm="layer", rngs=nnx.Rngs(0))
