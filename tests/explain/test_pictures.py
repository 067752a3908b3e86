"""The pictures: what they show is what they were given, and they neither show nor save anything themselves."""

import subprocess
import sys

import numpy as np
import pytest

from cnnjax import explain

DIGIT = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)


def test_pixels_writes_every_value():
    figure = explain.plot_pixels(DIGIT)
    assert [text.get_text() for text in figure.axes[0].texts] == [str(n) for n in range(12)]
    assert [text.get_text() for text in explain.plot_pixels(np.array([[0.25, -1.0]])).axes[0].texts] == ["0.2", "-1.0"]


def test_pictures_draws_each_image_under_its_title():
    images = np.stack([DIGIT, DIGIT + 100, DIGIT + 200])
    figure = explain.plot_pictures(images, titles=["a", "b", "c"], columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    for ax, image in zip(figure.axes, images, strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), image[:, :, 0])
        assert ax.images[0].get_clim() == (0, 255)
    assert not figure.axes[3].images


def test_pictures_may_be_in_colour():
    image = np.random.default_rng(0).random((2, 5, 5, 3))
    np.testing.assert_array_equal(explain.plot_pictures(image).axes[1].images[0].get_array(), image[1])


def test_filters_share_one_scale_centred_at_zero():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    figure = explain.plot_filters(kernel, channel=1)
    limit = np.abs(kernel).max()
    for number, ax in enumerate(figure.axes[:4]):
        np.testing.assert_array_equal(ax.images[0].get_array(), kernel[:, :, 1, number])
        assert ax.images[0].get_clim() == (-limit, limit)


def test_curve_draws_losses_and_error_rates():
    rows = [
        {"step": 10, "loss": 2.0, "accuracy": 0.5},
        {"step": 20, "loss": 1.0, "accuracy": 0.75, "test_loss": 1.5, "test_accuracy": 0.7},
    ]
    left, right = explain.plot_curve(rows).axes
    assert [np.asarray(line.get_ydata()).tolist() for line in left.lines] == [[2.0, 1.0], [1.5]]
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), [0.5, 0.25])
    np.testing.assert_allclose(np.asarray(right.lines[1].get_ydata()), [0.3])
    assert [np.asarray(line.get_xdata()).tolist() for line in right.lines] == [[10, 20], [20]]


def test_curve_draws_another_metric():
    _, right = explain.plot_curve([{"step": 1, "loss": 1.0, "dice": 0.8, "test_dice": 0.7}], metric="dice").axes
    assert right.get_ylabel() == "1 - dice"
    np.testing.assert_allclose([np.asarray(line.get_ydata())[0] for line in right.lines], [0.2, 0.3])


def test_spectra_are_ordered_by_frequency_and_peak_where_the_filter_does():
    hertz = [3000, 500, 1500]
    time = np.arange(80) / 8000
    kernel = np.stack([np.cos(2 * np.pi * f * time) for f in hertz], -1)[:, None]
    left, right, *_ = explain.plot_spectra(kernel, rate=8000).axes
    picture = left.images[0]
    answers = np.asarray(picture.get_array())
    low, high, bottom, top = picture.get_extent()
    peaks = low + (answers.argmax(1) + 0.5) / answers.shape[1] * (high - low)
    np.testing.assert_allclose(peaks, sorted(hertz), atol=50)
    assert (high, bottom, top) == (4000, 2.5, -0.5)
    # The third row's kernel is the filter of 3,000 Hz, around its place.
    drawn = np.asarray(right.lines[2].get_ydata()) + 2
    np.testing.assert_allclose(drawn, 0.45 * kernel[:, 0, 0] / np.abs(kernel[:, 0, 0]).max(), atol=1e-12)


