"""docs/ops.md: it covers every op, is what the generator writes, and its links and conversions of weights are right."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from cnnjax import ops
from docs import make_ops
from docs.op_counterparts import COUNTERPARTS

STORED = (make_ops.FOLDER / "ops.md").read_text(encoding="utf-8")
NAMED = Counter(name for entry in COUNTERPARTS.values() for name in entry.ops.split())


def test_every_op_has_one_entry():
    offered = set(make_ops.public_ops())
    assert not offered - set(NAMED), f"{sorted(offered - set(NAMED))} have no entry in docs/op_counterparts.py"
    assert max(NAMED.values()) == 1, f"in several entries: {[name for name, count in NAMED.items() if count > 1]}"


def test_every_entry_is_about_ops_that_exist():
    absent = set(NAMED) - set(make_ops.public_ops())
    assert not absent, f"{sorted(absent)} are no ops"


def test_the_page_is_what_the_generator_writes():
    assert make_ops.page() == STORED, "run python -m docs.make_ops"


def test_links_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", STORED, re.MULTILINE)
    anchors = Counter(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
    assert max(anchors.values()) == 1, f"headings of one name: {anchors.most_common(3)}"
    for target in re.findall(r"\]\(([^)]+)\)", STORED):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (make_ops.FOLDER / target).exists(), target


def test_tables_are_tables():
    rows = [line for line in STORED.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {6}


# What the page says of weights, tried out.


def random(*shape) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def converted(family, expression, **names):
    """The value of an expression that the page gives for a family."""
    assert f"`{expression}`" in COUNTERPARTS[family].weights, f"the weights of {family} no longer say {expression}"
    return eval(expression, {"np": np, **names})


@pytest.fixture
def functional():
    return pytest.importorskip("torch", reason="compares with PyTorch").nn.functional


def channels_last(function, x, *weights, **options):
    """Call a function of PyTorch on a picture that is channels-last."""
    import torch

    y = function(torch.tensor(x.transpose(0, 3, 1, 2)), *map(torch.tensor, weights), **options)
    return y.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("expression", ["weight.transpose(2, 3, 1, 0)", "np.moveaxis(weight, (0, 1), (-1, -2))"])
def test_weights_of_convolutions(functional, expression):
    x, weight = random(2, 6, 5, 4), random(6, 2, 3, 2)
    y = ops.conv2d(x, converted("conv", expression, weight=weight), padding=1, groups=2)
    theirs = channels_last(functional.conv2d, x, weight, padding=1, groups=2)
    np.testing.assert_allclose(y, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("expression", ["weight.transpose(2, 3, 0, 1)", "np.moveaxis(weight, (0, 1), (-2, -1))"])
def test_weights_of_transposed_convolutions(functional, expression):
    x, weight = random(2, 6, 5, 4), random(4, 3, 3, 2)
    kernel = converted("conv_transpose", expression, weight=weight)
    y = ops.conv_transpose2d(x, kernel, stride=2, padding=1, groups=2)
    theirs = channels_last(functional.conv_transpose2d, x, weight, stride=2, padding=1, groups=2)
    np.testing.assert_allclose(y, theirs, rtol=1e-5, atol=1e-5)


def test_weights_of_dense_layers_behind_a_flattened_picture(functional):
    import torch

    x, weight = random(2, 3, 5, 4), random(7, 4 * 3 * 5)
    expression = "weight.reshape(O, C, H, W).transpose(2, 3, 1, 0).reshape(-1, O)"
    kernel = converted("dense", expression, weight=weight, O=7, C=4, H=3, W=5)
    theirs = functional.linear(torch.tensor(x.transpose(0, 3, 1, 2)).flatten(1), torch.tensor(weight)).numpy()
    np.testing.assert_allclose(ops.dense(ops.flatten(x), kernel), theirs, rtol=1e-5, atol=1e-5)
