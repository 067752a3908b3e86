"""The experiments besides MNIST: a few steps on a little real data, what they leave behind, and how they end."""

import json
import re
import wave
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from short_runs import CLOCKS, rows, run

from cnnjax import data, train
from cnnjax.data import cifar10 as cifar10_files
from experiments import cifar10, hippocampus, images, mnist, predict, spoken_digits, workdir

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Forty recordings to train on and twenty to test with; where there are none, telephone tones."""
    folder = tmp_path_factory.mktemp("recordings")
    dataset = data.load("spoken_digits", SHARED if (SHARED / "fsdd.npz").is_file() else "embedded")
    for examples, count, first in ((dataset.train, 4, 5), (dataset.test, 2, 0)):
        for digit in range(10):
            for number, audio in enumerate(examples["audio"][examples["label"] == digit][:count]):
                with wave.open(str(folder / f"{digit}_theo_{first + number}.wav"), "wb") as file:
                    file.setparams((1, 2, 8000, 0, "NONE", ""))
                    file.writeframes(audio.astype("<i2").tobytes())
    return folder


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    """Ten volumes: MRI, or where there is none those made of digits."""
    folder = tmp_path_factory.mktemp("volumes")
    source = SHARED if (SHARED / "hippocampus3d.npz").is_file() else "embedded"
    some = data.load_hippocampus(source).train[:10]
    np.savez(
        folder / "hippocampus3d.npz",
        image_flat=np.concatenate([one.image.ravel() for one in some]),
        label_flat=np.concatenate([one.label.ravel() for one in some]),
        shapes=np.array([one.label.shape for one in some], np.int16),
        names=np.array([one.name for one in some]),
    )
    return folder


@pytest.fixture(scope="session")
def batches(tmp_path_factory):
    """CIFAR-10's six files with twenty pictures each; where there are none, of digits."""
    folder = tmp_path_factory.mktemp("batches")
    source = SHARED / "cifar10_jpeg_test.npz"
    some = cifar10_files._read_jpegs(source) if source.is_file() else cifar10_files.stand_in()[0]
    order = np.argsort(np.arange(len(some["label"])) % 1000, kind="stable")  # those of JPEGs are sorted by class
    for number, name in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        places = order[20 * number : 20 * number + 20]
        planes = some["image"][places].transpose(0, 3, 1, 2).reshape(20, -1)
        rows = np.concatenate([some["label"][places, None].astype(np.uint8), planes], 1)
        (folder / name).write_bytes(rows.tobytes())
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of ten digits a class."""
    folder = tmp_path_factory.mktemp("pictures") / "digits"
    data.write_digits(folder, each=10)
    return folder


EXPERIMENTS = {
    "spoken_digits": (
        spoken_digits, "recordings", ["--width", 4, "--batch-size", 16],
        {"train_examples": 40, "test_total": 20}, {"learning_curve.png", "confusion.png", "filters.png"},
    ),
    "hippocampus": (
        hippocampus, "volumes", ["--widths", 4, 8, "--box", 8, 16, 8, "--batch-size", 8],
        {"train_examples": 8, "test_volumes": 2}, {"learning_curve.png", "worst.png", "median.png", "best.png"},
    ),
    "images": (
        images, "pictures", ["--size", 32, "--batch-size", 16, "--no-flip"],
        {}, {"learning_curve.png", "confusion.png", "hardest.png"},
    ),
    "cifar10": (
        cifar10, "batches", ["--batch-size", 40],
        {"train_examples": 100, "test_total": 20}, {"learning_curve.png", "filters.png"},
    ),
}  # fmt: skip
every_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


@pytest.fixture
def command(name, request):
    """The module and the arguments of a short run of an experiment."""
    module, source, arguments, _, _ = EXPERIMENTS[name]
    return module, ["--data", request.getfixturevalue(source), *arguments]


@every_experiment
def test_a_few_steps_leave_everything_behind(name, command, monkeypatch, capsys):
    module, arguments = command
    assert run(monkeypatch, module, *arguments, "--steps", 3) == 0
    shown = capsys.readouterr()
    path = Path(f"runs/{name}/1")
    result = json.loads((path / "result.json").read_text())
    _, _, _, expected, drawn = EXPERIMENTS[name]
    assert {key: result[key] for key in expected} == expected
    assert (result["steps"], result["seed"], result["accelerated"]) == (3, 0, True)
    assert {file.name for file in path.glob("*.png")} == drawn
    rows = workdir.read_rows(path)
    assert rows[-1]["step"] == 3
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert np.isfinite(rows[-1]["test_loss"])
    assert "epoch 1/" in shown.err
    score = result["test_dice"] if name == "hippocampus" else result["test_accuracy"]
    assert 0 <= score <= 1
    assert re.search(rf"test (accuracy|Dice) {score:.4f}\b.* in [\d.]+ s", shown.out)


@every_experiment
def test_bad_options_end_in_one_line(name, command, monkeypatch, capsys):
    module, _ = command
    cases = {
        "--steps 0": "--steps must be at least 1, got 0.",
        "--learning-rate nan": "--learning-rate must be a positive number, got nan.",
        "--data nowhere": "nowhere",
        "--resume": "--resume and --overwrite need the run that they are about.",
    }
    for options, message in cases.items():
        assert run(monkeypatch, module, *options.split()) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"experiments.{name}: ")
        assert message in said
        assert said.count("\n") == 1
    assert not list(Path().iterdir())


def interrupted(monkeypatch, after):
    """Let train.fit be interrupted when it is called after so many epochs."""
    fit, calls = train.fit, []

    def once_more(*arguments, **options):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(train, "fit", once_more)
    return lambda: monkeypatch.setattr(train, "fit", fit)


@pytest.mark.slow
@every_experiment
def test_an_interrupted_run_resumes_to_the_same_bits(name, command, monkeypatch, capsys):
    module, arguments = command
    assert run(monkeypatch, module, *arguments, "--epochs", 2, "--workdir", "whole") == 0
    restore = interrupted(monkeypatch, after=1)
    assert run(monkeypatch, module, *arguments, "--epochs", 2, "--workdir", "broken") == 130
    assert "Go on with the same options and --workdir broken --resume." in capsys.readouterr().err
    restore()
    assert run(monkeypatch, module, *arguments, "--epochs", 2, "--workdir", "broken", "--resume") == 0
    whole, resumed = (json.loads(Path(folder, "result.json").read_text()) for folder in ("whole", "broken"))
    clocks = dict.fromkeys([*CLOCKS, "part_of_peak"])
    assert whole | clocks == resumed | clocks
    assert rows("whole") == rows("broken")


@pytest.mark.slow
def test_steps_cut_an_epoch_short(recordings, monkeypatch):
    arguments = ["--data", recordings, "--width", 2, "--batch-size", 16, "--workdir", "run"]
    assert run(monkeypatch, spoken_digits, *arguments, "--steps", 4) == 0
    rows = [row for row in workdir.read_rows(Path("run")) if "test_loss" in row]
    # 40 recordings are two and a half batches.
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 4)]


def test_a_net_for_your_own_pictures_says_what_it_sees(pictures, monkeypatch, capsys):
    arguments = ["--data", pictures, "--size", 32, "--batch-size", 16, "--no-flip", "--steps", 80]
    assert run(monkeypatch, images, *arguments) == 0
    files = [next(iter(sorted((pictures / str(digit)).iterdir()))) for digit in range(10)]
    capsys.readouterr()
    assert run(monkeypatch, predict, "--workdir", "runs/images/1", *files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"\S+\.png: (\d)   \1 [\d.]+%  \d [\d.]+%  \d [\d.]+%", line) for line in lines)
    assert sum(line.split(": ")[1][0] == str(digit) for digit, line in enumerate(lines)) >= 7


@pytest.mark.slow
def test_broken_pictures_stop_or_are_left_out(pictures, monkeypatch, capsys):
    folder = Path("mine")
    for digit in ("3", "8"):
        (folder / digit).mkdir(parents=True)
        for file in (pictures / digit).iterdir():
            (folder / digit / file.name).write_bytes(file.read_bytes())
    (folder / "3" / "torn.png").write_bytes(b"torn")
    arguments = ["--data", folder, "--size", 16, "--batch-size", 8, "--steps", 4]
    assert run(monkeypatch, images, *arguments) == 2
    assert "torn.png" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert run(monkeypatch, images, *arguments, "--skip-broken") == 0
    assert "left out: mine/3/torn.png cannot be read" in capsys.readouterr().out
    # Twenty pictures or fewer are seen many times an epoch: it is not over after three steps.
    assert [row["epoch"] for row in workdir.read_rows(Path("runs/images/1"))] == [1] * 4


@pytest.mark.slow
def test_streamed_pictures_train_as_those_in_memory(pictures, monkeypatch, capsys):
    arguments = ["--data", pictures, "--size", 16, "--batch-size", 8, "--steps", 4, "--workdir"]
    assert run(monkeypatch, images, *arguments, "memory") == 0
    assert run(monkeypatch, images, *arguments, "stream", "--stream") == 0
    assert rows("memory") == rows("stream")
    capsys.readouterr()
    assert run(monkeypatch, images, *arguments, "both", "--stream", "--skip-broken") == 2
    assert "--skip-broken reads all pictures first, which --stream does not." in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_another_experiment_is_named(pictures, monkeypatch, capsys):
    Image.new("RGB", (20, 20)).save("some.png")
    _, state = train.create(mnist.build("mlp", seed=0), optax.sgd(1.0))
    train.checkpoint.save(Path("sounds/checkpoints"), state, {"experiment": "spoken_digits", "epochs": 1})
    assert run(monkeypatch, predict, "some.png", "--workdir", "sounds") == 2
    assert "got sounds with one of experiments.spoken_digits." in capsys.readouterr().err
    arguments = ["--data", pictures, "--batch-size", 16, "--workdir", "sounds", "--resume"]
    assert run(monkeypatch, images, *arguments) == 2
    assert "the run in sounds has experiment 'spoken_digits', got 'images'." in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_for_its_own_epochs_and_on_its_own_data(recordings, monkeypatch, capsys):
    arguments = ["--data", recordings, "--width", 2, "--batch-size", 16, "--workdir", "run"]
    restore = interrupted(monkeypatch, after=1)
    assert run(monkeypatch, spoken_digits, *arguments, "--epochs", 2) == 130
    restore()
    fewer = Path("fewer")
    fewer.mkdir()
    for file in sorted(recordings.iterdir())[::2]:
        (fewer / file.name).write_bytes(file.read_bytes())
    arguments.append("--resume")
    capsys.readouterr()
    assert run(monkeypatch, spoken_digits, *arguments, "--data", fewer) == 2
    assert "the run in run has train_examples 40, got 20." in capsys.readouterr().err
    assert run(monkeypatch, spoken_digits, *arguments) == 0
    assert json.loads(Path("run/result.json").read_text())["epochs"] == 2


# What the numbers mean.


def test_dice_by_hand():
    truth = np.array([[0, 1, 1, 2, 0, 0]])
    found = np.array([[0, 1, 0, 2, 2, 2]])
    one_hot = np.eye(3)
    # Of class 1: 2 * 1 / (1 + 2); of class 2: 2 * 1 / (3 + 1).
    value = hippocampus.dice(jax.numpy.asarray(one_hot[found]), jax.numpy.asarray(one_hot[truth]))
    np.testing.assert_allclose(value, [[2 / 3, 1 / 2]], rtol=1e-6)
    nothing = jax.numpy.asarray(one_hot[np.zeros((1, 6), int)])
    np.testing.assert_array_equal(hippocampus.dice(nothing, nothing), [[1, 1]])


def test_what_volumes_are_filled_up_with_counts_nowhere():
    random = np.random.default_rng(0)
    volume = data.Volume("v", random.integers(0, 256, (5, 9, 8), np.uint8), random.integers(0, 3, (5, 9, 8), np.uint8))
    batch = hippocampus.whole(volume)
    assert batch["image"].shape == (1, 8, 16, 8, 1)
    assert batch["inside"].sum() == 5 * 9 * 8

    def everywhere(x):
        return jax.nn.one_hot(jax.numpy.full(x.shape[:-1], 1), 3) * 10

    class Constant:
        def __call__(self, x, *, train=False, key=None):
            return everywhere(x)

    found = hippocampus.look(Constant(), batch)
    ones = (volume.label == 1).sum()
    np.testing.assert_allclose(found["dice"], [[2 * ones / (volume.label.size + ones), 0]], rtol=1e-6)
    np.testing.assert_array_equal(found["label"], batch["inside"])
