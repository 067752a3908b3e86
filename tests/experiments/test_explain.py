"""python -m experiments.explain and experiments.publish, and the trained net that comes with cnnjax."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from short_runs import ROOT, contents, fast, run

from cnnjax import data, train
from experiments import explain, images, mnist, predict, publish, workdir


def _of_maps_alone(monkeypatch):
    """Without the slow climbs to what channels would like to see."""
    monkeypatch.setattr(
        explain.explain, "visualize_feature", lambda *a, channels, **k: np.zeros((len(channels), 4, 4, 1))
    )


def _left(folder):
    """Every picture that a gallery names, as sizes by name."""
    page = Path(folder, "index.html").read_text(encoding="utf-8")
    assert 'href="explorer.html"' in page
    assert Path(folder, "explorer.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    sizes = {}
    for name in re.findall(r'src="([^"]+)"', page):
        with Image.open(Path(folder, name)) as picture:
            sizes[name] = picture.size
    assert set(sizes) | {"index.html", "explorer.html"} == {path.name for path in Path(folder).iterdir()}
    return sizes


@pytest.mark.slow
def test_explains_the_net_that_comes_with_it(monkeypatch, capsys):
    _of_maps_alone(monkeypatch)
    monkeypatch.setattr(explain, "SEARCHED", 20)
    assert run(monkeypatch, explain, "--data", "embedded") == 0
    kinds = {"maps", "patches", "deconvnet", "features"}
    expected = {"attribution.png"} | {f"{kind}_{number}.png" for kind in kinds for number in range(3)}
    assert set(_left("runs/explain/1")) == expected
    shown = capsys.readouterr().out
    assert all(f"runs/explain/1/{name}: " in shown for name in (*expected, "explorer.html"))
    assert shown.endswith("Open runs/explain/1/index.html in a browser.\n")


@pytest.mark.slow
def test_explains_a_net_of_ones_own_pictures(monkeypatch):
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Path("pictures", name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 40, (32, 32, 3))
            Image.fromarray(np.uint8(noise + colour)).save(f"pictures/{name}/{number}.png")
    options = ["--data", "pictures", "--size", 32, "--batch-size", 8, "--steps", 2, "--workdir", "run"]
    assert run(monkeypatch, images, *options) == 0
    chosen = ["--workdir", "run", "--picture", "pictures/red/0.png", "--out", "told/here"]
    assert run(monkeypatch, explain, *chosen, "--data", "pictures") == 0
    assert {"attribution.png", "maps_0.png", "features_0.png"} <= set(_left("told/here"))
    page = Path("told/here/explorer.html").read_text(encoding="utf-8")
    assert '"classes":["blue","red"]' in page


def test_bad_options_end_in_one_line(digits, monkeypatch, capsys):
    Path("broken.png").write_bytes(b"not a picture")
    Path("file").write_text("")
    cases = {
        "--workdir nowhere": "a trained run of experiments.mnist or experiments.images, got nowhere.",
        "--picture broken.png": "broken.png cannot be read",
        "--picture missing.png": "missing.png cannot be read: No such file or directory",
        "--data nowhere": "nowhere",
        "--data embedded --out file": "file",
    }
    for options, message in cases.items():
        if "--data" not in options:
            options += f" --data {digits}"
        assert run(monkeypatch, explain, *options.split()) == 2, options
        said = capsys.readouterr().err
        assert said.startswith("experiments.explain: ")
        assert message in said
        assert said.count("\n") == 1
    assert not Path("runs").exists()


def test_publishes_a_run_without_what_only_training_needs(digits, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--steps", 5, "--workdir", "run") == 0
    before = contents("run")
    assert run(monkeypatch, publish, "run", "net") == 0
    assert contents("run") == before
    after = contents("net")
    # Adam keeps two numbers for each parameter, and there is one average.
    assert sum(map(len, after.values())) < 0.4 * sum(
        len(part) for name, part in before.items() if "checkpoints" in name.parts
    )
    assert not any(str(Path.cwd()).encode() in part for part in after.values())
    assert json.loads(Path("net/result.json").read_text()) == json.loads(Path("run/result.json").read_text())
    pixels = np.random.default_rng(0).uniform(size=(8, 28, 28, 1)).astype(np.float32)
    one, other = (train.predict(*predict.classifier_of(Path(name))[:2], pixels) for name in ("run", "net"))
    np.testing.assert_array_equal(one, other)
    capsys.readouterr()
    for arguments, message in {
        ("run", "net"): "the folder must be a new one, got net. Remove it, or name another.",
        ("nowhere", "other"): "a trained run of experiments.mnist or experiments.images, got nowhere.",
    }.items():
        assert run(monkeypatch, publish, *arguments) == 2
        assert message in capsys.readouterr().err
    assert contents("net") == after


@pytest.mark.slow
def test_a_published_run_is_not_trained_further(digits, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--steps", 5, "--workdir", "run") == 0
    assert run(monkeypatch, publish, "run", "net") == 0
    before = contents("net")
    capsys.readouterr()
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 2, "--workdir", "net", "--resume") == 2
    said = capsys.readouterr().err
    assert "--resume needs the state of the optimiser, but net was published without it." in said
    assert said.count("\n") == 1
    after = contents("net")
    assert {name: after[name] for name in before} == before


def _accuracy(source):
    dataset = data.load("mnist", source)
    pixels = dataset.test["image"].astype(np.float32) / 255
    answers = train.predict(*mnist.load(workdir.SHIPPED), pixels).argmax(1)
    return np.mean(answers == dataset.test["label"])


def test_the_net_that_comes_with_it_reads_digits():
    # It may have been trained on some of these.
    assert _accuracy("embedded") > 0.99
    assert len(jax.devices()) > 1


def test_the_net_that_comes_with_it_is_as_good_as_it_says():
    folder = ROOT.parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("shared/data is not part of the project")
    said = json.loads((workdir.SHIPPED / "result.json").read_text())
    assert said["test_total"] == 10_000
    # Rounding differs from machine to machine.
    assert abs(_accuracy(folder) - said["test_accuracy"]) < 5e-4


def test_it_takes_little_room_and_says_nothing_of_where_it_was_made():
    parts = {path: path.read_bytes() for path in workdir.SHIPPED.rglob("*") if path.is_file()}
    assert sum(map(len, parts.values())) < 600_000
    assert not any(name in part for part in parts.values() for name in (b"/home/", b"/root/", b"/tmp/", b"/Users/"))


def test_predict_reads_with_it_where_nothing_was_trained(monkeypatch, capsys):
    dataset = data.load("mnist", "embedded")
    for number in range(5):
        Image.fromarray(dataset.test["image"][number, :, :, 0]).save(f"{number}.png")
    assert run(monkeypatch, predict, *(f"{number}.png" for number in range(5))) == 0
    answers = re.findall(r"png: (\d)", capsys.readouterr().out)
    assert answers == [str(label) for label in dataset.test["label"][:5]]
