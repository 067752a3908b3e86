"""Two and four processes on this machine train what one does; and what is said when they do not find each other."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from train_helpers import first_gradients, trained

from cnnjax import train

SCRIPT = Path(__file__).with_name("process.py")
ROOT = SCRIPT.parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_what_one_does(count, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    commands = [[sys.executable, SCRIPT, address, str(count), str(number), tmp_path] for number in range(count)]
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **two_devices}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        for command in commands
    ]
    said = [process.communicate(timeout=600)[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * count, "\n".join(said)
    state, metrics = trained(train.parallel.jit, "ours", steps=20)
    gradients = jax.tree.leaves(first_gradients(train.parallel.jit))
    exact = jax.tree.leaves(((state.params, state.model_state), metrics))
    for name in ("jit", "pmap", "sharded"):
        for number in range(count):
            with np.load(tmp_path / f"{name}_{number}.npz") as arrays:
                found = list(arrays.values())
            for one, other in zip(exact, found[: len(exact)], strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
            for one, other in zip(gradients, found[len(exact) :], strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_coordinator_that_is_not_there_is_told():
    with pytest.raises(ConnectionError, match=r"join: process 0 must listen at 127\.0\.0\.1:\d+ within 1 seconds"):
        train.processes.join(f"127.0.0.1:{free_port()}", 2, 1, timeout=1)


def test_a_port_in_use_is_told():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"join: port {port} must be free in process 0, got: .*Take another"):
            train.processes.join(f"127.0.0.1:{port}", 2, 0, timeout=1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("127.0.0.1:80", 2, None), "coordinator, num_processes and process_id go together, got '127.0.0.1:80', 2 and"),
        (("127.0.0.1:80", 2, 2), "process_id must be 0 to 1, one of 2 processes, got 2"),
        (("127.0.0.1", 2, 0), "coordinator must be HOST:PORT, got '127.0.0.1'"),
        ((":80", 2, 0), "coordinator must be HOST:PORT, got ':80'"),
        (("host:99999", 2, 0), "coordinator must be HOST:PORT, got 'host:99999'"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=f"join: {text}"):
        train.processes.join(*arguments)


def test_without_a_cluster_the_arguments_are_asked_for():
    # In a process of its own, which has not used JAX yet.
    program = "from cnnjax import train\ntry: train.processes.join()\nexcept ValueError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.startswith("join: without arguments there must be a cluster that JAX detects, got: "), done
