"""The layer table: the published numbers of LeNet-5, sums by hand, XLA's cost analysis, and how it is shown."""

import html.parser
import itertools
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

LENET5 = explain.summary(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((7, 28, 28, 1)))


def _abstract(make):
    return nnx.eval_shape(make)


def _shape(*shape) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("name", "parameters", "connections"),
    [
        ("c1", 156, 122_304),
        ("s2", 12, 5_880),
        ("c3", 1_516, 151_600),
        ("s4", 32, 2_000),
        ("c5", 48_120, 48_120),
        ("f6", 10_164, 10_164),
    ],
)
def test_lenet5_as_published(name, parameters, connections):
    """LeCun et al. 1998, section II.B, counts a connection for each weight and each bias of each unit."""
    row = LENET5[name]
    pixels = math.prod(row.shape[:-1]) if len(row.shape) == 3 else 1
    assert row.parameters == parameters
    if row.kind == "avg_pool2d":
        # Four inputs and a bias a unit; the four share one coefficient.
        assert math.prod(row.shape) * (4 + 1) == connections
    else:
        assert parameters * pixels == connections
    if name in ("c1", "c5", "f6"):
        assert row.multiply_adds == connections - math.prod(row.shape)


def test_lenet5_partly_connected():
    # C3 is computed as a full convolution with zeros: 16 maps of all 6, not 60 kernels.
    assert LENET5["c3"].multiply_adds == 10 * 10 * 16 * 6 * 25
    assert LENET5["c3"].formula == ("floor((14 + 2·0 - 5) / 1) + 1 = 10",) * 2


def test_lenet5_totals_and_comparisons():
    assert [row.name for row in LENET5.rows] == ["c1", "s2", "c3", "s4", "c5", "f6", "output"]
    assert [row.field[0].size for row in LENET5.rows] == [5, 6, 14, 16, 32, 32, 32]
    assert [row.jump[0] for row in LENET5.rows] == [1, 2, 2, 4, 4, 0, 0]
    assert LENET5.parameters == 60_850 == sum(row.parameters for row in LENET5.rows)
    assert LENET5.multiply_adds == 117_600 + 240_000 + 48_000 + 10_080 + 840
    units = [28 * 28 * 6, 14 * 14 * 6, 10 * 10 * 16, 5 * 5 * 16, 120, 84, 10]
    assert [row.memory for row in LENET5.rows] == [4 * n for n in units]
    assert LENET5.memory == 4 * sum(units)
    # 784 pixels to 4,704 units; a dense layer is its own comparison.
    assert LENET5["c1"].dense_parameters == 784 * 4704 + 4704
    assert LENET5["s2"].dense_parameters is None
    assert LENET5["f6"].dense_parameters == 10_164
    assert LENET5.dense_parameters == 3_692_640 + 12 + 1_883_200 + 32 + 48_120 + 10_164 + 850


def test_the_lecture():
    """Six 5x5 filters take 32x32x3 to 28x28x6; a dense layer would have an input a number of the picture."""
    for side, inputs in ((64, 12_288), (1024, 3_145_728)):
        dense = explain.summary(
            _abstract(lambda n=inputs: nnx.Sequential(ops.flatten, nn.Dense(n, 10, use_bias=False, rngs=nnx.Rngs(0)))),
            _shape(1, side, side, 3),
        )
        assert dense.rows[0].shape == (inputs,)
        assert dense.parameters == inputs * 10
    conv = explain.summary(
        _abstract(lambda: nn.Conv2d(3, 6, 5, padding="VALID", rngs=nnx.Rngs(0))), _shape(1, 32, 32, 3)
    )
    assert conv.rows[0].shape == (28, 28, 6)
    assert conv.rows[0].formula[0] == "floor((32 + 2·0 - 5) / 1) + 1 = 28"
    assert conv.parameters == 456
    assert conv.dense_parameters == 32 * 32 * 3 * 28 * 28 * 6 + 28 * 28 * 6


class Vgg(nnx.Module):
    """Stock layers: two convolutions and a pool, and again; then a global mean and a dense layer."""

    def __init__(self, widths=(8, 16), padding="SAME", *, rngs):
        ends = [3, *(width for width in widths for _ in range(2))]
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), padding=padding, rngs=rngs) for a, b in itertools.pairwise(ends)])
        self.out = nnx.Linear(ends[-1], 10, rngs=rngs)

    def __call__(self, x):
        for number, conv in enumerate(self.convs):
            x = nnx.relu(conv(x))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2)) if number % 2 else x
        return self.out(x.mean((1, 2)))


def test_vgg16_by_hand():
    """The convolutions of VGG-16, without allocating one."""
    ends = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]

    def make():
        layers = []
        for a, b in itertools.pairwise(ends):
            layers += [nnx.Conv(a, b, (3, 3), rngs=nnx.Rngs(0)), nnx.relu]
            if len([layer for layer in layers if layer is not nnx.relu]) in (2, 5, 9, 13, 17):
                layers.append(lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2)))
        return nnx.Sequential(*layers)

    table = explain.summary(_abstract(make), _shape(1, 224, 224, 3))
    convs = [row for row in table.rows if row.kind == "conv2d"]
    assert [row.parameters for row in convs] == [9 * a * b + b for a, b in itertools.pairwise(ends)]
    assert table.parameters == 14_714_688
    assert table.multiply_adds == 15_346_630_656
    assert table.rows[-1].shape == (7, 7, 512)
    assert table.rows[-1].field[0][:2] == (212, 32)


