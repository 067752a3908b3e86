"""The processes of experiments.bench: every contender has one, which makes programs, times them and may die."""

import contextlib
import ctypes
import importlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from experiments.workloads import Workload

SHORTEST = 0.02
"""Seconds that a timing lasts at least: what is quicker runs several times."""
WARM_UP = 0.2
"""Seconds of runs before a timing: threads that slept while others had their turn first share one processor."""
PATIENCE = 300.0
"""Seconds after which a child that does not answer is ended."""


@dataclass(frozen=True)
class Program:
    """A workload in one library, its inputs at hand."""

    compile: Callable[[], Callable[[], Any]]
    """Compiles, and returns what runs it once and waits for the result."""
    variant: str = ""
    """What tells it from the library's other programs for the same workload."""


@dataclass(frozen=True)
class Contender:
    """A library, with or without acceleration."""

    name: str
    programs: str
    """Dotted name of the function that makes its programs of a workload: the quickest one counts."""
    accelerate: bool = False


@dataclass(frozen=True)
class Prepared:
    """What a child says of a workload that is ready to be timed."""

    variant: str
    compile_seconds: float
    first_seconds: float
    """Of the first run, compilation included."""
    memory: float | None
    """Peak of a further run beyond what its process held before, in MB; None where the system does not say."""
    seconds: float
    """Of a run, roughly."""


class Failure(Exception):
    """A contender could not do what it was asked: it raised, died, or did not answer."""


class Child:
    """The parent's end: a process that is started again for the next workload when it has died."""

    def __init__(self, contender: Contender, threads: int):
        self.contender = contender
        self.greeting = ""
        self._threads = threads
        self._process: Any = None
        self._connection: Any = None

    def start(self) -> None:
        """Start the process; what its library says of itself is in `greeting`."""
        # Not fork: XLA and OpenMP have threads, and must not see more processors than the child may use.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self.contender, self._threads), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.greeting = self._answer()
        except Failure:
            self.stop()
            raise

    def prepare(self, workload: Workload) -> Prepared:
        """Make the workload's program, compile it, and run it a few times."""
        if self._process is None:
            self.start()
        return Prepared(**self._ask(workload))

    def time(self, repetitions: int) -> float:
        """Time a run of the latest program: the mean of some repetitions, in seconds."""
        return self._ask(repetitions)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def _ask(self, question: Workload | int) -> Any:
        with contextlib.suppress(ConnectionError):  # A death shows in the answer.
            self._connection.send(question)
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._connection.poll(PATIENCE):
                self.stop()
                raise Failure(f"no answer in {PATIENCE:.0f} s")
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
            raise Failure(f"died of {signal.Signals(-code).name if code < 0 else f'exit status {code}'}") from None
        if isinstance(answer, Failure):
            raise answer
        return answer


def serve(connection: Connection, contender: Contender, threads: int) -> None:
    """Answer a parent: a workload by preparing it, a number by timing so many runs of it. What is raised is sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children.
    _limit(threads)
    try:
        programs, answer = _load(contender)
    except Exception as error:
        connection.send(_failure(error))
        return
    run: Callable[[], Any] = lambda: None  # noqa: E731
    while True:
        connection.send(answer)
        try:
            question = connection.recv()
        except EOFError:
            return
        try:
            if isinstance(question, Workload):
                run = lambda: None  # noqa: E731  the last program's memory is not this one's
                run, prepared = quickest(programs(question))
                answer = asdict(prepared)
            else:
                answer = timed(run, question, WARM_UP)
        except Exception as error:
            answer = _failure(error)


def quickest(programs: list[Program]) -> tuple[Callable[[], Any], Prepared]:
    """Prepare every program, and keep the one that runs in the shortest time."""
    return min((_prepare(program) for program in programs), key=lambda pair: pair[1].seconds)


def timed(run: Callable[[], Any], repetitions: int, warm_up: float = 0.0) -> float:
    """Take the mean time of so many runs, in seconds, after at least so many seconds of others."""
    warm = time.perf_counter() + warm_up
    while time.perf_counter() < warm:
        run()
    start = time.perf_counter()
    for _ in range(repetitions):
        run()
    return (time.perf_counter() - start) / repetitions


def repetitions(seconds: float) -> int:
    """Say how many runs of so many seconds make a timing."""
    return max(1, math.ceil(SHORTEST / seconds))


def _prepare(program: Program) -> tuple[Callable[[], Any], Prepared]:
    start = time.perf_counter()
    run = program.compile()
    compiled = time.perf_counter()
    run()
    first = time.perf_counter()
    before = _forget_peak()
    seconds = timed(run, 1)
    memory = None if before is None else _resident("VmHWM") - before
    # The second run of a short program says little.
    seconds = min(seconds, timed(run, repetitions(seconds), WARM_UP)) if seconds < 0.1 else seconds
    return run, Prepared(program.variant, compiled - start, first - start, memory, seconds)


def _limit(threads: int) -> None:
    # XLA makes as many threads as there are processors to run on; OpenMP reads the variable when it is loaded.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _load(contender: Contender) -> tuple[Callable[[Workload], list[Program]], str]:
    module, _, name = contender.programs.rpartition(".")
    programs = getattr(importlib.import_module(module), name)
    if not contender.accelerate:
        return programs, ""
    import cnnjax

    return programs, repr(cnnjax.accelerate(keep_memory=True))


def _failure(error: Exception) -> Failure:
    lines = str(error).splitlines() or [""]
    return Failure(f"{type(error).__name__}: {lines[0][:200]}")


def _forget_peak() -> float | None:
    """Give free memory back, forget the peak, and say how much is held, in MB."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _resident("VmRSS")


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
