"""The recipes of experiments.cifar10: arithmetic, optimiser, augmentation, looks."""

from typing import Any

import jax
import numpy as np

from cnnjax import explain, models, ops, train
from experiments import cifar10, classifier


def test_pflop_of_the_speed_recipe():
    model = models.SpeedNet(whitening=np.zeros((2, 2, 3, 24), np.float32), rngs=cifar10.nnx.Rngs(0))
    image = np.zeros((1, 32, 32, 3), np.uint8)
    # Convolutions of 31x31, 31x31, 15x15, 15x15, 7x7, 7x7 and 3x3 pixels, and the last layer.
    products = (
        31**2 * 4 * 3 * 24 + 31**2 * 9 * 24 * 64 + 15**2 * 9 * 64 * 64 + 15**2 * 9 * 64 * 256
        + 7**2 * 9 * 256 * 256 * 2 + 3**2 * 9 * 256 * 256 + 2560
    )  # fmt: skip
    assert explain.summary(model, cifar10.normalized(image)).multiply_adds == products
    flop = classifier.flop(model, cifar10.normalized(image))
    assert flop == 6 * products
    # Eight epochs of 50,000 pictures.
    assert flop * 8 * 50_000 < 0.3e15


def test_muon_keeps_the_length_of_kernels_and_turns_them_orthogonally():
    tx = cifar10.speed_optimiser(0.24, 100, steps=10)
    model = models.SpeedNet(whitening=np.zeros((2, 2, 3, 24), np.float32), widths=(24, 24, 8), rngs=cifar10.nnx.Rngs(0))
    _, state = train.create(model, tx)
    params: Any = jax.tree.map(lambda leaf: 3 * leaf, state.params)
    gradient = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    updates: Any = tx.update(gradient, state.opt_state, params)[0]
    kernel = params["blocks"][0]["conv1"]["kernel"]
    length = np.sqrt(kernel.shape[-1])
    turned = updates["blocks"][0]["conv1"]["kernel"] + kernel - kernel * (length / np.linalg.norm(kernel))
    singular = np.linalg.svd(np.asarray(turned).reshape(-1, kernel.shape[-1]), compute_uv=False) / 0.24
    assert (singular.min() > 0.3, singular.max() < 1.5) == (True, True)
    rates = {
        "output": updates["output"]["kernel"] / gradient["output"]["kernel"],
        "bias": updates["bias"] / gradient["bias"],
    }
    # Nesterov's first step is 1.85 gradients, of a mean over 100; nothing has decayed yet but what was not zero.
    np.testing.assert_allclose(rates["bias"], -0.053 * 100 * 1.85, rtol=1e-5)
    np.testing.assert_allclose(np.median(rates["output"]), -0.67 * 100 * 1.85, rtol=1e-3)


def test_the_whitened_patches_bias_is_trained_for_three_eighths_of_the_steps():
    tx = cifar10.speed_optimiser(0.24, 100, steps=8)
    params = {"bias": np.ones(3, np.float32), "norm": {"bias": np.ones(3, np.float32)}}
    state, moved = tx.init(params), []
    for _ in range(8):
        updates: Any
        updates, state = tx.update(params, state, params)
        moved.append([bool(np.abs(updates["bias"]).max() > 0), bool(np.abs(updates["norm"]["bias"]).max() > 0)])
    assert moved == [[True, True]] * 3 + [[False, True]] * 5


def test_whitening_sees_pictures_of_all_classes():
    random = np.random.default_rng(0)
    dark = random.integers(118, 138, (5000, 8, 8, 3), np.uint8)
    images = np.concatenate([dark, random.integers(0, 256, (5000, 8, 8, 3), np.uint8)])
    model: Any = cifar10.build(cifar10.Config(), images)
    answers = ops.conv2d(cifar10.normalized(images[::7]), model.whitening[...], padding="VALID")
    np.testing.assert_allclose(np.var(np.asarray(answers), (0, 1, 2)), 1, atol=0.3)  # of dark ones alone: 50


def test_six_looks_at_a_picture():
    random = np.random.default_rng(0)
    images, weights = random.normal(size=(2, 6, 6, 3)), random.normal(size=(6, 6, 3))

    class Weighing:
        def __call__(self, x, *, train=False, key=None):
            return (x * weights).sum((1, 2, 3))[:, None]

    once, six_times = cifar10.looks(Weighing(), jax.numpy.asarray(images))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    views = [images, images, padded[:, :6, :6], padded[:, 2:, 2:]]
    expected = np.mean([[(x * weights).sum((1, 2, 3)) for x in (v, v[:, :, ::-1])] for v in views], (0, 1))
    np.testing.assert_allclose(once[:, 0], (images * weights).sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(six_times[:, 0], expected, rtol=1e-4)


def test_pictures_are_moved_and_mirrored_in_every_other_epoch():
    config, examples = cifar10.Config(), 6
    loss_fn = cifar10.make_loss_fn(config, examples)
    seen = []

    class Recorder:
        def __call__(self, x, *, train=False, key=None):
            seen.append(np.asarray(x))
            return jax.numpy.zeros((len(x), 10))

    rows, columns = np.mgrid[:32, :32] * 8
    ramp = np.broadcast_to(np.stack([columns, rows, rows], -1).astype(np.uint8), (6, 32, 32, 3))
    for epoch in range(3):
        batch = {
            "image": ramp, "label": np.zeros(6, int), "number": np.arange(6, dtype=np.uint32),
            "position": (np.arange(6) + 6 * epoch).astype(np.uint32),
        }  # fmt: skip
        loss_fn(Recorder(), batch, jax.random.key(0))
    middle = np.round((np.concatenate(seen)[:, 16, 16] * cifar10.DEVIATION + cifar10.MEAN) * 255 / 8)
    for moves in (middle[:, 1] - 16, np.minimum(abs(middle[:, 0] - 16), abs(15 - middle[:, 0]))):
        assert np.abs(moves).max() <= 2
        assert len(np.unique(moves)) > 2
    mirrored = np.stack([images[:, 16, 20, 0] < images[:, 16, 10, 0] for images in seen])
    np.testing.assert_array_equal(mirrored[0], ~mirrored[1])
    np.testing.assert_array_equal(mirrored[0], mirrored[2])
    assert mirrored[0].any()
    assert not mirrored[0].all()