def _without_padding(layer):
    """A layer's multiply-adds, less those that meet padding, or the zeros in a transposed convolution."""
    share = 1.0
    for w in (w for windows in layer.windows for w in windows):
        at = np.arange(w.out)[:, None] * w.stride - w.low + np.arange(w.size) * w.dilation
        real = (at >= 0) & (at <= (w.n - 1) * w.holes) & (at % w.holes == 0)
        share *= real.sum() / ((w.n if w.holes > 1 else w.out) * w.size)
    return layer.multiply_adds * share


def _xla(model, x):
    graphdef, state = nnx.split(nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False))
    compiled = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x)).lower(state, x).compile()
    return (compiled.cost_analysis() or {})["flops"]


RNGS = nnx.Rngs(0)
PURE = {
    "conv1d": (lambda: nn.Conv1d(8, 16, 5, use_bias=False, rngs=RNGS), (2, 100, 8)),
    "valid": (lambda: nn.Conv2d(8, 16, 5, padding="VALID", use_bias=False, rngs=RNGS), (2, 16, 16, 8)),
    "strided": (lambda: nn.Conv2d(8, 16, 5, stride=2, padding=2, use_bias=False, rngs=RNGS), (2, 17, 16, 8)),
    "dilated": (lambda: nn.Conv2d(8, 16, 3, dilation=3, use_bias=False, rngs=RNGS), (2, 16, 16, 8)),
    "grouped": (lambda: nn.Conv2d(8, 16, 3, groups=4, use_bias=False, rngs=RNGS), (2, 16, 16, 8)),
    "depthwise": (lambda: nn.Conv2d(8, 16, 3, groups=8, use_bias=False, rngs=RNGS), (2, 16, 16, 8)),
    "conv3d": (lambda: nn.Conv3d(4, 8, 3, use_bias=False, rngs=RNGS), (1, 8, 8, 8, 4)),
    "transposed": (lambda: nnx.ConvTranspose(4, 8, (4, 3), strides=2, use_bias=False, rngs=RNGS), (1, 9, 9, 4)),
    "dense": (lambda: nnx.Linear(300, 40, use_bias=False, rngs=RNGS), (3, 300)),
    "attention": (lambda: nnx.Sequential(lambda x: x @ x.mT @ x), (3, 20, 30)),
}


@pytest.mark.parametrize("case", list(PURE))
def test_multiply_adds_are_half_of_xlas_flops(case):
    """Exactly, where there is nothing else to do. XLA leaves out what meets padding."""
    make, shape = PURE[case]
    model = make()
    layers = explain.trace(model, _shape(*shape)).layers
    assert 2 * sum(map(_without_padding, layers)) == pytest.approx(_xla(model, _shape(*shape)), rel=1e-6)
    # All but the batch of examples.
    assert explain.summary(model, _shape(*shape)).multiply_adds * shape[0] == sum(
        layer.multiply_adds for layer in layers
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: models.LeNet(rngs=RNGS), (4, 28, 28, 1)),
        (lambda: models.LeNet5(rngs=RNGS), (4, 28, 28, 1)),
        (lambda: models.MLP(rngs=RNGS), (4, 28, 28, 1)),
        (lambda: Vgg(rngs=RNGS), (2, 32, 32, 3)),
        (lambda: Vgg(padding="VALID", rngs=RNGS), (2, 32, 32, 3)),
    ],
)
def test_multiply_adds_of_whole_models(make, shape):
    """XLA counts the elementwise work and the pools as well: at most 5 % more here."""
    model = make()
    mine = 2 * sum(map(_without_padding, explain.trace(model, _shape(*shape)).layers))
    assert 1 <= _xla(model, _shape(*shape)) / mine < 1.05


@pytest.mark.parametrize(
    ("make", "shape", "formula"),
    [
        (lambda: nn.Conv1d(1, 1, 4, rngs=nnx.Rngs(0)), (1, 28, 1), "floor((28 + 1 + 2 - 4) / 1) + 1 = 28"),
        (
            lambda: nn.Conv1d(1, 1, 3, stride=2, padding=2, dilation=2, rngs=nnx.Rngs(0)),
            (1, 28, 1),
            "floor((28 + 2·2 - 2·(3 - 1) - 1) / 2) + 1 = 14",
        ),
        (
            lambda: nnx.ConvTranspose(1, 1, 5, strides=2, padding=[(3, 3)], rngs=nnx.Rngs(0)),
            (1, 8, 1),
            "(8 - 1)·2 + 5 - 2·1 = 17",
        ),
        (
            lambda: nnx.ConvTranspose(1, 1, 3, strides=2, padding=[(2, 1)], kernel_dilation=2, rngs=nnx.Rngs(0)),
            (1, 8, 1),
            "(8 - 1)·2 + 2·(3 - 1) + 1 - 2 - 3 = 14",
        ),
    ],
)
def test_formulas_are_true(make, shape, formula):
    (row,) = explain.summary(_abstract(make), _shape(*shape)).rows
    assert row.formula == (formula,)
    left, right = formula.replace("·", "*").split(" = ")
    assert eval(left, {"floor": math.floor}) == int(right) == row.shape[0]


