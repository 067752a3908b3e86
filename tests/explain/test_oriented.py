"""Oriented filters answer to lines of their angle, and receptive fields are drawn where arithmetic puts them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain, ops
from cnnjax.explain import _style as style


@pytest.mark.parametrize("kind", ["line", "edge"])
@pytest.mark.parametrize("stimulus", [explain.line_image, explain.grating_image])
def test_each_filter_prefers_its_own_angle(kind, stimulus):
    kernel = explain.oriented_filters(6, kind=kind)
    answers = explain.orientation_tuning(kernel, angles=range(0, 180, 10), stimulus=stimulus)
    assert answers.shape == (18, 6)
    np.testing.assert_array_equal(answers.argmax(0) * 10, [0, 30, 60, 90, 120, 150])
    # A tuned unit is nearly silent for the crossing line.
    crossing = np.roll(answers, 9, axis=0)
    assert np.all(crossing[answers.argmax(0), range(6)] < 0.1 * answers.max(0))


@pytest.mark.parametrize("kind", ["line", "edge"])
def test_filters_are_blind_to_even_light_and_of_length_one(kind):
    kernel = explain.oriented_filters(5, size=11, wavelength=5.0, kind=kind)
    assert (kernel.shape, kernel.dtype) == ((11, 11, 1, 5), np.float32)
    np.testing.assert_allclose(kernel.sum((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(np.square(kernel).sum((0, 1, 2)), 1, rtol=1e-5)


def test_lines_are_even_and_edges_odd():
    line, edge = (explain.oriented_filters(3, kind=kind) for kind in ("line", "edge"))
    np.testing.assert_allclose(line, line[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(edge, -edge[::-1, ::-1], atol=1e-6)
    # Bright above dark.
    assert edge[5:7, 7, 0, 0].min() > 0.1


def test_angles_count_from_the_horizontal_anticlockwise():
    image = explain.line_image(45, size=21, width=1.5)[:, :, 0]
    assert min(image[i, 20 - i] for i in range(21)) > 0.9
    assert image[0, 0] == image[20, 20] == 0
    np.testing.assert_array_equal(explain.line_image(90, size=9)[:, :, 0], explain.line_image(0, size=9)[:, :, 0].T)
    np.testing.assert_allclose(explain.line_image(200), explain.line_image(20), atol=1e-5)


def test_a_bar_ends():
    bar = explain.line_image(0, size=15, width=3, length=5)[:, :, 0]
    np.testing.assert_array_equal(np.argwhere(bar == 1).min(0), [6, 5])
    np.testing.assert_array_equal(np.argwhere(bar == 1).max(0), [8, 9])
    assert bar.sum() == 15
    grey = explain.line_image(0, size=15, width=0.5)[:, :, 0]
    assert set(np.unique(grey)) == {0, 0.5}


def test_gratings_repeat_and_shift():
    grating = explain.grating_image(0, size=33, wavelength=8)[:, 0, 0]
    np.testing.assert_allclose(grating[8:], grating[:-8], atol=1e-6)
    assert grating[16] == 1
    above = explain.grating_image(0, size=33, wavelength=8, phase=90)[:, 0, 0]
    assert above[14] > 0.9
    assert above[18] < 0.1


def test_tuning_is_the_strongest_answer_after_a_relu():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 3)).astype(np.float32)
    picture = explain.line_image(20)
    x = jnp.asarray(np.concatenate([picture, picture], -1))[None]
    expected = np.maximum(np.asarray(ops.conv2d(x, jnp.asarray(kernel), padding="VALID")).max((0, 1, 2)), 0)
    np.testing.assert_allclose(explain.orientation_tuning(kernel, angles=[20])[0], expected, rtol=1e-5)
    dark = explain.orientation_tuning(-np.ones((3, 3, 1, 1)), angles=[0], stimulus=lambda angle: np.ones((9, 9, 1)))
    assert dark.tolist() == [[0]]


def test_the_curves_are_the_answers():
    kernel, angles = explain.oriented_filters(3), np.arange(0, 180, 20)
    figure = explain.plot_tuning(kernel, angles=angles)
    answers = explain.orientation_tuning(kernel, angles=angles)
    limit = np.abs(kernel).max()
    for number in range(3):
        np.testing.assert_array_equal(figure.axes[number].images[0].get_array(), kernel[:, :, 0, number])
        assert figure.axes[number].images[0].get_clim() == (-limit, limit)
        curve: Any = figure.axes[3 + number].patches[0]
        curve = curve.get_xy()[: len(angles)]
        np.testing.assert_allclose(np.hypot(*curve.T), answers[:, number] / answers.max(), atol=1e-6)
        directions = np.degrees(np.arctan2(curve[:, 1], curve[:, 0])) % 180
        np.testing.assert_allclose(directions, angles, atol=1e-3)
    assert [ax.get_title() for ax in figure.axes[3:]] == ["prefers 0°", "prefers 60°", "prefers 120°"]


def test_a_silent_filter_is_called_so():
    figure = explain.plot_tuning(-np.ones((3, 3, 1, 1)))
    assert figure.axes[1].get_title() == "silent"


def test_many_filters_take_several_rows():
    figure = explain.plot_tuning(explain.oriented_filters(10), angles=range(0, 180, 30))
    assert [ax.get_title() for ax in figure.axes[16:18]] == ["filter 8", "filter 9"]


def _boxes(ax, colour):
    from matplotlib.colors import to_hex

    return [(patch.get_x() + 0.5, patch.get_y() + 0.5, patch.get_width()) for patch in ax.patches
            if to_hex(patch.get_edgecolor()) == colour.lower()]  # fmt: skip


def test_fields_lie_where_the_arithmetic_says():
    layers = [(5, 1, 2), (2, 2), (3, 1, 1)]
    figure = explain.plot_tiling(np.zeros((16, 20)), layers)
    for depth, ax in enumerate(figure.axes, start=1):
        field = ops.shapes.receptive_field(layers[:depth])
        units = [16, 20] if depth == 1 else [8, 10]
        boxes = _boxes(ax, style.BLUE)
        assert {size for _, _, size in boxes} == {field.size}
        assert all((x - field.start) % field.jump == 0 for x, _, _ in boxes)
        # From the first unit to the last, without a gap: the fields tile the picture.
        columns = sorted({x for x, _, _ in boxes})
        assert (columns[0], columns[-1]) == (field.start, field.start + (units[1] - 1) * field.jump)
        assert max(np.diff(columns)) <= field.size
        (orange,), (green,) = _boxes(ax, style.ORANGE), _boxes(ax, style.GREEN)
        assert green[0] - orange[0] == field.jump
    assert [ax.get_title() for ax in figure.axes] == [
        "layer 1: 5 × 5\nevery pixel", "layer 2: 6 × 6\nevery 2 pixels", "layer 3: 10 × 10\nevery 2 pixels",
    ]  # fmt: skip


def test_tiling_takes_pictures_in_colour():
    image = np.random.default_rng(0).random((6, 6, 3))
    np.testing.assert_array_equal(explain.plot_tiling(image, [(3,)]).axes[0].images[0].get_array(), image)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain.oriented_filters(0), "oriented_filters: count must be at least 1, got 0"),
        (lambda: explain.oriented_filters(2, size=2), "oriented_filters: size must be at least 3, got 2"),
        (lambda: explain.oriented_filters(2, wavelength=1), "oriented_filters: wavelength must be at least 2, got 1"),
        (lambda: explain.oriented_filters(2, kind="dot"), "kind must be 'line' or 'edge', got 'dot'"),  # pyright: ignore
        (lambda: explain.line_image(0, width=0), "line_image: size must be at least 1, width and length above 0"),
        (
            lambda: explain.grating_image(0, wavelength=0),
            "grating_image: size must be at least 1 and wavelength above 0",
        ),
        (
            lambda: explain.orientation_tuning(np.ones((3, 3))),
            r"orientation_tuning: kernel must be \(Kh, Kw, C_in, C_out\)",
        ),
        (lambda: explain.orientation_tuning(np.ones((3, 3, 1, 1)), angles=[]), "there must be an angle, got none"),
        (
            lambda: explain.orientation_tuning(np.ones((3, 3, 1, 1)), stimulus=lambda angle: np.ones((9, 9))),
            r"orientation_tuning: stimulus must give \(H, W, 1\), got shape \(9, 9\)",
        ),
        (
            lambda: explain.plot_tuning(np.ones((3, 3, 1, 1)), angles=[0]),
            "plot_tuning: angles must be at least two, got 1",
        ),
        (
            lambda: explain.plot_tiling(np.ones((4, 4, 2)), [(3,)]),
            r"plot_tiling: image must be .* got shape \(4, 4, 2\)",
        ),
        (lambda: explain.plot_tiling(np.ones((4, 4)), []), "plot_tiling: layers must be one to six, got 0"),
        (
            lambda: explain.plot_tiling(np.ones((4, 4)), [(3,), (3,)]),
            "plot_tiling: layer 2 with a window of 3 does not fit",
        ),
    ],
)
def test_errors_name_the_function_and_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
