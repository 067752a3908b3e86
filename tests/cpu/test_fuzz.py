"""The fuzz: 125 random convolutions with oneDNN (500 with those that are slow), 50 with plain JAX. See `fuzz.py`."""

import os
import shutil
import signal
import subprocess
import sys

import fuzz
import jax
import pytest

import cnnjax
from cnnjax.cpu import acceleration, probe

pytestmark = pytest.mark.skipif(
    not acceleration.knows_jax(), reason=f"accelerate() leaves jax {jax.__version__} alone, as it says"
)


@pytest.mark.parametrize(
    ("kernels", "first", "count"),
    [
        ("oneDNN", 0, 125),
        *(pytest.param("oneDNN", first, 125, marks=pytest.mark.slow) for first in (125, 250, 375)),
        ("plain", 500, 50),
    ],
)
def test_random_convolutions_and_their_gradients(tmp_path, kernels, first, count):
    if kernels == "oneDNN" and not probe.verdict().passed:
        pytest.skip(f"oneDNN is not used here: {probe.verdict().reason}")
    result = fuzz.run(tmp_path, count=count, first=first, kernels=kernels)
    assert result["checked"] == count
    assert result["deaths"] == result["failures"] == []
    assert result["compared_with_stock"] >= count // 10


# Batch, spatial, channels, outputs, groups, window, stride, padding, dilation, between: what the fuzz once found.
FOUND = {
    "one channel, a step beyond x": (3, (15, 1), 1, 64, 1, (3, 3), (1, 4), ((1, 1), (1, 1)), (1, 1), (1, 1)),
    "a step beyond x in depth": (
        31,
        (19, 6, 3),
        1,
        16,
        1,
        (3, 1, 2),
        (3, 1, 3),
        ((1, 1), (0, 0), (0, 1)),
        *[(1,) * 3] * 2,
    ),
    "negative padding": (16, (11, 18), 16, 32, 4, (6, 2), (3, 3), ((5, 4), (1, 0)), (1, 1), (1, 1)),
    "cropped to nothing": (2, (1, 15), 5, 5, 5, (4, 4), (1, 1), ((0, 6), (5, 1)), (2, 3), (3, 3)),
    "transposed in groups": (
        31,
        (3, 9, 1),
        40,
        72,
        8,
        (4, 4, 1),
        (1,) * 3,
        ((0, 0), (1, 3), (0, 0)),
        (1,) * 3,
        (2, 1, 1),
    ),
    "a long series, depthwise": (31, (643,), 17, 17, 17, (3,), (3,), ((0, 0),), (1,), (1,)),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_what_the_fuzz_found(found):
    c = fuzz.Configuration(*found, dtype="float32", channels_first=False)
    arrays = fuzz.operands(c, 0)
    cnnjax.accelerate()
    try:
        assert max(fuzz.errors(c, fuzz.computed(c, *arrays), arrays)) <= fuzz.LOWEST
    finally:
        cnnjax.accelerate(False)


def test_a_death_is_counted_and_the_rest_goes_on(tmp_path):
    log = tmp_path / "0-of-1.jsonl"
    log.write_text('{"begun": 0}\n{"number": 0, "errors": [0, 0, 0], "ok": true}\n{"begun": 1}\n')
    result = fuzz.run(tmp_path, count=3)
    assert [death["number"] for death in result["deaths"]] == [1]
    assert result["checked"] == 2


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, here called cc")
@pytest.mark.parametrize(("at", "status"), [("63", 0), ("4096", -signal.SIGSEGV), ("-4097", -signal.SIGSEGV)])
def test_a_write_beyond_an_array_ends_the_process(tmp_path, at, status):
    code = f"""
import ctypes
c = ctypes.CDLL(None)
for _ in range(50):
    block = ctypes.c_void_p()
    assert c.posix_memalign(ctypes.byref(block), 64, 64) == 0
    ctypes.memset(block.value + {at}, 1, 1)
    c.free(block)
"""
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | fuzz.guarded(tmp_path), check=False)
    assert run.returncode == status
