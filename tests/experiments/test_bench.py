"""python -m experiments.bench: contenders compute the same, statistics are right, deaths are told. No time counts."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from experiments import bench, bench_child, bench_flax, bench_lax, bench_report, workloads
from experiments import workloads_nets as nets
from experiments.bench_child import Child, Contender, Failure
from experiments.workloads import BatchNorm, Conv, Workload

TINY = Workload(Conv((1, 4, 4, 2), 3, 2), "forward")


def run(monkeypatch, *arguments):
    """Run the command; 0 or its exit status."""
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
    try:
        bench.main()
    except SystemExit as end:
        return end.code
    return 0


# Every contender computes the same.

OPERATIONS = [one for one in workloads.ALL if one.what != "train step" and not one.scan]
NORMS = [one for one in OPERATIONS if isinstance(one.case, BatchNorm)]
SMALL_NETS = (
    nets.Net(
        "everything",
        (4, 8, 8, 4),
        (
            *(nets.Conv(4, 8, bias=True), "relu", "max-pool"),
            nets.Residual((nets.Conv(8, 8, groups=8), nets.Norm(8)), (nets.Conv(8, 8, 1),)),
            nets.Residual(("relu",)),
            *("flatten", nets.Dense(4 * 4 * 8, 10)),
        ),
    ),
    nets.Net("3-D", (2, 6, 6, 6, 2), (nets.Conv(2, 4, stride=2), nets.Norm(4), "max-pool", "mean", nets.Dense(4, 3))),
)


def each(cases):
    return pytest.mark.parametrize("workload", cases, ids=[workload.name for workload in cases])


def small(workload):
    """The same computation on few pixels."""
    shape = workload.case.shape
    shape = (2, *(min(n, 9) for n in shape[1:-1]), shape[-1])
    return replace(workload, case=replace(workload.case, shape=shape), steps=1)


def results(programs):
    """What each program computes, as a tuple of arrays."""
    computed = [program.compile()() for program in programs]
    return [result if isinstance(result, tuple) else (result,) for result in computed]


def as_in_jax(tensor, workload):
    """A tensor of PyTorch with channels last; a kernel as (*window, C_in, C_out)."""
    array = tensor.numpy()
    if workload.what != "d-kernel":
        return np.moveaxis(array, 1, -1) if array.ndim > 2 else array
    if workload.case.transposed:
        array = np.flip(array, tuple(range(2, array.ndim))).swapaxes(0, 1)
    return np.moveaxis(array, (0, 1), (-1, -2))


@each(OPERATIONS)
def test_torch_computes_what_lax_computes(workload):
    pytest.importorskip("torch")
    from experiments import bench_torch

    workload = small(workload)
    (expected,) = results(bench_lax.stock(workload))
    for tensors in results(bench_torch.programs(workload)):
        for tensor, array in zip(tensors, expected, strict=False):  # lax returns the remembered statistics too.
            np.testing.assert_allclose(as_in_jax(tensor, workload), array, rtol=1e-3, atol=1e-4)


@each(NORMS)
def test_our_batch_norm_computes_what_that_of_flax_computes(workload):
    workload = small(workload)
    (expected,), (ours,) = results(bench_lax.stock(workload)), results(bench_lax.ours(workload))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("what", workloads.PASSES)
def test_every_step_of_a_scan_depends_on_the_one_before(what):
    workload = replace(small(Workload(workloads.SCANNED, what)), scan=True, steps=3)
    (scanned,) = results(bench_lax.stock(workload))[0]
    function, (first, other) = bench_lax._function(workload, bench_lax._flax_norm)
    expected = function(first, other)
    for _ in range(2):
        first = jnp.asarray(first).at[0, 0, 0, 0].set(expected.ravel()[0])
        expected = function(first, other)
    np.testing.assert_allclose(scanned, expected, rtol=1e-4, atol=1e-5)


def losses(programs):
    """The losses of three steps of each program."""
    runs = [program.compile() for program in programs]
    return [[float(run()) for _ in range(3)] for run in runs]


def assert_all_train_alike(net):
    workload = Workload(net, "train step")
    (expected,) = losses(bench_flax.stock(workload))
    assert expected[2] < expected[0]
    np.testing.assert_allclose(losses(bench_flax.ours(workload)), [expected], rtol=1e-3)
    for name, library in (("equinox", "bench_equinox.stock"), ("torch", "bench_torch.programs")):
        try:
            programs, _ = bench_child._load(Contender(name, f"experiments.{library}"))
        except ImportError:
            continue
        for found in losses(programs(workload)):
            np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("net", SMALL_NETS, ids=lambda net: net.name)
def test_all_libraries_train_alike(net):
    assert_all_train_alike(net)


@pytest.mark.slow
@pytest.mark.parametrize("net", workloads.NETS, ids=lambda net: net.name)
def test_all_libraries_train_the_real_nets_alike(net):
    assert_all_train_alike(replace(net, shape=(4, *net.shape[1:])))


def test_a_convolution_knows_its_arithmetic():
    dense = Conv((64, 32, 32, 64), 3, 128, stride=2)
    assert dense.output_shape == (64, 16, 16, 128)
    assert dense.gflop == pytest.approx(64 * 16 * 16 * 128 * 9 * 64 * 2 / 1e9)
    assert dense.name == "2-D 3x3 64->128 stride 2, 64x32x32"
    transposed = Conv((64, 16, 16, 128), 4, 64, stride=2, padding=1, transposed=True)
    assert transposed.output_shape == (64, 32, 32, 64)
    assert transposed.gflop == pytest.approx(64 * 16 * 16 * 128 * 16 * 64 * 2 / 1e9)
    assert Conv((2, 9, 9, 8), 5, 8, groups=8, padding=0).output_shape == (2, 5, 5, 8)
    assert Conv((2, 9, 9, 8), 3, 8, dilation=2).output_shape == (2, 9, 9, 8)


def test_every_row_has_a_name_and_a_group():
    names = [workload.name for workload in workloads.ALL]
    assert len(set(names)) == len(names)
    assert {workload.group for workload in workloads.ALL} == set(bench_report.GROUPS)


# Processes.

MORTAL = """
import os, signal, time
from experiments.bench_child import Program

