"""python -m experiments.mnist and experiments.predict: what they leave behind, and how they end."""

import gzip
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from short_runs import ROOT, assert_same_bits, contents, fast, parameters, rows, run

from cnnjax import data
from experiments import commandline, mnist, predict

PICTURES = {"learning_curve.png", "confusion.png", "filters.png", "mistakes.png"}


def test_a_run_leaves_everything_behind(digits, monkeypatch, capsys):
    arguments = ["--data", digits, "--batch-size", 32, "--epochs", 2, "--workdir", "run"]
    assert run(monkeypatch, mnist, *arguments) == 0
    shown = capsys.readouterr()
    result = json.loads(Path("run/result.json").read_text())
    expected = {
        "test_total": 60, "train_examples": 320, "epochs": 2, "steps": 20, "parallel": "jit", "model": "lenet",
        "data": "mnist from idx files", "seed": 0, "parameters": 98_554,
    }  # fmt: skip
    assert {name: result[name] for name in expected} == expected
    assert result["test_accuracy"] == result["test_correct"] / 60
    assert set(result["versions"]) >= {"python", "cnnjax", "jax", "flax"}
    assert len(result["devices"]) == jax.device_count()
    last = shown.out.splitlines()[-1]
    score = f"{result['test_accuracy']:.4f} ({result['test_correct']}/60, mnist from idx files)"
    assert re.fullmatch(rf"test accuracy {re.escape(score)} in [\d.]+ s", last)
    assert "epoch 2/2" in shown.err
    assert "images/s=" in shown.err
    assert {path.name for path in Path("run").glob("*.png")} >= PICTURES - {"mistakes.png"}
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["step"] for row in rows if "test_accuracy" in row] == [10, 20]
    assert rows[-1]["test_accuracy"] == pytest.approx(result["test_accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lenet5", "mlp"])
def test_the_same_command_trains_the_other_models(model, digits, monkeypatch):
    arguments = ["--data", digits, "--batch-size", 32, "--epochs", 4, "--model", model, "--workdir", "run"]
    assert run(monkeypatch, mnist, *arguments, "--learning-rate", "0.01") == 0
    assert json.loads(Path("run/result.json").read_text())["model"] == model
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert PICTURES - {"mistakes.png"} <= {path.name for path in Path("run").glob("*.png")}


