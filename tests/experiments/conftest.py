"""What the tests of experiments share: a few digits, and a folder of its own for each."""

import pytest
from short_runs import write_idx

from cnnjax import data


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder of idx files with 320 and 60 of the embedded digits."""
    folder = tmp_path_factory.mktemp("idx")
    dataset = data.load("mnist", "embedded")
    for name, examples, count in (("train", dataset.train, 320), ("t10k", dataset.test, 60)):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", examples["image"][:count, :, :, 0])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", examples["label"][:count])
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
