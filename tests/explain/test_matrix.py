"""The matrix of a convolution does what the convolution does, and the picture shows that matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain, ops

CONV = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
CASES = [
    ((7, 2), (3, 2, 3), {}),
    ((7, 2), (2, 2, 3), {"padding": "CAUSAL", "dilation": 2}),
    ((6, 6, 1), (3, 3, 1, 1), {"padding": "VALID"}),
    ((5, 6, 2), (3, 2, 2, 3), {"stride": (2, 1), "padding": ((1, 0), (0, 2))}),
    ((6, 5, 2), (2, 3, 2, 2), {"dilation": (2, 1), "padding": "SAME_LOWER"}),
    ((5, 5, 1), (3, 3, 1, 2), {"padding": "REFLECT"}),
    ((5, 5, 1), (3, 3, 1, 2), {"padding": "CIRCULAR", "stride": 2}),
    ((3, 4, 3, 2), (2, 2, 2, 2, 2), {"stride": (1, 2, 1)}),
]


@pytest.mark.parametrize(("shape", "window", "options"), CASES)
def test_it_equals_the_convolution_and_its_jacobian(shape, window, options):
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=window).astype(np.float32), rng.normal(size=shape).astype(np.float32)

    def conv(x):
        return CONV[len(shape) - 1](x[None], jnp.asarray(kernel), **options)[0]

    matrix = explain.conv_matrix(kernel, shape, **options)
    y = conv(jnp.asarray(x))
    assert matrix.shape == (y.size, x.size)
    np.testing.assert_allclose(matrix @ x.ravel(), y.ravel(), atol=1e-5)
    jacobian = jax.jacobian(conv)(jnp.asarray(x)).reshape(y.size, x.size)
    np.testing.assert_allclose(matrix, jacobian, atol=1e-6)


def test_it_equals_a_loop_over_its_entries():
    kernel = np.arange(1.0, 10).reshape(3, 3)
    expected = np.zeros((16, 36))
    for i, j, a, b in np.ndindex(4, 4, 3, 3):
        expected[i * 4 + j, (i + a) * 6 + j + b] = kernel[a, b]
    matrix = explain.conv_matrix(kernel[..., None, None], (6, 6, 1), padding="VALID")
    np.testing.assert_array_equal(matrix, expected)
    # Why fewer parameters, and why even fewer.
    assert (matrix.size, np.count_nonzero(matrix), len(np.unique(matrix[matrix != 0]))) == (576, 144, 9)


def test_the_picture_is_the_matrix():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 1))
    figure = explain.plot_conv_matrix(kernel, (6, 6, 1), padding="VALID")
    left, right = figure.axes
    assert right.get_title("left").splitlines() == [
        "a dense layer: 16 × 36 = 576 weights", "only its window: 144 connections", "one kernel for all: 9 weights",
    ]  # fmt: skip
    pixels = np.asarray(right.images[0].get_array())
    matrix = explain.conv_matrix(kernel, (6, 6, 1), padding="VALID")
    colours = {}
    for at, weight in np.ndenumerate(matrix):
        colours.setdefault(float(weight), set()).add(tuple(pixels[at]))
    # The same weight has the same colour, another weight another one, and where there is none it is white.
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == 10
    assert colours[0.0] == {(1.0, 1.0, 1.0)}
    legend: dict[float, Any] = {float(text.get_text().replace("−", "-")): tuple(patch.get_facecolor()[:3])
              for text, patch in zip(left.texts, left.patches, strict=True)}  # fmt: skip
    for weight, colour in legend.items():
        (found,) = next(seen for value, seen in colours.items() if abs(value - weight) <= 0.005)
        np.testing.assert_allclose(found, colour)


def test_a_weight_of_zero_is_a_connection_all_the_same():
    figure = explain.plot_conv_matrix(np.zeros((2, 1, 1)), (4, 1), padding="VALID")
    assert "only its window: 6 connections" in figure.axes[1].get_title("left")


@pytest.mark.parametrize(("shape", "window", "options"), CASES[:5] + CASES[7:])
def test_every_picture_draws(shape, window, options, tmp_path):
    explain.plot_conv_matrix(np.ones(window), shape, **options).savefig(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: explain.conv_matrix(np.ones((3, 3)), (6, 6)),
            r"conv_matrix: kernel must be .* got shape \(3, 3\)\. Add",
        ),
        (
            lambda: explain.conv_matrix(np.ones((3, 3, 1, 1)), (1, 6, 6, 1)),
            r"conv_matrix: input_shape must be .* got \(1, 6, 6, 1\)\. Leave out the batch axis",
        ),
        (
            lambda: explain.conv_matrix(np.ones((3, 3, 1, 1)), (99, 99, 1)),
            "conv_matrix: at most 8192 inputs .* got 9801",
        ),
        (lambda: explain.conv_matrix(np.ones((3, 3, 2, 1)), (6, 6, 1)), "conv2d: x has 1 channels but kernel"),
        (lambda: explain.plot_conv_matrix(np.ones((3, 3, 1, 1)), (20, 20, 1)), "plot_conv_matrix: at most 128 weights"),
        (
            lambda: explain.plot_conv_matrix(np.ones((3, 3, 1, 1)), (6, 6, 1), padding="REFLECT"),
            "plot_conv_matrix: every entry must be one weight, but padding 'REFLECT' adds up",
        ),
    ],
)
def test_errors_name_the_function_and_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
