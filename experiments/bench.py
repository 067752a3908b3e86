"""Time convolutions, pools, norms and whole train steps, stock, accelerated and in PyTorch, side by side in one run.

python -m experiments.bench                      everything: about 20 minutes on 2 cores
python -m experiments.bench --only "depthwise"   the workloads whose name matches
python -m experiments.bench --list               their names

Each contender has a process of its own with the same processors; they take turns, so that a slow minute of the machine
is everyone's. The folder of the run gets result.json, benchmarks.md and benchmarks.png.
"""

import datetime
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments import bench_report as report
from experiments import commandline, workdir, workloads
from experiments.bench_child import Child, Contender, Failure, repetitions

COMMAND = "experiments.bench"

TORCH = Contender("torch", "experiments.bench_torch.programs")
OPERATIONS = (
    Contender("stock", "experiments.bench_lax.stock"),
    Contender("accelerated", "experiments.bench_lax.ours", accelerate=True),
    TORCH,
)
NETS = (
    Contender("nnx", "experiments.bench_flax.stock"),
    Contender("nnx accelerated", "experiments.bench_flax.stock", accelerate=True),
    Contender("equinox", "experiments.bench_equinox.stock"),
    Contender("equinox accelerated", "experiments.bench_equinox.stock", accelerate=True),
    Contender("cnnjax", "experiments.bench_flax.ours", accelerate=True),
    TORCH,
)


@dataclass(frozen=True)
class Config:
    """Compare stock JAX, accelerated JAX and PyTorch."""

    only: str = ""
    """A regular expression: the workloads in whose name it is found."""
    list: bool = False
    """Print the names of the workloads and leave."""
    quick: bool = False
    """Fewer timings."""
    threads: int = 2
    """Processors that each contender may use."""
    workdir: Path | None = None
    """Folder of the run; by default a new runs/bench/NUMBER."""


@dataclass(frozen=True)
class Effort:
    """How often a contender is timed: from `least` to `most` times, and on average for `seconds`, never past `cap`."""

    least: int
    most: int
    seconds: float
    cap: float

    def enough(self, timings: Sequence[float], spent: float) -> bool:
        """Say whether these will do."""
        count = len(timings)
        settled = count >= self.least and spent >= self.seconds
        return settled or count >= self.most or (count >= 3 and spent >= self.cap)


FULL = Effort(least=10, most=30, seconds=1.0, cap=20.0)
QUICK = Effort(least=3, most=5, seconds=0.2, cap=5.0)


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        chosen = _choose(config)
        if config.list:
            print("\n".join(workload.name for workload in chosen))
            return
        path = config.workdir or workdir.fresh("bench")
        path.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {**_circumstances(config), "contenders": {}, "rows": []}
    children: dict[str, Child] = {}
    try:
        with commandline.interruption(COMMAND, f"What was timed is in {path / workdir.RESULT}."):
            for workload in chosen:
                contenders = NETS if workload.what == "train step" else OPERATIONS
                for contender in contenders:
                    _start(contender, children, result["contenders"], config.threads)
                taking_part = [children[c.name] for c in contenders if c.name in children]
                row = contest(taking_part, workload, QUICK if config.quick else FULL)
                result["rows"].append(row)
                print(report.line(row), flush=True)
                workdir.write_result(path, result)
    finally:
        for child in children.values():
            child.stop()
    print("\n" + "\n".join(report.summary(result["rows"])))
    (path / "benchmarks.md").write_text(report.markdown(result))
    report.chart(result).savefig(path / "benchmarks.png")
    print(f"\nin {path}: {workdir.RESULT}, benchmarks.md, benchmarks.png")


def contest(children: Sequence[Child], workload: workloads.Workload, effort: Effort) -> dict[str, Any]:
    """Time a workload in every child, in turns: a row of the result."""
    results: dict[str, Any] = {}
    running, timings, spent = {}, {}, {}
    for child in children:
        name = child.contender.name
        try:
            prepared = child.prepare(workload)
        except Failure as failure:
            results[name] = {"failure": str(failure)}
            continue
        results[name] = asdict(prepared)
        running[name], timings[name], spent[name] = child, [], 0.0
    while running:
        for name, child in list(running.items()):
            count = repetitions(results[name]["seconds"])
            try:
                timings[name].append(child.time(count) / workload.steps)
            except Failure as failure:
                results[name] = {"failure": str(failure)}
                del running[name]
                continue
            spent[name] += timings[name][-1] * workload.steps * count
            if effort.enough(timings[name], spent[name]):
                del running[name]
                results[name] |= report.statistics(timings[name]) | {"few": len(timings[name]) < effort.least}
    gflop = getattr(workload.case, "gflop", None)
    return {"name": workload.name, "group": workload.group, "gflop": gflop, "results": results}


def _choose(config: Config) -> list[workloads.Workload]:
    try:
        chosen = [workload for workload in workloads.ALL if re.search(config.only, workload.name)]
    except re.error as error:
        raise ValueError(f"--only must be a regular expression, got {config.only!r}: {error}.") from error
    if not chosen:
        raise ValueError(f"--only must match a workload, got {config.only!r}. See them with --list.")
    if not 1 <= config.threads <= _processors():
        raise ValueError(f"--threads must be 1 to {_processors()}, the processors here, got {config.threads}.")
    if config.workdir and (config.workdir / workdir.RESULT).exists():
        raise ValueError(f"{config.workdir} holds a run and is left alone. Name another --workdir.")
    return chosen


def _start(contender: Contender, children: dict[str, Child], greetings: dict[str, str], threads: int) -> None:
    """Start a contender that has not been tried yet; one that cannot start takes no part."""
    if contender.name in greetings:
        return
    child = Child(contender, threads)
    try:
        child.start()
        children[contender.name] = child
        greeting = child.greeting
    except Failure as failure:
        greeting = f"takes no part: {failure}"
    if greeting and greeting not in greetings.values():
        print(f"{contender.name}: {greeting}")
    greetings[contender.name] = greeting


def _circumstances(config: Config) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {config.threads} of {os.cpu_count()} processors, {platform.system()},"
        f" load {os.getloadavg()[0]:.1f} at the start",
        "threads": config.threads,
        "quick": config.quick,
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("cnnjax", "jax", "jaxlib", "flax", "equinox", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
