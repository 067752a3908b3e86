"""The architectures: numbers of parameters and sizes, and one train step, recomputed, on many devices, in bfloat16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from models_helpers import drawn

from cnnjax import explain, models, train

# As published, or added up layer by layer where no exact number is: the 1-D nets, U-Net in 2-D, SpeedNet. Batch
# statistics are no parameters.
PARAMETERS = {
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
    # "70K" in table 1 of the paper. 16 convolutions, the first of 7 * 1 * 25 and the rest of 7 * 25 * 25, each with 25
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
WHITENING = np.zeros((2, 2, 3, 24), np.float32)
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
    "tcn without projections": (models.TCN, (30, 2), {"widths": (2, 2), "kernel_size": 3}),
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


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_the_shape_of_the_logits(name):
    make, shape, parameters = PARAMETERS[name]
    model = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    assert count(model) == parameters
    logits = nnx.eval_shape(lambda model, x: model(x), model, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    classes = model.output.kernel.shape[-1]
    assert logits.shape == ((2, *shape[:-1], classes) if name.startswith("unet") else (2, classes))


def test_the_sums_above():
    assert [PARAMETERS[name][2] for name in ("resnet1d", "tcn", "unet2d")] == [3_972_778, 66_910, 31_030_658]


def loss_fn(model, batch, key):
    logits = model(batch["x"], train=True, key=key)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return losses.reshape(len(losses), -1).mean(1), {}


def batch_of(name, dtype):
    shape = (8, *SMALL[name][1][:-1]) if name.startswith("unet") else (8,)
    return {"x": inputs(name, dtype), "label": np.random.default_rng(1).integers(0, 3, shape)}


@needs_eight
@every_small
def test_a_step_lowers_the_loss_and_is_the_same_recomputed_on_eight_devices(name):
    def without_noise(model, batch, key):  # each device draws its own
        return loss_fn(model, batch, None)

    with jax.enable_x64(True):
        tx, batch, key = optax.sgd(1e-3), batch_of(name, jnp.float64), jax.random.key(0)
        graphdef, first = train.create(drawn(abstract(name), np.float64), tx)
        run = train.parallel.jit(train.make_train_step(graphdef, tx, without_noise))
        state, before = run(first, batch, key)
        _, after = run(state, batch, key)
        assert after["loss"] < before["loss"]
        graphdef, again = train.create(drawn(abstract(name, remat=True), np.float64), tx)
        other = train.parallel.pmap(train.make_train_step(graphdef, tx, without_noise))(again, batch, key)
    moved = [
        np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(*map(jax.tree.leaves, (first, state)), strict=True)
    ]
    assert np.median(moved) > 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), (state, before), other)


@every_small
def test_bfloat16_computes_and_float32_stays(name):
    model = drawn(abstract(name, dtype=jnp.bfloat16), np.float32)
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


@pytest.mark.parametrize(("name", "rate"), [("tcn", {"dropout": 0.5}), ("convnext", {"drop_path": 0.5})])
def test_gradients_recompute_the_same_noise(name, rate):
    def gradients(key, **options):
        graphdef, params, rest = nnx.split(drawn(abstract(name, **rate, **options), np.float64), nnx.Param, ...)

        def loss(params):
            losses, _ = loss_fn(nnx.merge(graphdef, params, rest, copy=True), batch_of(name, jnp.float64), key)
            return losses.mean()

        return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

    with jax.enable_x64(True):
        key = jax.random.key(0)
        plain, recomputed, quiet = gradients(key), gradients(key, remat=True), gradients(None)
    for a, b in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert max(np.abs(a - b).max() for a, b in zip(plain, quiet, strict=True)) > 1e-3


@every_small
def test_a_recomputed_model_keeps_less_between_the_passes(name):
    def kept(remat):
        def residuals(x):
            graphdef, params, rest = nnx.split(small(name, remat=remat), nnx.Param, ...)
            return jax.vjp(lambda params: nnx.merge(graphdef, params, rest, copy=True)(x, train=True), params)[1]

        x = jax.ShapeDtypeStruct((1024, *SMALL[name][1]), jnp.float32)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(residuals, x)))

    # Most of what these two keep is outside their few blocks.
    assert kept(True) < {"mobilenet": 0.96, "resnet1d": 0.75}.get(name, 0.5) * kept(False)


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
    x = inputs("tcn")
    features = jax.jit(small("tcn").features)
    changed = np.any(features(x) != features(x.at[:, 5].add(1.0)), (0, 2))
    reach = 1 + 2 * (3 - 1) * (2**2 - 1)
    assert np.flatnonzero(changed).tolist() == list(range(5, 5 + reach))


def test_weight_normalisation_starts_at_the_drawn_kernel():
    conv = small("tcn").blocks[0].conv1
    np.testing.assert_allclose(conv.scale[...], np.sqrt((conv.direction[...] ** 2).sum((0, 1))), rtol=1e-6)


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


VOLUME = {"rank": 3, "channels": 1, "num_classes": 2}


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (models.resnet18, {"stem": "small"}, r"ResNet: stem must be imagenet or cifar, got 'small'\."),
        (models.UNet, {**VOLUME, "rank": 1, "widths": (4,)}, r"UNet: rank must be 2 or 3, got 1\."),
        (models.unet2d, {"norm": "layer"}, r"UNet: norm must be None, batch or group, got 'layer'\."),
        (models.VGG, {"convs": (1, 2), "widths": (4,)}, r"VGG: convs and widths must be equally long, got \(1, 2\) "),
        (models.VGG, {"convs": (0,), "widths": (4,)}, r"VGG: convs must be numbers of at least 1, got \(0,\)\. Give"),
        (models.ResNet, {"blocks": (1,)}, r"ResNet: blocks and widths must be equally long, got \(1,\) and \(64, "),
        (models.ConvNeXt, {"depths": (1,)}, r"ConvNeXt: depths and widths must be equally long, got \(1,\) and \(96, "),
        (models.ResNet1d, {"blocks": ()}, r"ResNet1d: blocks must be numbers of at least 1, got \(\)\. Give one"),
        (models.TCN, {"widths": ()}, r"TCN: widths must be numbers of at least 1, got \(\)\. Give one"),
        (models.TCN, {"kernel_size": 0}, r"TCN: kernel_size must be at least 1, got 0\."),
        (models.unet2d, {"widths": ()}, r"UNet: widths must be numbers of at least 1, got \(\)\. Give one"),
        (models.unet3d, {"widths": (1, 2)}, r"UNet: widths must be numbers of at least 2, got \(1, 2\)\. Give one"),
        (models.vgg11, {"shape": (16, 16, 3)}, r"VGG: shape must be .* at least 32, got \(16, 16, 3\)\. Resize the"),
        (models.LeNet, {"shape": (4, 4, 1)}, r"LeNet: shape must be .* at least 8, got \(4, 4, 1\)\. Resize the"),
        (models.TCN, {"dropout": 2}, r"TCN: dropout must be in \[0, 1\], got 2\. It is the share that is zeroed\."),
        (models.ConvNeXt, {"depths": (1,), "widths": (4,), "drop_path": -1}, r"ConvNeXt: drop_path must be in .* -1\."),
        (models.vgg11, {"dropout": 2}, r"VGG: dropout must be in \[0, 1\], got 2\."),
        (models.LeNet, {"dropout": 2}, r"LeNet: dropout must be in \[0, 1\], got 2\."),
        (models.MLP, {"dropout": 2}, r"MLP: dropout must be in \[0, 1\], got 2\."),
        (models.MobileNetV2, {"dropout": 2}, r"MobileNetV2: dropout must be in \[0, 1\], got 2\."),
    ],
)
def test_what_no_net_can_be_built_of_is_told(make, options, text):
    with pytest.raises(ValueError, match=text):
        make(**options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "maps"), [(functools.partial(models.vgg11, hidden=(8,)), "1, 1, 512"), (models.LeNet, "4, 4, 64")]
)
def test_pictures_of_another_size_than_the_dense_layers_were_made_for_are_told(make, maps):
    text = rf"the dense layers take maps \({maps}\), as of pictures of shape=\(32, 32, 3\), got maps .* Build the net"
    with pytest.raises(ValueError, match=text):
        nnx.eval_shape(lambda: make(shape=(32, 32, 3), rngs=nnx.Rngs(0))(jnp.zeros((2, 64, 64, 3))))