def programs(workload):
    calls = []
    def run():
        calls.append(0)
        time.sleep(60 if workload.steps == 7 else 0.02)
        if workload.steps == 6 and len(calls) > 5:  # At most four to prepare.
            os._exit(3)
    if workload.what == "d-input":
        os.kill(os.getpid(), signal.SIGKILL)
    if workload.what == "d-kernel":
        raise ValueError("no such thing")
    return [Program(lambda: run, "slow"), Program(lambda: run, "slow too")]
"""


@pytest.fixture
def mortal(tmp_path, monkeypatch):
    (tmp_path / "mortal.py").write_text(MORTAL)
    monkeypatch.syspath_prepend(tmp_path)
    child = Child(Contender("mortal", "mortal.programs"), threads=1)
    yield child
    child.stop()


def test_a_dying_child_is_told_and_started_again(mortal):
    def contest(what, steps=1):
        row = bench.contest([mortal], Workload(TINY.case, what, steps=steps), bench.QUICK)
        return row["results"]["mortal"]

    assert contest("d-input") == {"failure": "died of SIGKILL"}
    assert contest("d-kernel") == {"failure": "ValueError: no such thing"}
    assert contest("forward", steps=6) == {"failure": "died of exit status 3"}
    found = contest("forward", steps=2)
    assert found["variant"].startswith("slow")
    assert found["timings"] >= bench.QUICK.least
    assert 10 <= found["min"] <= found["median"] <= found["max"]


def test_a_child_that_does_not_answer_is_ended(mortal, monkeypatch):
    mortal.start()
    monkeypatch.setattr(bench_child, "PATIENCE", 0.1)
    with pytest.raises(Failure, match="no answer in 0 s"):
        mortal.prepare(replace(TINY, steps=7))


def test_a_contender_that_is_not_installed_takes_no_part(capsys):
    children, greetings = {}, {}
    bench._start(Contender("missing", "no_such_library.programs"), children, greetings, threads=1)
    assert children == {}
    assert greetings == {"missing": "takes no part: ModuleNotFoundError: No module named 'no_such_library'"}
    assert greetings["missing"] in capsys.readouterr().out


def test_short_runs_are_repeated():
    calls = []
    assert bench_child.timed(lambda: calls.append(0), 5) > 0
    assert len(calls) == 5
    assert [bench_child.repetitions(seconds) for seconds in (0.004, 0.02, 3.0)] == [5, 1, 1]


@pytest.mark.parametrize(
    ("count", "spent", "enough"),
    [(9, 1.5, False), (10, 0.5, False), (10, 1.5, True), (30, 0.1, True), (2, 30, False), (3, 30, True)],
)
def test_effort(count, spent, enough):
    assert bench.FULL.enough([0.1] * count, spent) is enough


# What becomes of the timings.


def test_statistics():
    found = bench_report.statistics([0.001, 0.002, 0.003, 0.004])
    expected = {"median": 2.5, "lower": 1.75, "upper": 3.25, "min": 1, "max": 4, "timings": 4}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["unsettled"]
    assert not bench_report.statistics([0.010, 0.010, 0.010, 0.011])["unsettled"]


def test_geometric_mean():
    assert bench_report.geometric_mean([0.5, 2, 8]) == pytest.approx(2)


def row(name, group, **medians):
    """A row whose quartiles are 10 % around the medians."""
    results = {
        contender.replace("_", " "): {
            "median": median, "lower": 0.9 * median, "upper": 1.1 * median, "unsettled": False, "few": False,
            "compile_seconds": median, "first_seconds": 1.0, "memory": 0.1,
        }
        for contender, median in medians.items()
    }  # fmt: skip
    return {"name": name, "group": group, "gflop": None, "results": results}


ROWS = [
    row("a: forward", "forward", stock=8.0, accelerated=1.0, torch=2.0),
    row("b: forward", "forward", stock=4.0, accelerated=8.0, torch=1.0),
    row("c: forward", "in and out of scan", stock=1.0, accelerated=1.0),
    row("c: forward in scan", "in and out of scan", stock=3.0, accelerated=1.05),
    row("net, 4x8x8: train step", "train step", nnx=6.0, nnx_accelerated=2.0, torch=2.0),
    {**row("d: forward", "forward"), "results": {"stock": {"failure": "died of SIGABRT"}}},
]


def test_summary():
    lines = bench_report.summary(ROWS)
    assert lines[:7] == [
        "Time relative to torch, forward: stock 4.00, accelerated 2.00.",
        "Time relative to torch, train step: nnx 3.00, nnx accelerated 1.00.",
        "Times faster with acceleration, nnx: net 3.0.",
        "c: forward in scan, stock: 3.00 times as long as outside.",
        "c: forward in scan, accelerated: 1.05 times as long as outside.",
        "More than 3 times as long as torch: b: forward, accelerated: 8.0.",
        "Slower than without acceleration, quartiles apart: b: forward, accelerated: 2.00.",
    ]
    mean = (1 / 8 * 2 * 1 * 0.35 / 3) ** (1 / 5)
    assert lines[7] == f"Relative to stock, compilation: {mean:.2f}; at most 2.00 (b: forward, accelerated)."
    assert "peak memory: 1.00;" in lines[9]
    assert lines[10] == "Failures: d: forward, stock: died of SIGABRT."
    assert math.isclose(bench_report.ratio(ROWS[0], "stock", "torch") or 0, 4)


def result(rows):
    circumstances = {
        "date": "2026-01-02",
        "machine": "a machine",
        "threads": 2,
        "quick": False,
        "versions": {"jax": "1"},
    }
    return {**circumstances, "contenders": {"accelerated": "oneDNN"}, "rows": rows}


def test_markdown():
    text = bench_report.markdown(result(ROWS))
    for part in (
        "2026-01-02: a machine; jax 1.",
        "- accelerated: oneDNN",
        "## Train step",
        *bench_report.summary(ROWS),
    ):
        assert part in text
    assert "| a |  | 8 (7.2–8.8) | 1 (0.9–1.1) | 2 (1.8–2.2) |" in text
    assert "| a | 8.00, 1.00, 0 | 1.00, 1.00, 0 | 2.00, 1.00, 0 |" in text
    assert "| d |  | failed |  |  |" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_chart():
    figure = bench_report.chart(result(ROWS))
    forward, scan, train = (panel for panel in figure.axes if panel.get_visible())
    assert [panel.get_title() for panel in (forward, scan, train)] == ["forward", "in and out of scan", "train step"]
    stock, accelerated = forward.get_lines()[:2]
    np.testing.assert_allclose(np.array(stock.get_data()).T, [[4, 1], [4, 2]])
    np.testing.assert_allclose(np.array(accelerated.get_data()).T, [[8, 1], [0.5, 2]])
    assert [label.get_text() for label in train.get_yticklabels()] == ["net, 4x8x8"]


# The command.


def test_a_run_leaves_everything_behind(monkeypatch, capsys):
    monkeypatch.setattr(workloads, "ALL", (TINY, replace(TINY, what="d-kernel")))
    assert run(monkeypatch, "--quick", "--threads", 1, "--only", "kernel", "--workdir", "run") == 0
    shown = capsys.readouterr().out
    found = json.loads(Path("run/result.json").read_text())
    assert found["versions"]["jax"] == jax.__version__
    (only,) = found["rows"]
    assert only["name"] == "2-D 3x3 2->2, 1x4x4: d-kernel"
    assert only["name"] in shown
    for name in ("stock", "accelerated"):
        times = only["results"][name]
        assert 0 < times["min"] <= times["lower"] <= times["median"] <= times["upper"] <= times["max"]
        assert 0 < times["compile_seconds"] < times["first_seconds"]
    assert "- accelerated: " in Path("run/benchmarks.md").read_text()
    assert Path("run/benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_list(monkeypatch, capsys):
    assert run(monkeypatch, "--list", "--only", "LeNet|depthwise 7x7") == 0
    kinds = ("forward", "d-input", "d-kernel")
    expected = [*(f"depthwise 7x7 64->64, 16x32x32: {kind}" for kind in kinds), "LeNet, 128x28x28: train step"]
    assert capsys.readouterr().out.splitlines() == expected
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing like it"], "--only must match a workload, got 'nothing like it'. See them with --list."),
        (["--only", "("], "--only must be a regular expression, got '(': "),
        (["--threads", "0"], "--threads must be 1 to "),
        (["--workdir", "."], ". holds a run and is left alone. Name another --workdir."),
    ],
)
def test_bad_input_is_one_line(arguments, message, monkeypatch, capsys):
    Path("result.json").write_text("{}")
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"experiments.bench: {message}")
    assert error.count("\n") == 1
