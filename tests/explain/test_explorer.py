"""What stands in the page of the explorer, without a browser: test_explorer_page.py opens it in one."""

import base64
import html
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

LENET = models.LeNet5(rngs=nnx.Rngs(0))
PICTURE = jax.random.uniform(jax.random.key(0), (28, 28, 1))


def _data(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.DOTALL)
    assert found
    return json.loads(found[1])


def _array(data, number):
    found = data["arrays"][number]
    return np.frombuffer(base64.b64decode(found["data"]), "<f4").reshape(found["shape"])


def test_needs_nothing_but_itself():
    page = explain.explorer(LENET, PICTURE).html
    assert not re.search(r"https?:|\bsrc=|@import|url\(|\bfetch\(|XMLHttpRequest|import\(", page)
    assert not re.search(r"%(title|style|data|script)%", page)
    assert [link for link in re.findall(r'href="([^"]*)"', page) if link != "data:,"] == []


def test_lenet_takes_far_less_than_ten_megabytes():
    assert len(explain.explorer(models.LeNet(rngs=nnx.Rngs(0)), PICTURE).html) < 2_000_000


def test_the_same_twice():
    assert explain.explorer(LENET, PICTURE) == explain.explorer(LENET, PICTURE)


def test_holds_the_picture_and_every_layer():
    data = _data(explain.explorer(LENET, PICTURE))
    wanted = explain.activations(LENET, PICTURE[None])
    np.testing.assert_array_equal(_array(data, data["input"]["value"]), PICTURE)
    assert [layer["name"] for layer in data["layers"]] == list(wanted)
    for layer in data["layers"]:
        value = np.asarray(wanted[layer["name"]])[0]
        np.testing.assert_allclose(_array(data, layer["value"]).reshape(value.shape), value, atol=1e-5)


def test_an_array_that_two_layers_share_is_there_once():
    data = _data(explain.explorer(LENET, PICTURE))
    first, second = data["layers"][:2]
    assert second["how"]["operands"] == [first["value"]]


def test_a_batch_of_one_is_a_picture():
    assert explain.explorer(LENET, PICTURE[None]) == explain.explorer(LENET, PICTURE)


def test_whole_numbers_are_taken_as_they_are():
    data = _data(explain.explorer(LENET, np.full((28, 28, 1), 7, np.uint8)))
    assert (_array(data, data["input"]["value"]) == 7).all()


def test_shows_only_the_strongest_of_many_channels():
    data = _data(explain.explorer(LENET, PICTURE, channels=3))
    for layer in data["layers"]:
        value = np.abs(_array(data, layer["value"])).max((0, 1))
        rest = np.delete(value, layer["shown"])
        assert len(layer["shown"]) == min(3, len(value))
        assert not len(rest) or value[layer["shown"]].min() >= rest.max()
        if "kernel" in layer["how"]:
            assert _array(data, layer["how"]["kernel"]).shape[-1] == len(layer["shown"])


def test_runs_in_evaluation_and_leaves_the_model_as_it_was():
    dropout, dense = nnx.Dropout(0.9, rngs=nnx.Rngs(0)), nn.Dense(9, 2, rngs=nnx.Rngs(0))
    model = nnx.Sequential(dropout, ops.flatten, dense)
    model.train()
    data = _data(explain.explorer(model, jnp.ones((3, 3, 1))))
    scores = _array(data, data["scores"]).ravel()
    np.testing.assert_allclose(scores, dense(jnp.ones((1, 9)))[0], rtol=1e-5)
    assert not dropout.deterministic


def test_saves_the_page(tmp_path):
    page = explain.explorer(LENET, PICTURE, class_names=[f"“{i}”" for i in range(10)])
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html


def test_a_notebook_gets_the_whole_page():
    page = explain.explorer(LENET, PICTURE)
    found = re.fullmatch(r'<iframe srcdoc="([^"]*)"[^>]*></iframe>', page._repr_html_())
    assert found
    assert html.unescape(found[1]) == page.html


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (jnp.zeros((28, 28)), {}, None),
        (jnp.zeros(28), {}, r"explorer: image must be one picture \(H, W, C\) or one series.*got shape \(28,\)"),
        (jnp.zeros((2, 28, 28, 1)), {}, r"explorer: image must be one picture .* got shape \(2, 28, 28, 1\)"),
        (jnp.zeros((0, 28, 1)), {}, r"explorer: image must be .* got shape \(0, 28, 1\)"),
        (PICTURE, {"class_names": ["a", "b"]}, r"explorer: class_names must be as many .* got 2 for .* \(1, 1, 10\)"),
        (PICTURE, {"channels": 0}, r"explorer: channels must be at least 1, got 0"),
    ],
)
def test_refuses(image, options, message):
    with pytest.raises(ValueError, match=message):
        explain.explorer(LENET, image, **options)


def test_refuses_what_is_no_module():
    with pytest.raises(TypeError, match=r"explorer: model must be an nnx\.Module"):
        explain.explorer(lambda x: x, PICTURE)  # pyright: ignore[reportArgumentType]


def test_refuses_names_for_a_model_without_scores():
    model = nn.Conv2d(1, 2, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="explorer: class_names must be as many as the model has scores"):
        explain.explorer(model, PICTURE, ["a", "b"])
