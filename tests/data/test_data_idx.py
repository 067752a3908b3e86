import gzip
import shutil

import numpy as np
import pytest
from idxfiles import idx_bytes, write_set

from cnnjax.data import idx

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("zipped", [True, False])
def test_four_files_are_read(tmp_path, zipped):
    written = write_set(tmp_path, zipped=zipped)
    for examples, (images, labels) in zip(idx.read(tmp_path), written.values(), strict=True):
        assert examples["image"].dtype == np.uint8
        assert examples["label"].dtype == np.int32
        np.testing.assert_array_equal(examples["image"], images[..., None])
        np.testing.assert_array_equal(examples["label"], labels)


def test_the_dotted_names_and_kaggles_folders_are_read(tmp_path):
    written = write_set(tmp_path, zipped=False)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
        (tmp_path / path.name).mkdir()
    train, _ = idx.read(tmp_path)
    np.testing.assert_array_equal(train["label"], written["train"][1])


def test_a_file_that_the_browser_unpacked_is_read_despite_its_name(tmp_path):
    written = write_set(tmp_path)
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    np.testing.assert_array_equal(idx.read(tmp_path)[0]["image"][..., 0], written["train"][0])


def test_other_image_sizes_are_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    assert idx.read_array(path, ndim=3).tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"idx: .*nowhere does not exist\. Give the folder"):
        idx.read(tmp_path / "nowhere")


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"idx: .*file is a file\. Give the folder"):
        idx.read(tmp_path / "file")


def test_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is empty\. It must hold the four files train-images-idx3-ubyte,"):
        idx.read(tmp_path)


def test_a_missing_file(tmp_path):
    write_set(tmp_path)
    (tmp_path / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks t10k-labels-idx1-ubyte\. It must hold"):
        idx.read(tmp_path)


def damaged_gzip(data):
    return data[:60] + b"\xff" * 20 + data[80:]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (TRAIN_IMAGES, lambda old: damaged_gzip(gzip.compress(old)), "is a damaged gzip file: .*Download it again"),
        (TRAIN_IMAGES, lambda old: gzip.compress(old)[:-30], "is a damaged gzip file: .*Download it again"),
        (
            TRAIN_IMAGES,
            lambda old: gzip.compress(old[:-1]),
            r"is cut short: its header says \(20, 28, 28\), 15680 .*15679",
        ),
        (TRAIN_IMAGES, lambda old: gzip.compress(old + b"x"), "is too long: .* 15680 bytes, got 15681"),
        (TRAIN_IMAGES, lambda old: gzip.compress(old[:9]), "is cut short within its header: 9 bytes"),
        (TRAIN_IMAGES, lambda _: b"", "is neither an idx nor a gzip file: it starts with b''"),
        (TRAIN_IMAGES, lambda _: b"<!DOCTYPE html>", "is neither an idx nor a gzip file: it starts with b'<!DO'"),
        (TRAIN_IMAGES, lambda old: b"\0\1" + old[2:], r"is neither an idx nor a gzip file: .*\\x00\\x01\\x08"),
        (TRAIN_IMAGES, lambda old: b"\0\0\x0d" + old[3:], r"unsigned bytes \(type code 0x08\), got float32 \(0x0D\)"),
        (TRAIN_IMAGES, lambda _: idx_bytes(np.zeros(20, np.uint8)), "must hold an array of 3 axes, got 1.*swapped"),
        (TRAIN_LABELS, lambda _: idx_bytes(np.zeros((20, 2, 2), np.uint8)), "must hold an array of 1 axes, got 3"),
        (TRAIN_LABELS, lambda _: idx_bytes(np.zeros(10, np.uint8)), "train has 20 images and 10 labels: .*another set"),
        (TEST_LABELS, lambda _: idx_bytes(np.zeros(20, np.uint8)), "t10k has 10 images and 20 labels: .*swapped"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, text):
    write_set(tmp_path, zipped=False)
    path = tmp_path / name
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=text) as error:
        idx.read(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_label_out_of_range_is_named_with_its_place_and_file(tmp_path):
    write_set(tmp_path, zipped=False)
    labels = np.zeros(20, np.uint8)
    labels[7] = 26
    (tmp_path / TRAIN_LABELS).write_bytes(idx_bytes(labels))
    with pytest.raises(ValueError, match=rf"{TRAIN_LABELS}: labels must be 0 to 9, got 26 at example 7"):
        idx.read(tmp_path)
    assert idx.read(tmp_path, classes=27)[0]["label"][7] == 26


def test_the_published_mnist_is_read(mnist_folder):
    train, test = idx.read(mnist_folder)
    assert train["image"].shape == (60000, 28, 28, 1)
    assert test["image"].shape == (10000, 28, 28, 1)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train["label"]).tolist() == counts
    assert train["label"][:5].tolist() == [5, 0, 4, 1, 9]
    # The mean pixel as everybody normalises by: 0.1307.
    assert train["image"].mean() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_published_files_swapped_are_refused(mnist_folder, tmp_path):
    for path in mnist_folder.iterdir():
        shutil.copy(path, tmp_path / path.name)
    shutil.copy(mnist_folder / f"{TEST_LABELS}.gz", tmp_path / f"{TRAIN_LABELS}.gz")
    with pytest.raises(ValueError, match="train has 60000 images and 10000 labels"):
        idx.read(tmp_path)