@pytest.mark.slow
def test_runs_are_numbered(digits, monkeypatch):
    for number in (1, 2):
        assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1) == 0
        assert Path(f"runs/mnist/{number}/result.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() != 8, reason="needs 8 (virtual) devices")
def test_pmap_trains_as_jit(digits, monkeypatch):
    for parallel in ("jit", "pmap"):
        arguments = [*fast(digits), "--epochs", 6, "--workdir", parallel, "--parallel", parallel]
        assert run(monkeypatch, mnist, *arguments) == 0
    jit, pmap = (json.loads(Path(f"{name}/result.json").read_text()) for name in ("jit", "pmap"))
    assert (jit["parallel"], pmap["parallel"]) == ("jit", "pmap")
    # The shards draw their own dropout, so the two runs differ as two seeds do.
    assert abs(jit["test_correct"] - pmap["test_correct"]) <= 9


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_does_not(digits, monkeypatch):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", name, "--seed", seed) == 0
    assert_same_bits("a", "b")
    assert any(not np.array_equal(x, y) for x, y in zip(parameters("a"), parameters("c"), strict=True))


@pytest.mark.slow
def test_a_finished_run_is_left_alone_then_trained_further_then_replaced(digits, monkeypatch, capsys):
    arguments = [*fast(digits), "--workdir", "run"]
    assert run(monkeypatch, mnist, *arguments, "--epochs", 2) == 0
    before = contents("run")
    assert run(monkeypatch, mnist, *arguments, "--epochs", 2) == 2
    said = capsys.readouterr().err
    assert "run holds a finished run and is left alone." in said
    assert "--resume --epochs MORE" in said
    assert "--overwrite" in said
    assert run(monkeypatch, mnist, *arguments, "--epochs", 2, "--resume") == 0
    assert "run has finished its 2 epochs already" in capsys.readouterr().out
    assert contents("run") == before
    assert run(monkeypatch, mnist, *arguments, "--epochs", 3, "--resume") == 0
    assert json.loads(Path("run/result.json").read_text())["steps"] == 30
    Path("run/notes.txt").write_text("mine")
    assert run(monkeypatch, mnist, *arguments, "--epochs", 1, "--overwrite") == 0
    assert json.loads(Path("run/result.json").read_text())["steps"] == 10
    assert Path("run/notes.txt").read_text() == "mine"


def damaged(digits, folder, name, change):
    folder.mkdir()
    for file in digits.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    target = folder / name
    target.write_bytes(change(target.read_bytes()))
    return folder


def relabelled(values):
    def change(content):
        raw = bytearray(gzip.decompress(content))
        raw[8 : 8 + len(values)] = bytes(values)
        return gzip.compress(bytes(raw))

    return change


BAD_OPTIONS = {
    "--batch-size 0": "--batch-size must be at least 1, got 0.",
    "--batch-size 30 --parallel pmap": "--batch-size must divide over the devices, got 30 for 8. Use a multiple of 8.",
    "--learning-rate 0": "--learning-rate must be a positive number, got 0.0.",
    "--learning-rate -0.1": "--learning-rate must be a positive number, got -0.1.",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan.",
    "--learning-rate inf": "--learning-rate must be a positive number, got inf.",
    "--epochs -3": "--epochs must be at least 1, got -3.",
    "--epochs 0": "--epochs must be at least 1, got 0.",
    "--resume": "--resume and --overwrite need the run that they are about. Name it with --workdir.",
    "--resume --overwrite --workdir run": "--resume and --overwrite exclude each other. Give one of them.",
    "--resume --workdir nowhere": "--resume needs a run, but there is no folder nowhere.",
    "--workdir a-file": "--workdir must be a folder, got the file a-file. Name another.",
    "--data nowhere": "there is no folder 'nowhere'",
    "--data a-file": "a-file",
    "--data empty": "empty",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_end_in_one_line(options, digits, monkeypatch, capsys):
    if "pmap" in options and jax.device_count() != 8:
        pytest.skip("needs 8 (virtual) devices")
    Path("a-file").write_text("mine")
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    arguments = ["--data", digits] if "--data" not in options else []
    assert run(monkeypatch, mnist, *arguments, *options.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("experiments.mnist: ")
    assert BAD_OPTIONS[options] in said
    assert said.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    assert Path("a-file").read_text() == "mine"


TRAIN_LABELS, TRAIN_IMAGES = "train-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz"
SIXTY_LABELS = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 60) + bytes(60))
BAD_FILES = {
    "corrupt": (TRAIN_IMAGES, lambda content: content[:200] + bytes(50) + content[250:], TRAIN_IMAGES),
    "truncated": (TRAIN_IMAGES, lambda content: content[:-400], TRAIN_IMAGES),
    "labels of another set": (TRAIN_LABELS, lambda content: SIXTY_LABELS, "these are the labels of another set"),
    "label out of range": (TRAIN_LABELS, relabelled([3, 10]), "labels must be 0 to 9, got 10 at example 1"),
}


def test_bad_files_end_in_one_line_and_the_run_is_kept(digits, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", "run") == 0
    before = contents("run")
    for damage, (name, change, message) in BAD_FILES.items():
        folder = damaged(digits, tmp_path / damage, name, change)
        capsys.readouterr()
        assert run(monkeypatch, mnist, "--data", folder, "--workdir", "run", "--overwrite") == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert contents("run") == before


@pytest.mark.slow
def test_a_checkpoint_is_resumed_with_its_own_settings_alone(digits, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 3, "--workdir", "run") == 0
    before = contents("run")
    cases = {
        "--epochs 2": "--epochs must not be fewer than the run has finished: run has 30 steps, got 20.",
        "--epochs 4 --model lenet": "the run in run has model 'mlp', got 'lenet'.",
        "--epochs 4 --batch-size 64": "the run in run has batch_size 32, got 64.",
        "--epochs 4 --learning-rate 0.5": "the run in run has learning_rate 0.003, got 0.5.",
        "--epochs 4 --seed 1": "the run in run has seed 0, got 1.",
        "--epochs 4 --data embedded": "the run in run has data 'mnist from idx files', got '5,000 digits",
    }
    for options, message in cases.items():
        capsys.readouterr()
        assert run(monkeypatch, mnist, *fast(digits), "--workdir", "run", "--resume", *options.split()) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert contents("run") == before


def test_an_unfinished_run_is_not_written_over(digits, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", "run") == 0
    Path("run/result.json").unlink()
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", "run") == 2
    assert (
        "run holds an unfinished run. Go on with --resume, or replace it with --overwrite." in capsys.readouterr().err
    )


def test_predict_classifies_pictures(digits, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 8) == 0
    dataset = data.load("mnist", digits)
    for number in range(4):
        white_on_black = Image.fromarray(dataset.train["image"][number, :, :, 0])
        white_on_black.save(f"{number}.png")
        Image.fromarray(255 - np.asarray(white_on_black.resize((280, 280)))).save(f"{number}.jpg")
    capsys.readouterr()
    files = [f"{number}.{kind}" for number in range(4) for kind in ("png", "jpg")]
    assert run(monkeypatch, predict, *files, "--workdir", "runs/mnist/1") == 0
    named = capsys.readouterr().out
    assert run(monkeypatch, predict, *files) == 0
    assert capsys.readouterr().out == named
    lines = named.splitlines()
    parts = [re.findall(r"^(\S+): (\d) +(\d) ([\d.]+)%  \d [\d.]+%  \d [\d.]+%$", line)[0] for line in lines]
    assert [file for file, *_ in parts] == files
    assert all(best == first and 0 <= float(share) <= 100 for _, best, first, share in parts)
    right = sum(int(part[1]) == dataset.train["label"][number // 2] for number, part in enumerate(parts))
    assert right >= 6


def test_predict_ends_in_one_line(monkeypatch, capsys):
    Path("broken.png").write_bytes(b"not a picture")
    Image.new("L", (28, 28)).save("blank.png")
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save("line.png")
    cases = {
        "broken.png": "broken.png cannot be read",
        "missing.png": "missing.png cannot be read: No such file or directory",
        "blank.png": "blank.png is blank",
        "": "there must be a picture to classify, got none",
        "line.png --workdir nowhere": "a trained run of experiments.mnist or experiments.images, got nowhere.",
    }
    for arguments, message in cases.items():
        assert run(monkeypatch, predict, *arguments.split()) == 2
        said = capsys.readouterr().err
        assert said.startswith("experiments.predict: ")
        assert message in said
        assert said.count("\n") == 1


def test_without_tyro_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(ImportError, match=r"pip install 'cnnjax\[experiments\]'"):
        commandline.parse(mnist.Config, "experiments.mnist")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["embedded", "idx"])
def test_the_default_run_reaches_what_the_readme_says(source, monkeypatch):
    folder = ROOT.parent / "shared" / "data" / "mnist"
    if source == "idx" and not folder.is_dir():
        pytest.skip("shared/data is not part of the project")
    # In a process of its own: with the test suite's 8 virtual devices JAX has fewer threads a device.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    options = ["--data", str(folder) if source == "idx" else "embedded", "--workdir", "run"]
    subprocess.run([sys.executable, "-m", "experiments.mnist", *options], env=environment, check=True)
    result = json.loads(Path("run/result.json").read_text())
    assert result["test_total"] == (10_000 if source == "idx" else 1_000)
    assert result["test_accuracy"] >= (0.99 if source == "idx" else 0.975)


def test_the_metrics_are_events_for_tensorboard_too(digits, monkeypatch):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 2, "--workdir", "run", "--tensorboard") == 0
    found = {}
    for file in sorted(Path("run/events").iterdir()):
        content = file.read_bytes()
        while content:
            # Its length in 8 bytes, a check sum of 4, the event, another one.
            (size,) = struct.unpack("<Q", content[:8])
            event, content = event_pb2.Event.FromString(content[12 : 12 + size]), content[16 + size :]
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    for row in rows("run"):
        for name in row.keys() - {"epoch", "step"}:
            assert found[name, row["step"]] == pytest.approx(row[name], rel=1e-6)


def test_without_tensorboardx_the_extra_is_named(digits, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run(monkeypatch, mnist, *fast(digits), "--workdir", "run", "--tensorboard") == 2
    assert "pip install 'cnnjax[tensorboard]'" in capsys.readouterr().err
    assert not Path("run").exists()
