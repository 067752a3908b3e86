"""The animations: what their frames show is what the ops compute, and the files are small and whole."""

import io
import re
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain, ops
from cnnjax.explain._table import MARK

IMAGE = np.array(
    [
        [1, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 1, 0],
    ],
    np.float32,
)
FILTER = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
ODD = np.random.default_rng(0).integers(-9, 10, (5, 6)).astype(np.float32)


def value(text: str) -> Any:
    text = text.replace("−", "-").replace("∞", "inf")
    return float(text) if re.fullmatch(r"-?(\d+(\.\d+)?|inf)", text) else None


def mono(text):
    return text.get_fontfamily() == ["monospace"]


def numbers(figure):
    """The numbers in the cells, by (x, y) of their middle."""
    texts = [(text.get_position(), value(text.get_text())) for text in figure.axes[0].texts if not mono(text)]
    return {at: number for at, number in texts if number is not None}


def lines(figure):
    """The monospaced lines below the tables, from top to bottom."""
    rows = {}
    for text in figure.axes[0].texts:
        if mono(text):
            x, y = text.get_position()
            rows.setdefault(round(y, 6), []).append((x, text.get_text()))
    return ["".join(text for _, text in sorted(row)) for _, row in sorted(rows.items())]


def worked(figure) -> Any:
    """The calculation of a frame: what its left side comes to, and its right side."""
    text = " ".join(line.strip() for line in lines(figure) if not line.startswith(("output size", "hatched")))
    left, right = re.split(r" [=≈] ", text)
    for shown, python in (("−", "-"), ("·", "*"), ("∞", "float('inf')")):
        left = left.replace(shown, python)
    return eval(left), value(right)


def outputs(animation, frame, columns):
    """The numbers in the rightmost columns of a frame in reading order, those that are not there yet left out."""
    found = numbers(animation.figures[frame])
    right = sorted({x for x, _ in numbers(animation.figures[-1])})[-columns:]
    return [number for (x, _), number in sorted(found.items(), key=lambda item: item[0][::-1]) if x in right]


def windows(figure):
    """Left, top, width and height of the outlined rectangles, from left to right."""
    from matplotlib.colors import to_hex

    boxes = [patch for patch in figure.axes[0].patches if to_hex(patch.get_edgecolor()) == MARK.lower()]
    solid = [patch for patch in boxes if patch.get_linestyle() in ("-", "solid")]
    return sorted((*map(float, patch.get_xy()), patch.get_width(), patch.get_height()) for patch in solid)


def conv(x, kernel, **options):
    rank = np.ndim(kernel)
    function = (ops.conv1d, ops.conv2d, ops.conv3d)[rank - 1]
    y = function(
        jnp.asarray(x, jnp.float32)[None, ..., None], jnp.asarray(kernel, jnp.float32)[..., None, None], **options
    )
    return np.asarray(y)[0, ..., 0]


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        (IMAGE, FILTER, {}),
        (ODD, [[1, 2], [-3, 0.5]], {"stride": 2, "padding": "SAME"}),
        (ODD, FILTER, {"stride": (2, 3), "padding": ((1, 0), (0, 2))}),
        (ODD, FILTER, {"padding": "REFLECT", "stride": 3}),
        (ODD, FILTER, {"padding": "CIRCULAR", "stride": 3}),
        (ODD, [[1, -2], [0, 4]], {"dilation": 2, "stride": 2, "padding": "REPLICATE"}),
    ],
)
def test_conv2d_shows_the_numbers_of_the_op(x, kernel, options):
    expected = conv(x, kernel, **{"padding": "VALID", **options})
    animation = explain.animate_conv2d(x, kernel, **options)
    assert len(animation) == expected.size
    for number, figure in enumerate(animation.figures):
        np.testing.assert_allclose(worked(figure), [expected.ravel()[number]] * 2, atol=0.005)
    np.testing.assert_allclose(outputs(animation, -1, expected.shape[1]), expected.ravel(), atol=0.005)


