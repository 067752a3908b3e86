"""Feature visualisation finds the pattern that was planted in a channel."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, nn, ops

KEY = jax.random.key(0)
# Waves come close to sharp edges only slowly.
ALIKE = {"fourier": 0.8, "pixel": 0.95}
both_bases = pytest.mark.parametrize("basis", ["fourier", "pixel"])


def _template(*spatial):
    """Minus and plus one in blobs, which a shift by a pixel does not scramble."""
    waves = [np.sin(2 * np.pi * (i + 1) * np.arange(n) / n + i) for i, n in enumerate(spatial)]
    return np.where(np.sum(np.meshgrid(*waves, indexing="ij"), 0) > 0, 1.0, -1.0)[..., None].astype(np.float32)


def _dense(*templates):
    """A channel for each template: what the input has of it."""
    dense = nnx.Linear(templates[0].size, len(templates), rngs=nnx.Rngs(0))
    dense.kernel[...] = jnp.stack([jnp.ravel(template) for template in templates], -1)
    return nnx.Sequential(ops.flatten, dense)


def _correlation(picture, template):
    return float(np.corrcoef(np.ravel(picture), np.ravel(template))[0, 1])


@both_bases
@pytest.mark.parametrize("spatial", [(24,), (12, 16), (6, 8, 5)])
def test_finds_the_template(spatial, basis):
    template = _template(*spatial)
    found = explain.visualize_feature(
        KEY, _dense(template, -template), template.shape, layer="layers.1", channels=[1, 0], basis=basis, jitter=0,
        rotation=0, zoom=0, steps=100, bounds=(-2.0, 3.0),
    )  # fmt: skip
    assert found.shape == (2, *template.shape)
    assert _correlation(found[0], -template) > ALIKE[basis]
    assert _correlation(found[1], template) > ALIKE[basis]
    assert -2 <= float(found.min()) < -1.5
    assert 2.5 < float(found.max()) <= 3


@both_bases
def test_finds_the_template_while_it_is_moved(basis):
    template = _template(16, 16)
    found = explain.visualize_feature(
        KEY, _dense(template), template.shape, layer="layers.1", channels=[0], basis=basis, jitter=1
    )
    assert _correlation(found, template) > 0.8


def test_one_unit_and_the_mean_of_all():
    """The one unit sees its window alone; the mean moves every pixel."""
    model = nn.Conv2d(1, 1, 3, padding="VALID", kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    still: Any = {"layer": "conv2d", "channels": [0], "basis": "pixel", "jitter": 0, "rotation": 0, "zoom": 0}
    one = explain.visualize_feature(KEY, model, (8, 9, 1), unit=(2, 4), **still)[0, :, :, 0] > 0.8
    window = np.zeros((8, 9), bool)
    window[explain.receptive_window(model, jnp.zeros((1, 8, 9, 1)), layer="conv2d", unit=(2, 4))] = True
    np.testing.assert_array_equal(one, window)
    assert bool((explain.visualize_feature(KEY, model, (8, 9, 1), **still) > 0.8).all())


def test_wakes_a_unit_that_a_relu_silences():
    template = _template(8, 8)
    model = nnx.Sequential(_dense(template), lambda x: jax.nn.relu(x - 9))
    found = explain.visualize_feature(
        KEY, model, template.shape, layer="layers.0.layers.1", channels=[0], jitter=0, rotation=0, zoom=0
    )
    assert _correlation(found, template) > ALIKE["fourier"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_moves_the_pictures_leaves_no_high_frequencies(dtype):
    """A channel that asks for a checkerboard in one place gets less of it from pictures that move."""
    checkers = np.indices((12, 12)).sum(0) % 2 * 2.0 - 1
    dense = nnx.Linear(144, 1, dtype=dtype, rngs=nnx.Rngs(0))
    dense.kernel[...] = jnp.ravel(checkers)[:, None]
    model = nnx.Sequential(ops.flatten, dense)
    options: Any = {"layer": "layers.1", "channels": [0], "basis": "pixel", "steps": 60}
    still = explain.visualize_feature(KEY, model, (12, 12, 1), jitter=0, rotation=0, zoom=0, **options)
    moved = explain.visualize_feature(KEY, model, (12, 12, 1), **options)
    assert _correlation(still, checkers) > 0.95
    assert _correlation(moved, checkers) < 0.6


def test_the_key_decides():
    template = _template(6, 6)
    options: Any = {"layer": "layers.1", "channels": [0], "steps": 3}
    run = jax.jit(lambda key: explain.visualize_feature(key, _dense(template), (6, 6, 1), **options))
    first, again, other = run(KEY), run(KEY), run(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "z"}, ValueError, "layer must be one of .*, got 'z'"),
        ({"channels": [1]}, ValueError, "channel must be one of the 1 channels of layers.1, got 1"),
        ({"channels": []}, ValueError, r"channels must be a sequence of at least one, got \[\]"),
        ({"unit": (0,)}, ValueError, r"unit must be a position on the map \(\) of layers.1, got \(0,\)"),
        ({"basis": "wavelet"}, ValueError, "basis must be one of fourier, pixel, got 'wavelet'"),
        ({"bounds": (1.0, 1.0)}, ValueError, r"bounds must be \(low, high\) with low below high, got \(1.0, 1.0\)"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be above 0 and jitter, rotation, zoom at least 0"),
        ({"zoom": -1.0}, ValueError, "learning_rate must be above 0 and jitter, rotation, zoom at least 0"),
    ],
)
def test_errors(options, error, match):
    model = _dense(_template(6, 6))
    with pytest.raises(error, match=f"^visualize_feature: {match}"):
        explain.visualize_feature(KEY, model, (6, 6, 1), **{"layer": "layers.1", "channels": [0]} | options)
