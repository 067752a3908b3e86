"""experiments.mnist in two processes: the run of one, written once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from short_runs import rows

from experiments import mnist

ROOT = Path(__file__).parents[2]


def started(count, *arguments, devices=2):
    """The command in so many processes."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    several = ["--coordinator", address, "--num-processes", str(count), "--process-id"]
    command = [sys.executable, "-m", "experiments.mnist", "--data", "embedded", "--model", "mlp", *arguments]
    return [
        subprocess.Popen(
            [*command, *several, str(number)] if count > 1 else command,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]


def train_in(count, *arguments, devices=2):
    """Run the command in so many processes; what each said."""
    return finished(started(count, *arguments, devices=devices))


def finished(running, status=0):
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [status] * len(running), "\n".join(map(str, said))
    return said


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap", "sharded"])
def test_two_processes_make_one_run(parallel, tmp_path):
    arguments = ["--parallel", parallel, "--batch-size", "32", "--workdir"]
    said = train_in(2, *arguments, str(tmp_path / "two"), "--steps", "6")
    assert "test accuracy" in said[0][0]
    assert "accuracy" not in "".join(said[1])
    train_in(1, *arguments, str(tmp_path / "one"), "--steps", "6", devices=4)
    one, two = (mnist.load(tmp_path / name)[1] for name in ("one", "two"))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert abs(results[0]["test_correct"] - results[1]["test_correct"]) <= 2
    assert steps(tmp_path / "two") == list(range(1, 7))
    if parallel == "pmap":
        # It goes on in as many processes as there are now.
        train_in(1, *arguments, str(tmp_path / "two"), "--steps", "9", "--resume")
        assert steps(tmp_path / "two") == list(range(1, 10))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap", "sharded"])
def test_when_one_process_is_asked_to_stop_all_save_and_go_on_bit_for_bit(parallel, tmp_path):
    arguments = ["--parallel", parallel, "--batch-size", "32", "--steps", "600", "--save-minutes", "0.01", "--workdir"]
    train_in(2, *arguments, str(tmp_path / "whole"))
    running = started(2, *arguments, str(tmp_path / "stopped"))
    while not any(file.name.isdecimal() for file in tmp_path.glob("stopped/checkpoints/*")):
        assert [process.poll() for process in running] == [None, None]
        time.sleep(0.02)
    running[1].send_signal(signal.SIGTERM)
    said = finished(running, status=128 + signal.SIGTERM)
    assert "SIGTERM: saved. Go on with the same options and --workdir" in said[0][1]
    train_in(2, *arguments, str(tmp_path / "stopped"), "--resume")
    whole, stopped = (mnist.load(tmp_path / name)[1] for name in ("whole", "stopped"))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(stopped), strict=True):
        np.testing.assert_array_equal(a, b)
    assert rows(tmp_path / "whole") == rows(tmp_path / "stopped")


def steps(path):
    return [json.loads(row)["step"] for row in (path / "metrics.jsonl").read_text().splitlines()]


def test_several_processes_need_one_folder(monkeypatch, capsys):
    options = {"--coordinator": "127.0.0.1:1", "--num-processes": "2", "--process-id": "1"}
    monkeypatch.setattr(sys, "argv", ["mnist", *(word for option in options.items() for word in option)])
    with pytest.raises(SystemExit) as end:
        mnist.main()
    assert end.value.code == 2
    assert "several processes must share a run, got no --workdir" in capsys.readouterr().err
