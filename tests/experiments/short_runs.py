"""Short runs of experiments.mnist, and what they leave behind."""

import gzip
import json
import struct
import sys
from pathlib import Path

import jax
import numpy as np

import cnnjax
from experiments import mnist

ROOT = Path(__file__).parents[2]
CLOCKS = ("seconds", "seconds_to_first_step", "examples_per_second")


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def run(monkeypatch, module, *arguments):
    """Run a command in this process; 0 or its exit status."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    try:
        module.main()
    except SystemExit as end:
        return end.code
    finally:
        cnnjax.accelerate(False)
    return 0


def fast(digits):
    return ["--data", digits, "--batch-size", 32, "--model", "mlp"]


def parameters(workdir):
    _, state = mnist.load(Path(workdir))
    return jax.tree.leaves((state.params, state.model_state, state.opt_state, state.step))


def assert_same_bits(one, other):
    for a, b in zip(parameters(one), parameters(other), strict=True):
        np.testing.assert_array_equal(a, b)


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def rows(workdir):
    """The metrics, without what differs from run to run."""
    lines = Path(workdir, "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in CLOCKS} for line in lines]
