"""What layers hand on: the numbers that the model computes, and pictures of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

X = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))


def test_lenet_step_by_step():
    model = models.LeNet(rngs=nnx.Rngs(0))
    found, x = explain.activations(model, X), X
    for number, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        mark = f"#{number + 1}" if number else ""
        x = conv(x)
        np.testing.assert_allclose(found[f"convs.{number}"], x, atol=1e-5)
        x = ops.max_pool2d(x, 2)
        np.testing.assert_allclose(found[f"max_pool2d{mark}"], x, atol=1e-5)
        x = jax.nn.relu(norm(x))
        np.testing.assert_allclose(found[f"norms.{number}"], x, atol=1e-5)
    np.testing.assert_allclose(found["flatten"], ops.flatten(x), atol=1e-5)
    np.testing.assert_allclose(found["hidden"], jax.nn.relu(model.hidden(ops.flatten(x))), atol=1e-5)
    np.testing.assert_allclose(found["output"], model(X), atol=1e-5)
    assert list(found) == [row.name for row in explain.summary(model, X).rows]
    # In their places, not flattened for what follows.
    lenet5 = explain.activations(models.LeNet5(rngs=nnx.Rngs(0)), X)
    assert [lenet5[name].shape for name in ("s2", "c5", "f6")] == [(3, 14, 14, 6), (3, 1, 1, 120), (3, 84)]


class Stock(nnx.Module):
    """A stock net with a residual branch, batch statistics and dropout."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        x = x + self.drop(self.norm(nnx.relu(self.conv(x))))
        return jnp.argmax(nnx.softmax(self.out(x.mean((1, 2)))), -1)


def test_a_stock_model_is_evaluated_and_left_alone():
    model = Stock(nnx.Rngs(0))
    model.norm.mean[...] = jnp.arange(4.0)
    found = explain.activations(model, X)
    assert list(found) == ["conv", "norm", "add", "global_avg_pool", "out"]
    rectified = nnx.relu(model.conv(X))
    np.testing.assert_allclose(found["conv"], rectified, atol=1e-6)
    # The remembered statistics, and no dropout.
    np.testing.assert_allclose(found["norm"], (rectified - jnp.arange(4.0)) / np.sqrt(1 + 1e-5), atol=1e-5)
    np.testing.assert_allclose(found["add"], X + found["norm"], atol=1e-5)
    # What the argmax compared, not the argmax.
    assert found["out"].shape == (3, 2)
    np.testing.assert_array_equal(model.norm.mean[...], jnp.arange(4.0))
    assert not model.drop.deterministic


def test_numpy_and_other_ranks():
    series = explain.activations(nn.Conv1d(2, 3, 3, rngs=nnx.Rngs(0)), np.ones((2, 9, 2), np.float32))
    assert series["conv1d"].shape == (2, 9, 3)
    volume = explain.activations(nn.Conv3d(1, 2, 3, rngs=nnx.Rngs(0)), np.ones((1, 4, 4, 4, 1), np.float32))
    assert volume["conv3d"].shape == (1, 4, 4, 4, 2)


def test_kernels_are_those_that_slide():
    model = models.LeNet5(rngs=nnx.Rngs(0))
    kernels = explain.kernels(model, X)
    assert list(kernels) == ["c1", "c3", "c5"]
    np.testing.assert_array_equal(kernels["c1"], model.c1.kernel[...])
    # C3 is partly connected: map 0 sees the maps 0, 1, 2.
    assert kernels["c3"].shape == (5, 5, 6, 16)
    connected = np.any(np.asarray(kernels["c3"]) != 0, axis=(0, 1))
    assert connected.sum() == 60
    assert np.flatnonzero(connected[:, 0]).tolist() == [0, 1, 2]
    assert len(explain.plot_filters(kernels["c3"], channel=2).axes) >= 16


def _images(figure):
    return [ax.images[0] for ax in figure.axes if ax.images and ax.get_title()]


def test_signed_maps_are_centred_and_others_are_not():
    maps = np.random.default_rng(0).normal(size=(2, 5, 6, 10)).astype(np.float32)
    images = _images(explain.plot_activations(maps, example=1, columns=4))
    assert len(images) == 10
    limit = np.abs(maps[1]).max()
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image.get_array(), maps[1, :, :, number])
        assert image.get_clim() == (-limit, limit)
        assert image.get_cmap().name == "RdBu_r"
    rectified = _images(explain.plot_activations(np.maximum(maps, 0)))
    assert all(image.get_clim() == (0, maps[0].max()) and image.get_cmap().name == "viridis" for image in rectified)
    assert len(_images(explain.plot_activations(maps, channels=3))) == 3


def test_series_units_and_dead_layers(tmp_path):
    series = explain.plot_activations(np.ones((1, 30, 4)))
    assert np.asarray(series.axes[0].images[0].get_array()).shape == (4, 30)
    units = explain.plot_activations(np.array([[1.0, -2.0, 3.0]]))
    bars: Any = units.axes[0].patches
    assert [bar.get_height() for bar in bars] == [1.0, -2.0, 3.0]
    dead = explain.plot_activations(jnp.zeros((1, 4, 4, 2), jnp.bfloat16))
    assert len(_images(dead)) == 2
    for number, figure in enumerate((series, units, dead)):
        figure.savefig(tmp_path / f"{number}.png", dpi=40)


MODEL = models.MLP(rngs=nnx.Rngs(0))
SHAPE: Any = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
CLASS: Any = models.MLP


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: explain.activations(MODEL, SHAPE),
            TypeError,
            r"^activations: x must be an array, got a jax\.ShapeDtypeStruct\. There is nothing to compute\.$",
        ),
        (
            lambda: explain.activations(CLASS, X),
            TypeError,
            r"^activations: model must be an nnx\.Module, got the class MLP\. Call it, with rngs",
        ),
        (
            lambda: explain.kernels(MODEL, jnp.zeros(3)),
            ValueError,
            r"^kernels: x must be a batch \(N, \.\.\., C\), got shape \(3,\)\.",
        ),
        (
            lambda: explain.plot_activations(np.zeros((1, 2, 3, 4, 5))),
            ValueError,
            r"^plot_activations: maps must be .* got shape \(1, 2, 3, 4, 5\)\. Take a slice of the volume",
        ),
        (
            lambda: explain.plot_activations(np.zeros((2, 4, 4, 1)), example=2),
            ValueError,
            r"^plot_activations: maps must be .* with example 2, got shape \(2, 4, 4, 1\)\.$",
        ),
        (
            lambda: explain.plot_activations(np.zeros((2, 4, 4, 1)), columns=0),
            ValueError,
            r"^plot_activations: columns and channels must be at least 1, got 0 and 64\.$",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
