"""Stream: the batches of Batches, from what is read when it is needed."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cnnjax.data import Batches, PictureFiles, Stream, open_folder, read_folder, write_digits

ROOT = Path(__file__).parents[2]
EXAMPLES = {"x": np.arange(23, dtype=np.float32) ** 2, "name": np.arange(46).reshape(23, 2)}


class Rows:
    """The examples one by one, which counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __len__(self):
        return 23

    def __getitem__(self, place):
        self.asked += 1
        return {name: array[place] for name, array in EXAMPLES.items()}


def doubled(example):
    return {"x": 2 * example["x"]}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("share", [(0, 1), (0, 3), (2, 3)])
def test_the_batches_are_those_of_batches_in_any_order(share):
    stream = Stream(Rows(), 6, seed=3, share=share)
    batches = Batches(EXAMPLES, 6, seed=3, share=share)
    for step in (0, 1, 2, 3, 4, 5, 17, 18, 2, 10**9, 0):
        assert_same(stream(step), batches(step))


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_change_nothing(workers):
    stream = Stream(Rows(), 4, seed=0, workers=workers, read=doubled)
    batches = Batches({"x": 2 * EXAMPLES["x"]}, 4, seed=0)
    for step in (5, 6, 7, 8, 9, 10):
        assert_same(stream(step), batches(step))


def test_it_reads_ahead_and_no_further():
    rows = Rows()
    stream = Stream(rows, 5, seed=0, ahead=2)
    for step in range(4):
        stream(step)
    assert 4 * 5 <= rows.asked <= 4 * 5 + 3 * 5 + 4


def test_an_array_record_is_a_source(tmp_path):
    array_record = pytest.importorskip("array_record.python.array_record_module", reason="needs array_record")
    from grain.sources import ArrayRecordDataSource

    file = tmp_path / "numbers.array_record"
    writer = array_record.ArrayRecordWriter(str(file), "group_size:1")
    for number in range(7):
        writer.write(np.int32(number).tobytes())
    writer.close()
    stream = Stream(cast(Any, ArrayRecordDataSource([str(file)])), 3, seed=1, read=number_of)
    batches = Batches({"x": np.arange(7, dtype=np.int32)}, 3, seed=1)
    for step in range(5):
        assert_same(stream(step), batches(step))


def number_of(record):
    return {"x": np.frombuffer(record, np.int32)[0]}


def test_a_folder_of_pictures_is_a_source(tmp_path):
    write_digits(tmp_path / "digits", each=4)
    dataset = read_folder(tmp_path / "digits", size=8)
    train, test, names = open_folder(tmp_path / "digits", size=8)
    assert names == dataset.class_names
    assert_same(Stream(train, 5, seed=0)(3), Batches(dataset.train, 5, seed=0)(3))
    np.testing.assert_array_equal([test[place]["image"] for place in range(len(test))], dataset.test["image"])
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"torn")
    broken = PictureFiles([str(torn)], np.zeros(1, np.int32), 8)
    with pytest.raises(ValueError, match=r"read_picture: .*torn\.png cannot be read"):
        Stream(broken, 1, seed=0)(0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"ahead": 0}, "ahead must be at least 1, got 0"),
        ({"share": (1, 4)}, r"share must be \(i, n\) with i from 0 to n - 1 and n a divisor of the batch size, got"),
        ({"source": []}, "source must not be empty, got 0 examples"),
    ],
)
def test_bad_arguments_are_named(options, text):
    with pytest.raises(ValueError, match=f"Stream: {text}"):
        Stream(**{"source": Rows(), "batch_size": 6, "seed": 0, **options})
    with pytest.raises(ValueError, match=r"Stream: step must be at least 0, got -1"):
        Stream(Rows(), 6, seed=0)(-1)


def test_without_grain_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"Stream: grain is missing\. Run pip install 'cnnjax\[data\]'"):
        Stream(Rows(), 6, seed=0)


LIMITED = """
import os, resource, sys
import numpy as np
from cnnjax.data import Stream

class File:
    '''A file of 2.5 GB, of which this machine stores nothing: a megabyte an example.'''
    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
    def __len__(self):
        return 2500
    def __getitem__(self, place):
        return {"x": np.frombuffer(os.pread(self.file, 2**20, int(place) * 2**20), np.uint8)}

source = File(sys.argv[1])
stream = Stream(source, 10, seed=0)
stream(0)
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + 250 * 10**6,) * 2)
assert sum(len(stream(step)["x"]) for step in range(1, 251)) == 2500
try:
    everything = [source[place] for place in range(2500)]
except MemoryError:
    print("too much")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, to limit memory")
def test_data_of_ten_times_the_memory_is_read(tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as large:
        large.truncate(2500 * 2**20)
    done = subprocess.run([sys.executable, "-c", LIMITED, file], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "too much\n", done.stderr
