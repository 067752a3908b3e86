"""The patches that excite a channel most, against a search in plain loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, nn, ops


class Net(nnx.Module):
    def __init__(self, padding: Any = "SAME"):
        rngs = nnx.Rngs(0)
        self.a = nn.Conv2d(1, 3, 3, padding=padding, rngs=rngs)
        self.b = nn.Conv2d(3, 4, 3, padding=padding, rngs=rngs)
        self.out = nn.Dense(4, 2, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.b(ops.max_pool2d(jax.nn.relu(self.a(x)), 2)))
        return self.out(ops.global_avg_pool(x))


NET = Net()
X: Any = np.random.default_rng(0).normal(size=(11, 14, 12, 1)).astype(np.float32)


def _by_hand(model, layer, channel, k):
    """(activation, example, unit) of the k examples whose strongest unit is strongest."""
    maps = np.asarray(explain.activations(model, X)[layer])[..., channel]
    best = []
    for index, values in enumerate(maps):
        units = [(float(values[unit]), unit) for unit in np.ndindex(values.shape)]
        value, unit = max(units, key=lambda found: found[0])
        best.append((value, index, unit))
    return sorted(best, key=lambda found: -found[0])[:k]


@pytest.mark.parametrize("batch_size", [4, 128])
@pytest.mark.parametrize("layer", ["a", "b", "out"])
def test_a_loop_finds_the_same(layer, batch_size):
    channels = [1, 0]
    top = explain.top_patches(NET, X, layer=layer, channels=channels, k=5, batch_size=batch_size)
    for row, channel in enumerate(channels):
        found = _by_hand(NET, layer, channel, 5)
        np.testing.assert_allclose(top.activations[row], [value for value, _, _ in found], rtol=1e-5)
        assert top.indices[row].tolist() == [index for _, index, _ in found]
        assert [tuple(unit) for unit in top.units[row].tolist()] == [unit for _, _, unit in found]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_patches_are_what_the_units_see(padding):
    model = Net(padding)
    top = explain.top_patches(model, X, layer="b", channels=range(4), k=11, value=-7)
    assert top.patches.shape == (4, 11, 8, 8, 1)
    padded = 0
    for row, column in np.ndindex(4, 11):
        index, unit = top.indices[row, column], top.units[row, column]
        window = explain.receptive_window(model, X, layer="b", unit=tuple(unit))
        seen, patch = X[index][window], top.patches[row, column]
        real = patch != -7
        np.testing.assert_array_equal(patch[real].reshape(seen.shape), seen)
        padded += not real.all()
    assert (padded > 0) == (padding == "SAME")


def test_a_patch_alone_excites_as_the_picture_did():
    """Nothing that counts lies outside: the net sees the same in the patch, where there is no padding."""
    model = Net("VALID")
    top = explain.top_patches(model, X, layer="b", channels=[2], k=3)
    alone = explain.activations(model, top.patches[0])["b"]
    assert alone.shape[1:3] == (1, 1)
    np.testing.assert_allclose(alone[:, 0, 0, 2], top.activations[0], rtol=1e-5)


def test_a_field_larger_than_the_picture_is_the_picture():
    top = explain.top_patches(NET, X, layer="out", channels=[0], k=2)
    np.testing.assert_array_equal(top.patches[0], X[top.indices[0]])
    assert top.units.shape == (1, 2, 0)


def test_series_volumes_and_bfloat16():
    x = np.random.default_rng(1).normal(size=(4, 5, 4, 3, 2)).astype(np.float32)
    volumes = nn.Conv3d(2, 1, 2, padding="VALID", dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    top = explain.top_patches(volumes, x, layer="conv3d", channels=[0], k=2)
    assert top.patches.shape == (1, 2, 2, 2, 2, 2)
    series = nn.Conv1d(2, 1, 3, padding="CAUSAL", rngs=nnx.Rngs(0))
    top = explain.top_patches(series, x[:, :, 0, 0], layer="conv1d", channels=[0], k=2)
    assert top.patches.shape == (1, 2, 3, 2)
    explain.plot_patches(top).draw_without_rendering()


def test_plot():
    top = explain.top_patches(NET, X, layer="b", channels=[3, 1], k=4)
    figure = explain.plot_patches(top)
    assert len(figure.axes) == 8
    assert [axes.get_ylabel() for axes in figure.axes] == ["3", "", "", "", "1", "", "", ""]
    assert figure.axes[5].get_title() == f"{top.activations[1, 1]:.3g}"
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    low, high = top.patches.min(), top.patches.max()
    np.testing.assert_allclose(shown[5], (top.patches[1, 1, ..., 0] - low) / (high - low), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "c"}, ValueError, "layer must be one of a, max_pool2d, b, .*, got 'c'"),
        ({"channels": [0, 4]}, ValueError, "channel must be one of the 4 channels of b, got 4"),
        ({"channels": []}, ValueError, r"channels must be a sequence of at least one, got \[\]"),
        ({"k": 12}, ValueError, "k must be at most the 11 examples, got 12"),
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"x": X.astype(int)}, TypeError, "x must be floating point, got int"),
        ({"x": X[:0]}, ValueError, "x must have an example"),
        ({"x": jax.ShapeDtypeStruct((2, 8, 8, 1), "float32")}, TypeError, "x must be an array"),
    ],
)
def test_errors(options, error, match):
    options = {"x": X, "layer": "b", "channels": [0], "k": 2} | options
    with pytest.raises(error, match=f"^top_patches: {match}"):
        explain.top_patches(NET, options.pop("x"), **options)


def test_errors_of_the_plot():
    volumes = explain.TopPatches(*[np.zeros((1, 2))] * 4, patches=np.zeros((1, 2, 3, 3, 3, 1)))
    with pytest.raises(ValueError, match=r"^plot_patches: patches must be .*, got \(1, 2, 3, 3, 3, 1\)"):
        explain.plot_patches(volumes)