def test_shared_and_unused_parameters_count_once():
    class Shared(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(3, 3, (3, 3), rngs=RNGS)
            self.unused = nnx.Linear(3, 4, rngs=RNGS)

        def __call__(self, x):
            return self.conv(nnx.relu(self.conv(x)))

    table = explain.summary(Shared(), _shape(1, 8, 8, 3))
    assert [row.parameters for row in table.rows] == [84, 0]
    assert table.parameters == 84 + 16
    assert table.multiply_adds == 2 * 8 * 8 * 3 * 27
    assert "16 of the parameters are in none of these layers." in str(table)


def test_per_example_whatever_the_batch():
    for batch in (0, 1, 5):
        assert (
            explain.summary(_abstract(lambda: Vgg(rngs=nnx.Rngs(0))), _shape(batch, 32, 32, 3)).rows[0].memory == 32768
        )
    half = explain.summary(nn.Conv2d(3, 4, 3, dtype=jnp.bfloat16, rngs=RNGS), _shape(1, 8, 8, 3))
    assert half.rows[0].memory == 8 * 8 * 4 * 2


def test_text_fits_120_columns():
    lines = str(LENET5).splitlines()
    assert lines[0] == "LeNet5 on 28×28×1"
    first = "c1 conv2d + tanh 28×28×6 ⌊(28+2·2-5)/1⌋+1 = 28 156 117,600 18.4 KiB 5 1 3,692,640"
    assert " ".join(lines[4].split()) == first
    assert lines[12].split() == ["total", "60,850", "416,520", "31.6", "KiB", "5,635,018"]
    assert lines[4].index("156") + 3 == lines[6].index("1,516") + 5
    assert repr(LENET5) == str(LENET5)

    class Deep(nnx.Module):
        def __init__(self):
            self.a_rather_long_name = nnx.Sequential(Vgg((512, 1024), rngs=nnx.Rngs(0)))

        def __call__(self, x):
            return self.a_rather_long_name(x)

    for model, shape in (
        (Deep, (1, 1024, 768, 3)),
        (lambda: nnx.Conv(2, 99, (3, 5, 7), rngs=nnx.Rngs(0)), (1, 90, 91, 99, 2)),
    ):
        text = str(explain.summary(_abstract(model), _shape(*shape)))
        assert max(map(len, text.splitlines())) <= 120
        assert len(text.splitlines()) > 8
    assert " G " in str(explain.summary(_abstract(Deep), _shape(1, 1024, 768, 3)))


def test_html_is_a_well_formed_table():
    class Parser(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.cells = [], []

        def handle_starttag(self, tag, attrs):
            self.open += [] if tag == "br" else [tag]
            self.cells += [""] if tag == "td" else []

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            if self.open[-1] == "td":
                self.cells[-1] += data

    parser = Parser()
    parser.feed(LENET5._repr_html_())
    assert not parser.open
    assert len(parser.cells) == 10 * (len(LENET5.rows) + 1)
    assert parser.cells[:4] == ["c1", "conv2d + tanh", "28×28×6", "floor((28 + 2·2 - 5) / 1) + 1 = 28"]
    odd = explain.summary(nnx.Dict({"<b>": nnx.Linear(2, 2, rngs=RNGS)})["<b>"], _shape(1, 2))
    assert "<b>" not in odd._repr_html_()


def test_frame():
    pytest.importorskip("pandas")
    frame: Any = LENET5.to_frame()
    assert list(frame.index) == [row.name for row in LENET5.rows]
    assert frame["parameters"].sum() == 60_850
    assert frame.loc["c3", "field"] == ((14, 2, -2), (14, 2, -2))
    assert frame.loc["s4", "jump"] == (4, 4)


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    message = r"summary: a DataFrame needs pandas\. Install it with: pip install 'cnnjax\[experiments\]'"
    with pytest.raises(ImportError, match=message):
        LENET5.to_frame()


A_FUNCTION: Any = ops.flatten


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: explain.summary(A_FUNCTION, _shape(1, 3)),
            TypeError,
            r"^summary: model must be an nnx\.Module, got function\. Wrap it in one\.$",
        ),
        (
            lambda: explain.summary(models.LeNet5(rngs=RNGS), [[1.0]]),
            TypeError,
            r"^summary: x must be an array or a jax\.ShapeDtypeStruct, got list\.",
        ),
        (
            lambda: explain.summary(models.LeNet5(rngs=RNGS), _shape(28)),
            ValueError,
            r"^summary: x must be a batch \(N, \.\.\., C\), got shape \(1,\)\. Add a batch axis with x\[None\]\.$",
        ),
        (
            lambda: LENET5["c9"],
            KeyError,
            r"summary: layer must be one of c1, s2, c3, s4, c5, f6, output, got 'c9'\.",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
