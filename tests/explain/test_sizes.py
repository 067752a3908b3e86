"""The output-size worksheet and the picture of what the windows cover."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain, ops
from cnnjax.explain._table import MARK


@pytest.mark.parametrize(
    ("n", "k", "options", "text"),
    [
        (7, 3, {"stride": 2}, "floor((7 + 2·0 − 3) / 2) + 1 = 3"),
        (32, 5, {}, "floor((32 + 2·0 − 5) / 1) + 1 = 28"),
        (7, 3, {"padding": 1}, "floor((7 + 2·1 − 3) / 1) + 1 = 7"),
        (7, 4, {"padding": (0, 2)}, "floor((7 + 0 + 2 − 4) / 1) + 1 = 6"),
        (9, 3, {"dilation": 2, "padding": "valid"}, "floor((9 + 2·0 − 2·(3 − 1) − 1) / 1) + 1 = 5"),
        (9, 3, {"dilation": 2, "padding": "CAUSAL"}, "floor((9 + 4 + 0 − 2·(3 − 1) − 1) / 1) + 1 = 9"),
        (28, 4, {"padding": "SAME", "stride": 3}, "floor((28 + 1 + 2 − 4) / 3) + 1 = 10 = ceil(28 / 3)"),
        (28, 4, {"padding": "same_lower", "stride": 3}, "floor((28 + 2 + 1 − 4) / 3) + 1 = 10 = ceil(28 / 3)"),
        (5, 2, {"stride": 2, "ceil_mode": True}, "ceil((5 + 2·0 − 2) / 2) + 1 = 3"),
        (
            3,
            2,
            {"stride": 3, "padding": 1, "ceil_mode": True},
            "ceil((3 + 2·1 − 2) / 3) + 1 = 2",
        ),
        (
            3,
            2,
            {"stride": 2, "padding": 1, "ceil_mode": True},
            "ceil((3 + 2·1 − 2) / 2) + 1 − 1 (the last window would start after the input) = 2",
        ),
    ],
)
def test_formula(n, k, options, text):
    assert explain.size_formula(n, k, **options) == text


def _right(side):
    """What the arithmetic of a formula comes to."""
    return eval(side, {"floor": np.floor, "ceil": np.ceil})


def test_every_formula_comes_to_the_size_of_the_op():
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, k, stride, dilation = (int(rng.integers(low, high)) for low, high in ((4, 12), (1, 4), (1, 4), (1, 3)))
        padding = ["SAME", "SAME_LOWER", "VALID", 1, (0, 2), (2, 1)][rng.integers(6)]
        if dilation * (k - 1) + 1 > n:
            continue
        text = explain.size_formula(n, k, stride=stride, padding=padding, dilation=dilation)
        sides = text.replace("−", "-").replace("·", "*").split(" = ")
        nested = (padding,) if isinstance(padding, tuple) else padding
        conv = functools.partial(ops.conv1d, stride=stride, padding=nested, dilation=dilation)
        y = jax.eval_shape(conv, jnp.ones((1, n, 1)), jnp.ones((k, 1, 1)))
        assert {int(_right(side)) for side in sides} == {y.shape[1]}, text


@pytest.mark.parametrize("seed", range(20))
def test_pools_that_round_up(seed):
    rng = np.random.default_rng(seed)
    n, k, stride = (int(rng.integers(low, high)) for low, high in ((5, 12), (2, 5), (1, 5)))
    padding = int(rng.integers(0, k // 2 + 1))
    text = explain.size_formula(n, k, stride=stride, padding=padding, ceil_mode=True)
    pool = functools.partial(ops.max_pool1d, window=k, stride=stride, padding=padding, ceil_mode=True)
    y = jax.eval_shape(pool, jnp.ones((1, n, 1)))
    left, size = text.replace(" (the last window would start after the input)", "").split(" = ")
    assert int(size) == int(_right(left.replace("−", "-").replace("·", "*"))) == y.shape[1]


def _patches(figure, *, hatch=None, face=None) -> Any:
    from matplotlib.colors import to_hex

    found = figure.axes[0].patches
    found = [patch for patch in found if hatch is None or patch.get_hatch()]
    return [patch for patch in found if face is None or to_hex(patch.get_facecolor()) == face]


def _texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_valid_drops_what_is_left_over_and_same_pads():
    valid = explain.plot_coverage(8, 3, stride=2)
    assert len(_patches(valid, hatch=True)) == 1
    assert _texts(valid)[-2:] == ["output size = floor((8 + 2·0 − 3) / 2) + 1 = 3", "seen by no window: cell 7"]
    assert valid.axes[0].texts[-1].get_color() == MARK
    same = explain.plot_coverage(8, 3, stride=2, padding="SAME")
    assert not _patches(same, hatch=True)
    assert sum(patch.get_linestyle() not in ("-", "solid") for patch in _patches(same)) == 1
    assert "output 3" in _texts(same)
    assert "output 3" not in _texts(valid)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"padding": (2, 1), "stride": 3}])
def test_each_row_covers_what_the_output_depends_on(options):
    """The blue cells are the support of the op's own gradient, and where they are padding, the support ends."""
    from cnnjax.explain import _style as style

    n, k = 9, 3
    low = options["padding"][0] if "padding" in options else 0
    figure = explain.plot_coverage(n, k, **options)
    blue = _patches(figure, face=style.BLUE.lower())
    left = min(patch.get_x() for patch in _patches(figure) if patch.get_height() == 1) + low
    rows = {}
    for patch in blue:
        rows.setdefault(patch.get_y(), set()).add(round(patch.get_x() - left))
    padding = (options["padding"],) if "padding" in options else "VALID"
    matrix = explain.conv_matrix(np.ones((k, 1, 1)), (n, 1), **{**options, "padding": padding})
    assert [row & set(range(n)) for _, row in sorted(rows.items())] == [set(np.flatnonzero(row)) for row in matrix]


