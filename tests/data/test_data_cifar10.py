import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import cifar10, embedded, load

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def batch(labels, seed=0):
    """A binary batch, its pictures planes first, and the same pictures channels last."""
    planes = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    rows = np.concatenate([np.array(labels, np.uint8)[:, None], planes.reshape(len(labels), -1)], 1)
    return rows.tobytes(), planes.transpose(0, 2, 3, 1)


@pytest.fixture
def batches():
    """The six files, two records each."""
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
    return {name: batch([number, 9 - number], number) for number, name in enumerate(names)}


def check(train, test, batches):
    pictures = [pixels for _, pixels in batches.values()]
    np.testing.assert_array_equal(train["image"], np.concatenate(pictures[:5]))
    np.testing.assert_array_equal(test["image"], pictures[5])
    assert train["label"].tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert test["label"].tolist() == [5, 4]


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_binary_batches(tmp_path, batches, below):
    (tmp_path / below).mkdir(exist_ok=True)
    for name, (content, _) in batches.items():
        (tmp_path / below / name).write_bytes(content)
    train, test, source = cifar10.read(tmp_path)
    check(train, test, batches)
    assert source == "cifar10 from binary batches"
    loaded = load("cifar10", tmp_path)
    assert (loaded.source, loaded.class_names[3], len(loaded.train["label"])) == (source, "cat", 10)


def test_the_archive(tmp_path, batches):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in reversed(batches):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(batches[name][0])
            archive.addfile(member, io.BytesIO(batches[name][0]))
    check(*cifar10.read_archive(path), batches)


def test_jpegs(tmp_path):
    pictures = [np.full((32, 32, 3), level, np.uint8) for level in (10, 200, 90)]
    files = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "jpeg")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, files)])
    for split in ("train", "test"):
        labels = np.array([1, 2, 3], np.uint8)
        np.savez(tmp_path / f"cifar10_jpeg_{split}.npz", blob=np.concatenate(files), offsets=offsets, labels=labels)
    train, _, source = cifar10.read(tmp_path)
    assert source == "cifar10 from JPEGs"
    assert np.abs(train["image"].astype(int) - np.stack(pictures)).max() <= 2
    assert train["label"].tolist() == [1, 2, 3]


def test_the_shared_jpegs():
    if not (SHARED / "cifar10_jpeg_test.npz").is_file():
        pytest.skip("shared/data is not part of the project")
    examples = cifar10._read_jpegs(SHARED / "cifar10_jpeg_test.npz")
    assert np.bincount(examples["label"]).tolist() == [1000] * 10
    # Published for the original test pictures: 0.494, 0.485 and 0.450.
    np.testing.assert_allclose(examples["image"].mean((0, 1, 2)) / 255, [0.494, 0.485, 0.450], atol=0.002)


def test_what_is_wrong_is_told(tmp_path, batches):
    text = "must hold data_batch_1.bin to data_batch_5.bin and test_batch.bin, or cifar10_jpeg_train.npz"
    with pytest.raises(FileNotFoundError, match=text):
        cifar10.read(tmp_path)
    with pytest.raises(ValueError, match=r"x.bin must hold records of 3073 bytes, got 6145 bytes. Get it again"):
        cifar10.records("x.bin", batches["test_batch.bin"][0][:-1])
    with pytest.raises(ValueError, match=re.escape("cifar10: x.bin: labels must be 0 to 9, got 10 at example 1.")):
        cifar10.records("x.bin", batch([3, 10])[0])


def test_digits_stand_in():
    train, test = cifar10.stand_in()
    assert train["image"].shape == (4000, 32, 32, 3)
    np.testing.assert_array_equal(test["image"][:, 2:-2, 2:-2, 1], embedded.read()[1]["image"][..., 0])
    assert not test["image"][:, :2].any()
