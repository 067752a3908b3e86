import re

import numpy as np
import pytest

from cnnjax.data import cifar10, hippocampus, npz, spoken_digits


def written(path):
    np.savez_compressed(path, a=np.arange(1000), b=np.random.default_rng(0).integers(0, 9, 1000))
    return path.read_bytes()


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "text": lambda content: b"not an archive",
    "flipped": lambda content: content[:300] + bytes(byte ^ 0xFF for byte in content[300:340]) + content[340:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "some.npz"
    path.write_bytes(DAMAGES[damage](written(path)))
    text = rf"npz: {re.escape(str(path))} must be an \.npz file with the arrays a, b, got: .+\. Get it again\."
    with pytest.raises(ValueError, match=text):
        npz.read(path, "a", "b")


def test_a_missing_array_and_a_missing_file_are_told(tmp_path):
    path = tmp_path / "some.npz"
    with pytest.raises(ValueError, match=r"some\.npz must be .* got: .*No such file"):
        npz.read(path, "a")
    written(path)
    with pytest.raises(ValueError, match=r"some\.npz must be .* with the arrays a, c, got: .*c is not a file"):
        npz.read(path, "a", "c")
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(ValueError, match=r"one\.npy must be an \.npz file with the arrays a,"):
        npz.read(tmp_path / "one.npy", "a")


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (spoken_digits.read, ["fsdd.npz"]),
        (hippocampus.read, ["hippocampus3d.npz"]),
        (cifar10.read, ["cifar10_jpeg_train.npz", "cifar10_jpeg_test.npz"]),
    ],
)
def test_every_reader_tells(tmp_path, read, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"npz: .*{names[0]} must be an \.npz file with the arrays"):
        read(tmp_path)