def test_the_lecture_s_map_grows_cell_by_cell():
    animation = explain.animate_conv2d(IMAGE, FILTER)
    expected = [3, -1, -3, -1, -3, 1, 0, -3, -3, -3, 0, 1, 3, -2, -2, -1]
    for number in range(16):
        assert outputs(animation, number, 4) == expected[: number + 1]
    texts = [text.get_text() for text in animation.figures[0].axes[0].texts]
    assert "output size H, W = floor((6 + 2·0 − 3) / 1) + 1 = 4" in texts
    assert "Filter of 3 × 3, stride 1, padding VALID" in texts
    assert lines(animation.figures[5])[0] == (
        "1·1 + 0·(−1) + 0·(−1) + 0·(−1) + 1·1 + 1·(−1) + 0·(−1) + 0·(−1) + 0·1 = 1"
    )


def test_the_input_is_what_was_given():
    found = numbers(explain.animate_conv2d(ODD, FILTER).figures[0])
    columns = sorted({x for x, _ in found})[:6]
    rows = sorted({y for x, y in found if x == columns[0]})
    np.testing.assert_array_equal([[found[x, y] for x in columns] for y in rows], ODD)


def test_filter_and_products_stand_between_input_and_output():
    x, kernel = ODD[:4, :5], np.array([[1, -2], [3, 0.5]])
    animation = explain.animate_conv2d(x, kernel, stride=2)
    columns = sorted({at for at, _ in numbers(animation.figures[-1])})[-4:-2]
    for number, figure in enumerate(animation.figures):
        found = numbers(figure)
        rows = sorted({y for at, y in found if at in columns})
        tables = np.reshape([found[at, y] for y in rows for at in columns], (2, 2, 2))
        i, j = divmod(number, 2)
        np.testing.assert_allclose(tables, [kernel, kernel * x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]])


def test_padding_never_wins_a_maximum():
    (frame,) = explain.animate_pool2d([[-3, -2]], (1, 3), padding=((0, 0), (1, 0))).figures
    assert lines(frame)[0] == "max(−∞, −3, −2) = −2"
    (frame,) = explain.animate_pool2d([[-3, -2]], (1, 3), kind="avg", padding=((0, 0), (1, 0))).figures
    assert lines(frame)[0] == "(0 + (−3) + (−2)) / 3 ≈ −1.67"


def test_the_window_jumps_by_the_stride():
    figures = explain.animate_conv2d(np.zeros((5, 9)), FILTER, stride=(2, 3)).figures
    places = [windows(figure)[0] for figure in figures]
    left, top = places[0][:2]
    assert [(round(x - left), round(y - top)) for x, y, _, _ in places] == [(x, y) for y in (0, 2) for x in (0, 3, 6)]
    assert {place[2:] for place in places} == {(3, 3)}


def test_a_dilated_window_is_outlined_tap_by_tap():
    figure = explain.animate_conv2d(np.zeros((5, 5)), np.ones((2, 2)), dilation=3).figures[0]
    taps = windows(figure)[:4]
    left, top = taps[0][:2]
    assert [(round(x - left), round(y - top), w, h) for x, y, w, h in taps] == [
        (0, 0, 1, 1), (0, 3, 1, 1), (3, 0, 1, 1), (3, 3, 1, 1),
    ]  # fmt: skip


def test_padding_and_dropped_cells_look_different():
    def dashed_and_hatched(figure):
        patches = figure.axes[0].patches
        hatched = sum(patch.get_hatch() is not None for patch in patches)
        return sum(patch.get_linestyle() not in ("-", "solid") for patch in patches), hatched

    x = np.ones((4, 4))
    assert dashed_and_hatched(explain.animate_conv2d(x, FILTER).figures[0]) == (0, 0)
    assert dashed_and_hatched(explain.animate_conv2d(x, FILTER, padding=1, stride=3).figures[0]) == (36 - 16, 0)
    figure = explain.animate_conv2d(x, FILTER, stride=2).figures[0]
    assert dashed_and_hatched(figure) == (0, 16 - 9)
    assert lines(figure)[-1] == "hatched: no window covers these cells"


def test_sizes_that_differ_stand_on_lines_of_their_own():
    notes = lines(explain.animate_conv2d(np.ones((5, 6)), FILTER, padding="same", stride=2).figures[0])[-2:]
    assert notes == [
        "output size H = floor((5 + 2·1 − 3) / 2) + 1 = 3 = ceil(5 / 2)",
        "output size W = floor((6 + 0 + 1 − 3) / 2) + 1 = 3 = ceil(6 / 2)",
    ]