def test_a_picture_counts_the_windows_over_every_cell():
    options = {"stride": (3, 2), "padding": ((0, 0), (1, 0))}
    figure = explain.plot_coverage((8, 7), 3, **options)
    seen = explain.conv_matrix(np.ones((3, 3, 1, 1)), (8, 7, 1), **options).sum(0).reshape(8, 7)
    cells = [text for text in figure.axes[0].texts if text.get_text().isdigit()]
    counts = np.reshape([int(text.get_text()) for text in cells], (8, 8))
    np.testing.assert_array_equal(counts[:, 1:], seen)
    assert len(_patches(figure, hatch=True)) == (seen == 0).sum()
    assert _texts(figure)[-2:] == ["seen by no window: rows 6, 7", "seen by no window: column 6"]


def test_rounding_up_covers_the_end():
    figure = explain.plot_coverage(7, 3, stride=3, ceil_mode=True)
    assert not _patches(figure, hatch=True)
    assert _texts(figure)[-1] == "output size = ceil((7 + 2·0 − 3) / 3) + 1 = 3"
    assert _texts(explain.plot_coverage(7, 3, stride=3))[-1] == "seen by no window: cell 6"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: explain.size_formula(0, 3), ValueError, "size_formula: n must be at least 1, got 0"),
        (lambda: explain.size_formula(2, 3), ValueError, "size_formula: a window of 3 does not fit .* input of 2. Pad"),
        (lambda: explain.size_formula(5, 3, padding="FULL"), ValueError, "padding must be one of .* got 'FULL'"),
        (lambda: explain.plot_coverage(2, 3), ValueError, "a window of 3 does not fit"),
        (lambda: explain.plot_coverage(99, 3), ValueError, "plot_coverage: at most 40 cells and 24 windows"),
        (lambda: explain.plot_coverage((5, 5), 0), ValueError, "plot_coverage: k must be at least 1, got 0"),
        (lambda: explain.plot_coverage((5, 5, 5), 2), ValueError, r"plot_coverage: n takes one value an axis \(2\)"),
    ],
)
def test_errors_name_the_function_and_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_text_leaves_its_figure():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for figure in [
        explain.plot_coverage(3, 2, stride=2, padding=1, ceil_mode=True),
        explain.plot_coverage(40, 20, padding=(0, 0), dilation=2),
        explain.plot_coverage((3, 3), 2, stride=2, padding=1, ceil_mode=True),
    ]:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        wide, high = canvas.get_width_height()
        assert wide <= 900
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert min(box.x0, box.y0, wide - box.x1, high - box.y1) >= 0, text.get_text()
