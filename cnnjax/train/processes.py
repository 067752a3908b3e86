"""Several processes, on one host or many, that train as one."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 60,
) -> None:
    """Make this process one of several, whose devices the wrappers of `parallel` then use as one.

    Every process runs the same program with the same arguments but for its number, and calls this before anything else
    of JAX. On clusters that JAX detects by itself (Slurm, Open MPI, Cloud TPU, Kubernetes) leave all arguments out.
    Devices of CPUs talk through Gloo, those of NVIDIA through NCCL.

    Args:
        coordinator: HOST:PORT at which process 0 listens, as the others reach it.
        num_processes: how many there are, at least 1.
        process_id: the number of this one, from 0.
        timeout: seconds that it waits for the others, at least 1. Where they fail to come, JAX ends the process.

    Returns:
        None.

    Raises:
        ValueError: some arguments without the others, a number out of range, a coordinator that is no HOST:PORT, or no
            arguments where JAX detects no cluster.
        OSError: nobody listens at the coordinator's address, or in process 0 another program does.
        RuntimeError: JAX was used before.

    Example:
        >>> train.processes.join("10.0.0.1:8476", 4)
        Traceback (most recent call last):
        ValueError: join: coordinator, num_processes and process_id go together, got '10.0.0.1:8476', 4 and None. \
Give all three, or none on a cluster that JAX detects.

    Source:
        jax.distributed.
    """
    given = (coordinator, num_processes, process_id)
    if all(argument is None for argument in given):
        _detect(timeout)
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(
            f"join: coordinator, num_processes and process_id go together, got {coordinator!r}, {num_processes} and"
            f" {process_id}. Give all three, or none on a cluster that JAX detects."
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"join: process_id must be 0 to {num_processes - 1}, one of {num_processes} processes, got {process_id}."
            " Number them from 0."
        )
    host, port = _address(coordinator)
    # JAX would end the process with a dump of its stack.
    if process_id:
        _wait_for(host, port, timeout)
    else:
        _check_free(port)
    jax.distributed.initialize(coordinator, num_processes, process_id, initialization_timeout=timeout)


@contextmanager
def first() -> Iterator[None]:
    """Let process 0 work through a block before the others begin with it: it prepares what all of them read.

    Args:
        None.

    Returns:
        A context manager. In a process that is alone it does nothing.

    Raises:
        Nothing. An error in process 0 does not hold the others up.

    Example:
        >>> with train.processes.first():
        ...     print("prepared")
        prepared

    Source:
        jax.experimental.multihost_utils.
    """
    if jax.process_index():
        _meet()
    try:
        yield
    finally:
        if not jax.process_index():
            _meet()


def _meet() -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("cnnjax.train.processes.first")


def _detect(timeout: int) -> None:
    try:
        jax.distributed.initialize(initialization_timeout=timeout)
    except ValueError as error:
        raise ValueError(
            f"join: without arguments there must be a cluster that JAX detects, got: {error} Give coordinator,"
            " num_processes and process_id."
        ) from error


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"join: coordinator must be HOST:PORT, got {coordinator!r}. Name a free port of process 0.")
    return host.strip("[]"), int(port)


def _wait_for(host: str, port: int, timeout: int) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ConnectionError(
                    f"join: process 0 must listen at {host}:{port} within {timeout} seconds, got: {error}. Start it, or"
                    " correct the address."
                ) from error
            time.sleep(0.2)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        # As the coordinator itself does, so that one that has just ended is not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise OSError(f"join: port {port} must be free in process 0, got: {error}. Take another.") from error