def test_slices_show_image_truth_and_prediction():
    image = np.random.default_rng(0).uniform(size=(6, 4, 5))
    label, prediction = np.zeros((2, 6, 4, 5), int)
    label[2, 1, 1], label[3, 1, 1], prediction[4, 2, 3] = 1, 2, 2
    figure = explain.plot_slices(image, label, prediction, class_names=["none", "a", "b"], count=3)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["slice 2", "slice 3", "slice 4"]
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["image", "truth", "prediction"]
    for column, number in enumerate((2, 3, 4)):
        for row in range(3):
            np.testing.assert_array_equal(figure.axes[3 * row + column].images[0].get_array(), image[number])
    overlays = [[np.argwhere(np.asarray(i.get_alpha()) > 0).tolist() for i in ax.images[1:]] for ax in figure.axes[3:]]
    assert overlays == [[[[1, 1]]], [[[1, 1]]], [], [], [], [[[2, 3]]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    across = explain.plot_slices(image, label, prediction, class_names=["none", "a", "b"], count=9, axis=2)
    assert [ax.get_title() for ax in across.axes[:3]] == ["slice 1", "slice 2", "slice 3"]


def test_one_bright_voxel_does_not_darken_the_slices():
    image = np.arange(1000.0).reshape(10, 10, 10)
    image[9, 9, 9] = 1e6
    figure = explain.plot_slices(image, *np.zeros((2, 10, 10, 10), int), class_names=["none"], count=2)
    # The voxels in the places 4.995 and 994.005 of all 1,000 in order.
    np.testing.assert_allclose([ax.images[0].get_clim() for ax in figure.axes], [(4.995, 994.005)] * 6)


def test_confusion_matrix_counts_by_hand():
    counts = explain.confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2], num_classes=3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    figure = explain.plot_confusion(counts, class_names=["cat", "dog", "cow"])
    written = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert written == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (0, 2): "1", (2, 2): "2"}
    # Colour is for what went wrong: the diagonal has none.
    colours = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(colours, [[0, 0.5, 0], [0, 0, 0], [1 / 3, 0, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain.plot_pixels(np.zeros((2, 2, 3))), r"plot_pixels: image must be \(H, W\) or \(H, W, 1\)"),
        (lambda: explain.plot_pictures(np.zeros((2, 2, 3))), r"plot_pictures: images must be \(N, H, W, 1 or 3\)"),
        (
            lambda: explain.plot_pictures(DIGIT[None], titles=[]),
            r"plot_pictures: titles must be one a picture, got 0 for 1",
        ),
        (
            lambda: explain.plot_filters(np.zeros((3, 3, 1, 2)), channel=1),
            r"plot_filters: kernel must be .* with channel 1",
        ),
        (
            lambda: explain.plot_spectra(np.zeros((80, 1, 4)), rate=8000, channel=1),
            r"plot_spectra: kernel must be \(K, C_in, C_out\) with channel 1, got \(80, 1, 4\)\. Give the kernel",
        ),
        (
            lambda: explain.plot_slices(np.zeros((2, 2, 2)), np.zeros((2, 2)), np.zeros((2, 2, 2)), class_names="ab"),
            r"plot_slices: image, label and prediction must be \(D, H, W\) alike, got \(2, 2, 2\), \(2, 2\) and",
        ),
        (
            lambda: explain.plot_slices(*np.zeros((3, 2, 2, 2)), class_names="abcde"),
            r"plot_slices: class_names must be 1 to 4, .* colours, got 5\. Merge",
        ),
        (
            lambda: explain.plot_slices(*np.zeros((3, 2, 2, 2)), class_names="ab", count=0),
            r"plot_slices: count must be at least 1, got 0\. Say how many",
        ),
        (
            lambda: explain.plot_slices(*np.zeros((3, 2, 2, 2)), class_names="ab", axis=3),
            r"plot_slices: axis must be -3 to 2, got 3\. Choose one of \(D, H, W\)",
        ),
        (
            lambda: explain.plot_slices(*np.full((3, 2, 2, 2), 2), class_names="ab"),
            r"plot_slices: label must be 0 to 1, a place in class_names, got 2 to 2\. Name all classes",
        ),
        (
            lambda: explain.plot_slices(np.ones((2, 2, 2)), np.ones((2, 2, 2)), -np.ones((2, 2, 2)), class_names="ab"),
            r"plot_slices: prediction must be 0 to 1, .* got -1.0 to -1.0",
        ),
        (
            lambda: explain.plot_slices(*np.zeros((3, 0, 2, 2)), class_names="ab"),
            r"plot_slices: image, label and prediction must be .* got \(0, 2, 2\), .* Give one volume",
        ),
        (
            lambda: explain.plot_spectra(np.zeros((80, 1, 4)), rate=0),
            r"plot_spectra: rate must be above 0, got 0\. Give samples a second",
        ),
        (
            lambda: explain.plot_spectra(np.zeros((80, 1, 4)), rate=float("nan")),
            r"plot_spectra: rate must be above 0, got nan",
        ),
        (lambda: explain.plot_curve([]), r"plot_curve: there must be a point to draw, got none"),
        (lambda: explain.confusion_matrix([0, 1], [0], num_classes=2), r"labels and predictions must be \(N,\)"),
        (lambda: explain.confusion_matrix([0, 3], [0, 1], num_classes=2), r"labels must be in \[0, 2\), got 0 to 3"),
        (lambda: explain.plot_confusion(np.zeros((2, 2)), class_names=["a"]), r"counts must be \(1, 1\) for 1 names"),
    ],
)
def test_errors_name_the_function_and_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_figure_can_be_written(tmp_path):
    for number, figure in enumerate(
        [
            explain.plot_pixels(DIGIT),
            explain.plot_pictures(DIGIT[None]),
            explain.plot_filters(np.ones((3, 3, 1, 9))),
            explain.plot_curve([{"step": 1, "loss": 1.0}]),
            explain.plot_confusion(np.eye(3, dtype=int), class_names="abc"),
            explain.plot_spectra(np.zeros((8, 1, 1)), rate=100),
            explain.plot_slices(*np.zeros((3, 4, 4, 4)), class_names="abcd"),
        ]
    ):
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 300


def test_drawing_changes_nothing_global():
    code = """
import sys, numpy as np
from cnnjax import explain
import matplotlib
before = dict(matplotlib.rcParams)
explain.plot_pictures(np.zeros((2, 4, 4, 1))).savefig("/dev/null", format="png")
assert dict(matplotlib.rcParams) == before
import matplotlib.pyplot
assert matplotlib.pyplot.get_fignums() == []
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match=r"explain draws with matplotlib\. Install it with: pip install 'cnnjax\[plots\]'"
    ):
        explain.plot_pixels(DIGIT)


def test_dollars_in_names_are_no_mathematics(tmp_path):
    explain.plot_confusion(np.eye(2, dtype=int), class_names=["$a^$", "b"]).savefig(tmp_path / "confusion.png")
    explain.plot_pictures(np.zeros((1, 4, 4, 1)), titles=["$a^$"]).savefig(tmp_path / "pictures.png")