@pytest.mark.parametrize("options", [{}, {"padding": "CAUSAL", "dilation": 2}, {"stride": 3, "padding": "SAME"}])
def test_conv1d_shows_the_numbers_of_the_op(options):
    x, kernel = [1, 3, -2, 5, 4, 1], [1, 0.5, -1]
    expected = conv(x, kernel, **{"padding": "VALID", **options})
    animation = explain.animate_conv1d(x, kernel, **options)
    for number, figure in enumerate(animation.figures):
        np.testing.assert_allclose(worked(figure), [expected[number]] * 2, atol=0.005)
        found = numbers(figure)
        bottom = max(y for _, y in found)
        shown = [n for (_, y), n in sorted(found.items()) if y == bottom]
        np.testing.assert_allclose(shown, expected[: number + 1], atol=0.005)


def test_the_filter_of_a_series_moves_with_the_window():
    figures = explain.animate_conv1d(np.zeros(9), [7, 8], stride=3).figures
    sevens = [next(x for (x, _), n in numbers(figure).items() if n == 7) for figure in figures]
    np.testing.assert_allclose(np.diff(sevens), 3)


@pytest.mark.parametrize("options", [{}, {"stride": (2, 2, 2), "padding": 1}])
def test_conv3d_shows_the_numbers_of_the_op(options):
    rng = np.random.default_rng(1)
    x, kernel = rng.integers(-3, 4, (3, 2, 4)), rng.integers(-2, 3, (2, 2, 2))
    expected = conv(x, kernel, **{"padding": "VALID", **options})
    animation = explain.animate_conv3d(x, kernel, **options)
    assert len(animation) == expected.size
    for number in (0, len(animation) - 1):
        assert worked(animation.figures[number]) == (expected.ravel()[number],) * 2
    found = numbers(animation.figures[-1])
    high = 2 if not options else 4
    below = {at: n for at, n in found.items() if at[1] > sorted({y for _, y in found})[high - 1]}
    columns = sorted({x for x, _ in below})[-expected.shape[0] * expected.shape[2] :]
    rows = sorted({y for x, y in below if x in columns})
    shown = np.reshape([[below[x, y] for x in columns] for y in rows], (len(rows), expected.shape[0], -1))
    np.testing.assert_array_equal(shown.transpose(1, 0, 2), expected)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("window", "options"), [(2, {}), (3, {"stride": 2, "padding": 1}), ((1, 2), {"padding": "SAME"})]
)
def test_pool2d_shows_the_numbers_of_the_op(kind, window, options):
    pool = {"max": ops.max_pool2d, "avg": ops.avg_pool2d}[kind]
    expected = np.asarray(pool(jnp.asarray(ODD)[None, ..., None], window, **options))[0, ..., 0]
    animation = explain.animate_pool2d(ODD, window, kind=kind, **options)
    assert len(animation) == expected.size
    for number, figure in enumerate(animation.figures):
        np.testing.assert_allclose(worked(figure), [expected.ravel()[number]] * 2, atol=0.005)
    np.testing.assert_allclose(outputs(animation, -1, expected.shape[1]), expected.ravel(), atol=0.005)


def test_rounded_numbers_are_not_called_equal():
    (frame,) = explain.animate_conv2d([[1 / 3]], [[1]]).figures
    assert lines(frame)[0] == "0.33·1 ≈ 0.33"
    (frame,) = explain.animate_conv2d([[0.25]], [[-2]]).figures
    assert lines(frame)[0] == "0.25·(−2) = −0.5"
    (frame,) = explain.animate_conv2d([[1234.5]], [[0.1]]).figures
    assert lines(frame)[0] == "1234·0.1 ≈ 123.5"


def test_no_text_leaves_its_frame():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    options = {"stride": (3, 2), "dilation": (1, 2), "padding": ((1, 2), (0, 1))}
    for animation in [
        explain.animate_conv2d(np.full((5, 5), -12.34), np.full((3, 2), 0.125), **options),
        explain.animate_conv2d(np.ones((2, 2)), np.ones((2, 2))),
        explain.animate_conv1d(np.ones(20), [1.25, -1.25], stride=9),
        explain.animate_conv3d(np.ones((3, 4, 4)), np.ones((3, 3, 3)), stride=2),
        explain.animate_pool2d(np.ones((12, 12)), 6, kind="avg"),
    ]:
        figure = animation.figures[0]
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        wide, high = canvas.get_width_height()
        assert wide <= 900
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert min(box.x0, box.y0, wide - box.x1, high - box.y1) >= 0, text.get_text()


