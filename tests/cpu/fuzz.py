"""Random convolutions, accelerated, against NumPy in float64.

python tests/cpu/fuzz.py --folder runs/fuzz --count 20000 --jobs 2

Each configuration is drawn from its number alone: rank, sizes, window, stride, padding, dilation, groups, dtype and
layout. Its value and both gradients must be no further from the truth than four times stock XLA is. Child processes
work through the numbers and write down each before they begin it, so a death names its configuration, and a run that
was stopped goes on where it was.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
from jax import lax

import cnnjax
from cnnjax.cpu import probe

LIMIT = 120.0  # seconds for one configuration
REPEATS = 4
# What is compiled lightly computes the same, and six times as many configurations an hour.
LIGHTLY = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": False}
# Without a C compiler for guard.c: glibc looks at the ends of each block of memory when that is freed.
GLIBC = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
LOWEST = 2.0**-21  # relative to the sum of absolute products: rounding that needs no comparison
SCALES = {"float32": 1.0, "bfloat16": 2.0**16, "float16": 2.0**13, "float64": 2.0**-29}


@dataclass(frozen=True)
class Configuration:
    """One call of lax.conv_general_dilated. Spatial sizes are per axis."""

    batch: int
    spatial: tuple[int, ...]
    channels: int
    outputs: int
    groups: int
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    between: tuple[int, ...]  # lhs_dilation
    dtype: str
    channels_first: bool

    @property
    def out(self) -> tuple[int, ...]:
        parts = zip(self.spatial, self.window, self.stride, self.padding, self.dilation, self.between, strict=True)
        return tuple(((n - 1) * b + 1 + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, p, d, b in parts)

    @property
    def products(self) -> int:
        return self.batch * int(np.prod(self.out) * np.prod(self.window)) * self.channels * self.outputs // self.groups


def draw(number: int) -> Configuration:
    """The configuration of a number."""
    random = np.random.default_rng(number)
    while True:
        configuration = _draw(random)
        if min(configuration.out) >= 1 and configuration.products < 3e7:
            return configuration


def _draw(random: np.random.Generator) -> Configuration:
    rank = int(random.choice([1, 2, 2, 3]))
    integers = lambda low, high: tuple(int(n) for n in random.integers(low, high + 1, rank))  # noqa: E731
    same = lambda values: (values[0],) * rank if random.random() < 0.6 else values  # noqa: E731
    kind = random.choice(["dense", "depthwise", "grouped", "pointwise"], p=[0.45, 0.25, 0.2, 0.1])
    some = lambda: int(random.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 33, 64]))  # noqa: E731
    channels, outputs, groups = some(), some(), 1
    if kind == "depthwise":
        groups, outputs = channels, channels * int(random.choice([1, 1, 2, 3]))
    elif kind == "grouped":
        groups = int(random.choice([2, 3, 4, 8]))
        channels, outputs = groups * int(random.integers(1, 10)), groups * int(random.integers(1, 10))
    window = (1,) * rank if kind == "pointwise" else same(integers(1, 7 if rank < 3 else 4))
    plain = random.random() < 0.4
    stride = (1,) * rank if plain else same(integers(1, 4))
    dilation = (1,) * rank if random.random() < 0.7 else same(integers(1, 3))
    between = (1,) * rank
    if random.random() < 0.15:
        stride, between = (1,) * rank, same(integers(1, 3))
    reach = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
    padding = tuple((int(random.integers(0, r + 1)), int(random.integers(0, r + 1))) for r in reach)
    if random.random() < 0.5:
        padding = tuple((r // 2, r - r // 2) for r in reach)
    largest = ((64, 20, 9), (512, 64, 20))[int(random.random() < 0.15)]
    return Configuration(
        batch=int(random.choice([1, 2, 3, 5, 8, 16, 31])),
        spatial=integers(1, largest[rank - 1]),
        channels=channels,
        outputs=outputs,
        groups=groups,
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        between=between,
        dtype=str(random.choice(["float32", "bfloat16", "float16", "float64"], p=[0.8, 0.08, 0.06, 0.06])),
        channels_first=bool(random.random() < 0.15),
    )


def operands(c: Configuration, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, kernel and the gradient of the output, channels last, in float64 but exact in the configuration's dtype."""
    random = np.random.default_rng([number, 1])
    dtype = np.dtype(getattr(ml_dtypes, c.dtype, None) or c.dtype)
    shapes = (
        (c.batch, *c.spatial, c.channels),
        (*c.window, c.channels // c.groups, c.outputs),
        (c.batch, *c.out, c.outputs),
    )
    x, kernel, dy = (random.normal(size=shape).astype(np.float32).astype(dtype).astype(np.float64) for shape in shapes)
    return x, kernel, dy


def truth(c: Configuration, x: np.ndarray, kernel: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
    """The convolution and its two gradients, tap by tap in float64."""
    per = c.channels // c.groups, c.outputs // c.groups
    spread = np.zeros((c.batch, *((n - 1) * b + 1 for n, b in zip(c.spatial, c.between, strict=True)), c.channels))
    pixels = (slice(None), *(slice(None, None, b) for b in c.between))
    spread[pixels] = x
    low_high = ((0, 0), *c.padding, (0, 0))
    padded = np.pad(spread, low_high)
    d_padded, y, d_kernel = np.zeros_like(padded), np.zeros_like(dy), np.zeros_like(kernel)
    split = lambda array, groups: array.reshape(*array.shape[:-1], groups, -1)  # noqa: E731
    weights = split(kernel, c.groups)  # (*window, inputs, groups, outputs)
    for tap in product(*map(range, c.window)):
        start = [k * d for k, d in zip(tap, c.dilation, strict=True)]
        seen = (
            slice(None),
            *(slice(a, a + (o - 1) * s + 1, s) for a, o, s in zip(start, c.out, c.stride, strict=True)),
        )
        part = split(padded[seen], c.groups)
        y += np.einsum("...gi,igo->...go", part, weights[tap], optimize=True).reshape(y.shape)
        back = np.einsum("...go,igo->...gi", split(dy, c.groups), weights[tap], optimize=True)
        d_padded[seen] += back.reshape(*back.shape[:-2], -1)
        flat = part.reshape(-1, c.groups, per[0]), split(dy, c.groups).reshape(-1, c.groups, per[1])
        d_kernel[tap] = np.einsum("pgi,pgo->igo", *flat, optimize=True).reshape(per[0], -1)
    inner = (slice(None), *(slice(p[0], p[0] + n) for p, n in zip(c.padding, spread.shape[1:-1], strict=True)))
    return y, d_padded[inner][pixels], d_kernel


def computed(
    c: Configuration, x: np.ndarray, kernel: np.ndarray, dy: np.ndarray, options: Mapping[str, Any] = LIGHTLY
) -> tuple[np.ndarray, ...]:
    """The same by lax, as it is compiled now with these options of XLA."""
    rank = len(c.window)
    axes = "DHW"[-rank:]
    first, last = (f"NC{axes}", f"OI{axes}", f"NC{axes}"), (f"N{axes}C", f"{axes}IO", f"N{axes}C")

    def convolution(x: Any, kernel: Any) -> Any:
        if c.channels_first:
            x, kernel = x.transpose(0, rank + 1, *range(1, rank + 1)), kernel.transpose(rank + 1, rank, *range(rank))
        y = lax.conv_general_dilated(
            x,
            kernel,
            c.stride,
            c.padding,
            lhs_dilation=c.between,
            rhs_dilation=c.dilation,
            dimension_numbers=first if c.channels_first else last,
            feature_group_count=c.groups,
        )
        return y.transpose(0, *range(2, rank + 2), 1) if c.channels_first else y

    @partial(jax.jit, compiler_options=dict(options))
    def all_three(x: Any, kernel: Any, dy: Any) -> Any:
        y, back = jax.vjp(convolution, x, kernel)
        return y, *back(dy)

    with jax.enable_x64(c.dtype == "float64"):
        dtype = jax.numpy.dtype(c.dtype)
        # By NumPy: jax.numpy compiles a program for the conversion of every shape.
        arrays = [jax.device_put(array.astype(dtype)) for array in (x, kernel, dy)]
        # Several times, for a kernel that writes beyond its output does no harm at first.
        results = [all_three(*arrays) for _ in range(REPEATS)][-1]
        return tuple(np.asarray(result, np.float64) for result in results)


def errors(
    c: Configuration, results: tuple[np.ndarray, ...], arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> list[float]:
    """The largest error of value, d-input and d-kernel, over the sum of the absolute products, in units of float32."""
    exact, size = truth(c, *arrays), truth(c, *map(np.abs, arrays))
    scale = SCALES[c.dtype]
    return [
        float(np.max(np.abs(got - want) / np.maximum(absolute, 1e-30))) / scale if want.size else 0.0
        for got, want, absolute in zip(results, exact, size, strict=True)
    ]


def check(number: int, every: int = 10) -> dict[str, Any]:
    """Compute one configuration accelerated, and where its rounding is not plainly that of its dtype, in stock XLA."""
    c = draw(number)
    arrays = operands(c, number)
    cnnjax.accelerate()
    ours = errors(c, computed(c, *arrays), arrays)
    record: dict[str, Any] = {"number": number, "errors": ours, "ok": True}
    if number % every == 0 or not max(ours) <= LOWEST:
        cnnjax.accelerate(False)
        # XLA's own loops for groups take minutes where they are compiled lightly.
        stock = errors(c, computed(c, *arrays, options={}), arrays)
        record["stock"] = stock
        record["ok"] = all(a <= max(4 * b, LOWEST) for a, b in zip(ours, stock, strict=True))
    return record


def child(kernels: str, first: int, end: int, step: int, log: Path) -> None:
    """Check the numbers first, first + step, ... and append what came of each to the log."""
    if kernels == "plain":
        probe.verdict = lambda: probe.Verdict(False, "the fuzz says so")
    with log.open("a") as file:
        for number in range(first, end, step):
            print(json.dumps({"begun": number}), file=file, flush=True)
            print(json.dumps(check(number)), file=file, flush=True)


def run(
    folder: Path, count: int = 500, first: int = 0, jobs: int = 1, kernels: Literal["oneDNN", "plain"] = "oneDNN"
) -> dict[str, Any]:
    """Check `count` configurations in `jobs` child processes, going on where the folder's logs end."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | guarded(folder)
    logs = [folder / f"{job}-of-{jobs}.jsonl" for job in range(jobs)]
    running: dict[int, subprocess.Popen[bytes]] = {}

    def start(job: int) -> None:
        """Behind the last number that was begun: one that ended its process is not tried again."""
        begin = max((n + jobs for n in _read(logs[job])[1]), default=first + job)
        if begin < first + count:
            numbers = map(str, (begin, first + count, jobs))
            logs[job].touch()  # its age is how long the child has been silent
            command = [sys.executable, __file__, "--child", kernels, *numbers, str(logs[job])]
            running[job] = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    for job in range(jobs):
        start(job)
    while running:
        time.sleep(0.5)
        for job, process in list(running.items()):
            if logs[job].exists() and time.time() - logs[job].stat().st_mtime > LIMIT:
                process.kill()
            if process.poll() is not None:
                del running[job]
                start(job)
    return report(logs)


def guarded(folder: Path) -> dict[str, str]:
    """What to set for a process that shall end where it writes beyond an array."""
    compiler, library = shutil.which("cc"), (folder / "guard.so").resolve()
    if compiler is None:
        return GLIBC
    source = Path(__file__).with_name("guard.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def report(logs: list[Path]) -> dict[str, Any]:
    """How many were checked, which failed or died, and the largest errors."""
    records: dict[int, dict[str, Any]] = {}
    begun: set[int] = set()
    for log in logs:
        some, numbers = _read(log)
        records |= some
        begun |= numbers
    compared = [r for r in records.values() if "stock" in r]
    ratios = [a / max(b, LOWEST / 4) for r in compared for a, b in zip(r["errors"], r["stock"], strict=True)]
    return {
        "checked": len(records),
        "deaths": [asdict(draw(n)) | {"number": n} for n in sorted(begun - set(records))],
        "failures": [asdict(draw(n)) | r for n, r in sorted(records.items()) if not r["ok"]],
        "largest_error": [max((r["errors"][i] for r in records.values()), default=0.0) for i in range(3)],
        "compared_with_stock": len(compared),
        "largest_ratio_to_stock": max(ratios, default=0.0),
    }


def _read(log: Path) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """The records of a log, and the numbers that were begun."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {r["number"]: r for r in lines if "number" in r}, {r["begun"] for r in lines if "begun" in r}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        begin, stop, every_so_many = map(int, sys.argv[3:6])
        child(sys.argv[2], begin, stop, every_so_many, Path(sys.argv[6]))
    else:
        import tyro

        print(json.dumps(tyro.cli(run), indent=1))
