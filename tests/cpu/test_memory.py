"""Freed memory: kept for the next run where that is asked for, else given back to the system."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import re, resource, sys, time
from pathlib import Path
import jax, jax.numpy as jnp
import cnnjax

kept = cnnjax.accelerate(keep_memory=sys.argv[1] == "keep").keeps_memory
if sys.argv[1] == "no longer":
    cnnjax.accelerate(keep_memory=True)
    kept = cnnjax.accelerate(False).keeps_memory

def held():
    return int(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def run(x):  # with 256 MB in between: more than an arena of glibc holds
    row = jax.lax.optimization_barrier(jnp.arange(1 << 25, dtype=jnp.float32) + x)
    return (row * row[::-1]).sum()

x = jax.block_until_ready(jnp.float32(1))
run = jax.jit(run).lower(x).compile()
before, taken = held(), []
for _ in range(8):
    start = faults()
    run(x).block_until_ready()
    taken.append(faults() - start)
    time.sleep(0.1)  # XLA frees the memory after the result is there
print(int(kept), held() - before, taken[-1])
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc, here another C library")


@glibc
def test_a_large_block_is_kept_for_the_next_run():
    kept, megabytes, faults = _run("keep")
    assert kept
    assert megabytes >= 256
    assert faults < 1000  # the first run takes 65,000 pages


@glibc
@pytest.mark.parametrize("how", ["return", "no longer"])
def test_a_large_block_goes_back_to_the_system(how):
    kept, megabytes, _ = _run(how)
    assert not kept
    assert megabytes < 100


def _run(how: str) -> list[int]:
    """Whether memory is kept, the megabytes held after some runs, and how many pages the last one took."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]