def test_the_gif_is_small_whole_and_slow_at_the_end(tmp_path):
    image = pytest.importorskip("PIL.Image")
    animation = explain.animate_conv2d(IMAGE, FILTER)
    assert animation.frames.shape[0] == 16
    assert animation.frames.dtype == np.uint8
    assert animation.frames.shape[2] <= 900
    assert len(animation.gif) < 300_000
    animation.save(tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == animation.gif
    gif = image.open(io.BytesIO(animation.gif))
    assert (gif.n_frames, gif.info["loop"]) == (16, 0)
    durations = []
    for number in range(16):
        gif.seek(number)
        durations.append(gif.info["duration"])
        if number % 5:
            continue
        difference = np.abs(np.asarray(gif.convert("RGB")).astype(int) - animation.frames[number])
        assert difference.mean() < 1.5
        assert np.mean(difference > 60) < 0.001
        # Flat areas keep their colour.
        assert np.mean(difference == 0) > 0.9
    assert durations == [700] * 15 + [2800]


def test_frames_that_repeat_stay():
    image = pytest.importorskip("PIL.Image")
    one = explain.animate_conv2d([[1, 1]], [[1]]).figures[0]
    gif = image.open(io.BytesIO(explain.Animation([one, one, one], seconds=0.5, last_seconds=1).gif))
    total = 0
    for number in range(gif.n_frames):
        gif.seek(number)
        total += gif.info["duration"]
    assert total == 2000


def test_a_notebook_shows_it_without_javascript_or_files():
    page = explain.Animation(explain.animate_conv1d([1, 2], [1]).figures, caption='a < b "c"')._repr_html_()
    assert page.startswith('<img src="data:image/gif;base64,R0lGOD')
    assert 'alt="a &lt; b &quot;c&quot;"' in page
    assert "<script" not in page


def _any(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: explain.animate_conv2d(np.ones(3), FILTER),
            ValueError,
            r"animate_conv2d: x must be one table \(H, W\)",
        ),
        (
            lambda: explain.animate_conv2d(IMAGE, np.ones((3, 3, 1, 1))),
            ValueError,
            r"animate_conv2d: kernel must be one",
        ),
        (lambda: explain.animate_conv2d(IMAGE * np.nan, FILTER), ValueError, "animate_conv2d: x must be finite"),
        (
            lambda: explain.animate_conv2d(IMAGE, FILTER, stride=0),
            ValueError,
            "animate_conv2d: stride must be at least 1",
        ),
        (
            lambda: explain.animate_conv2d(IMAGE, FILTER, padding="CAUSAL"),
            ValueError,
            "animate_conv2d: padding must be",
        ),
        (lambda: explain.animate_conv2d(np.ones((2, 2)), FILTER), ValueError, r"kernel \(3, 3\) does not fit"),
        (
            lambda: explain.animate_conv2d(np.ones((13, 13)), FILTER),
            ValueError,
            r"animate_conv2d: at most 100 outputs and 512 padded inputs can be read, got \(11, 11\) and \(13, 13\)",
        ),
        (
            lambda: explain.animate_pool2d(IMAGE, 2, kind=_any("min")),
            ValueError,
            "kind must be 'max' or 'avg', got 'min'",
        ),
        (lambda: explain.animate_pool2d(IMAGE, _any(2.5)), TypeError, "animate_pool2d: window must be an int"),
        (lambda: explain.Animation([]), ValueError, "Animation: there must be a frame, got none"),
        (
            lambda: explain.animate_conv1d([1, 2], [1], seconds=0),
            ValueError,
            "Animation: seconds must be above 0, got 0",
        ),
        (
            lambda: explain.animate_conv1d([1, 2], [1]).save("film.mp4"),
            ValueError,
            r"Animation\.save: path must end in \.gif, got 'film\.mp4'",
        ),
    ],
)
def test_errors_name_the_function_and_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_pillow_the_extra_is_named(monkeypatch):
    animation = explain.animate_conv1d([1, 2], [1])
    assert animation.frames.shape[0] == 2
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"explain writes GIFs with Pillow\. .*'cnnjax\[plots\]'"):
        _ = animation.gif
