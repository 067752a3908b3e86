"""Whether the oneDNN that jaxlib carries can be trusted on this machine.

Its calls are no documented contract, and one that goes wrong may end the process or never return. So another process
makes some, compares them with XLA's own, and the answer is kept on disk for this jaxlib, CPU and cnnjax.
"""

import functools
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from cnnjax.cpu import onednn
from cnnjax.cpu.geometry import Geometry, convolve

_LIMIT = 60.0  # seconds, where about 4 will do
_TOLERANCE = 1e-5  # of the largest value: float32, at most a thousand terms a sum
_CRASHES = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGTRAP"}  # its own doing: others were sent to it
_INSIDE = "CNNJAX_INSIDE_PROBE"


@dataclass(frozen=True)
class Verdict:
    """Whether oneDNN may be called, and why or why not, in one line."""

    passed: bool
    reason: str


@functools.cache
def verdict() -> Verdict:
    """Whether oneDNN may be called here: found on disk, or else asked of another process, which takes some seconds."""
    if obstacle := _obstacle():
        return Verdict(False, obstacle)
    # Two checkouts of one version may ask for different calls.
    key = {"jaxlib": _version("jaxlib"), "cnnjax": _version("cnnjax"), "cpu": _cpu(), "calls": _digest(repr(_CALLS))}
    return judge(_file(key), key, _command(), _LIMIT)


def judge(file: Path, key: dict[str, str], command: Sequence[str], limit: float) -> Verdict:
    """The verdict that `file` holds for `key`, or else what `command` answers within `limit` seconds."""
    found = _recall(file, key)
    if found is None:
        try:
            found = _ask(command, limit)
        except (OSError, ValueError) as error:  # says nothing about oneDNN, so the next process asks again
            return Verdict(False, f"the probe of oneDNN gave no answer ({error}): using plain JAX")
        if not _remember(file, key, found):
            return replace(found, reason=f"{found.reason} (not remembered: {file} cannot be written)")
    if found.passed:
        return found
    return replace(found, reason=f"{found.reason}: using plain JAX (delete {file} to probe again)")


def _obstacle() -> str:
    """Why not even to ask, or nothing."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        return f"oneDNN is for x86-64 Linux, this is {machine} {system}"
    if _INSIDE in os.environ:  # a sitecustomize that calls accelerate() would otherwise probe without end
        return "this is the process that probes oneDNN"
    if not sys.executable or hasattr(sys, "frozen"):
        return "oneDNN cannot be probed: there is no Python to start"
    return ""


# What the verdict is kept under.


def _version(package: str) -> str:
    """Of what is loaded, which the metadata of an editable or a frozen package may not know."""
    return sys.modules[package].__version__


def _cpu() -> str:
    """The CPU's name with a hash of what it can do: under a hypervisor many are called "AMD EPYC"."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    return f"{fields.get('model name', 'unknown')}, {_digest(fields.get('flags', ''))}"


def _file(key: dict[str, str]) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # Relative where there is no home: then below the root, where nobody can write, and not in the folder of the moment.
    return Path("/", home, "cnnjax", f"onednn-{_digest(json.dumps(key))}.json")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _recall(file: Path, key: dict[str, str]) -> Verdict | None:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        return _read(fields["verdict"]) if fields["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(file: Path, key: dict[str, str], found: Verdict) -> bool:
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps({"key": key, "verdict": asdict(found)}), encoding="utf-8")
            part.replace(file)  # whole or not at all, whoever else writes it now
        finally:
            part.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _read(fields: object) -> Verdict:
    match fields:
        case {"passed": bool(passed), "reason": str(reason)}:
            return Verdict(passed, reason)
    raise ValueError("no verdict")


# The other process, seen from this one.


def _command() -> list[str]:
    """Import from where this process does; not `-m`, which would load this file a second time."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from cnnjax.cpu import probe; print(probe.answer())"
    return [sys.executable, *["-I"] * sys.flags.isolated, "-W", "ignore", "-c", code]


def _environment() -> dict[str, str]:
    """Ours, without what is set for this process's JAX: devices, caches, dumps, checks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    return kept | {"JAX_PLATFORMS": "cpu", _INSIDE: "1"}


def _ask(command: Sequence[str], limit: float) -> Verdict:
    """Raises OSError or ValueError where the process could not tell anything about oneDNN."""
    try:
        run = subprocess.run(
            command, env=_environment(), timeout=limit, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(False, f"the probe of oneDNN took longer than {limit:g} s")
    if run.returncode < 0:
        name = signal.Signals(-run.returncode).name
        if name in _CRASHES:
            return Verdict(False, f"the probe of oneDNN ended by {name}")
        raise ValueError(f"ended by {name}")
    if run.returncode:
        raise ValueError(f"exit status {run.returncode}: {_last_line(run.stderr)}")
    try:
        return _read(json.loads(_last_line(run.stdout)))
    except ValueError:
        raise ValueError(f"it printed {_last_line(run.stdout)!r}") from None


def _last_line(output: bytes) -> str:
    return output.decode(errors="replace").strip().rpartition("\n")[2]


# The other process, seen from within.

# x, kernel, stride, padding, dilation, groups: odd channels, causal, depthwise, LeNet, ResNet, pointwise, grouped, 3-D;
# at last windows of many rows, as gradients of kernels use them.
_CONVOLUTIONS = [
    ((1, 17, 3), (4, 3, 5), (1,), [(0, 0)], (1,), 1),
    ((3, 40, 16), (9, 16, 32), (1,), [(8, 0)], (1,), 1),
    ((2, 33, 7), (3, 7, 6), (2,), [(2, 1)], (3,), 1),
    ((2, 20, 24), (5, 1, 24), (1,), [(2, 2)], (1,), 24),
    ((2, 14, 14, 6), (5, 5, 6, 16), (1, 1), [(0, 0)] * 2, (1, 1), 1),
    ((4, 28, 28, 1), (3, 3, 1, 32), (1, 1), [(1, 1)] * 2, (1, 1), 1),
    ((1, 30, 31, 3), (7, 7, 3, 64), (2, 2), [(2, 3), (3, 2)], (1, 1), 1),
    ((8, 16, 16, 32), (3, 3, 32, 64), (1, 1), [(1, 1)] * 2, (1, 1), 1),
    ((1, 4, 4, 100), (3, 3, 100, 40), (1, 1), [(1, 1)] * 2, (1, 1), 1),
    ((2, 9, 11, 5), (3, 2, 5, 7), (2, 1), [(0, 1), (1, 0)], (1, 2), 1),
    ((2, 15, 15, 16), (3, 3, 16, 16), (1, 1), [(2, 2)] * 2, (2, 2), 1),
    ((2, 8, 8, 64), (1, 1, 64, 33), (1, 1), [(0, 0)] * 2, (1, 1), 1),
    ((2, 9, 9, 17), (1, 1, 17, 16), (2, 2), [(0, 0)] * 2, (1, 1), 1),
    ((2, 10, 10, 32), (3, 3, 8, 64), (1, 1), [(1, 1)] * 2, (1, 1), 4),
    ((1, 9, 8, 15), (3, 3, 5, 6), (2, 2), [(0, 1), (1, 1)], (1, 1), 3),
    ((2, 12, 12, 64), (3, 3, 1, 64), (1, 1), [(1, 1)] * 2, (1, 1), 64),
    ((1, 13, 12, 13), (3, 3, 1, 13), (2, 2), [(0, 1), (1, 1)], (1, 1), 13),
    ((1, 6, 7, 8, 8), (3, 3, 3, 8, 16), (1, 1, 1), [(1, 1)] * 3, (1, 1, 1), 1),
    ((2, 7, 5, 6, 3), (3, 2, 1, 3, 5), (2, 1, 2), [(1, 1), (0, 1), (0, 0)], (1, 2, 1), 1),
    ((1, 28, 96, 112), (28, 1, 112, 40), (1, 1), [(1, 1), (0, 0)], (1, 1), 1),
    ((1, 31, 21, 32), (16, 1, 32, 64), (2, 1), [(0, 1), (0, 0)], (1, 1), 1),
    ((1, 33, 24, 20), (16, 1, 20, 5), (1, 1), [(0, 0)] * 2, (2, 1), 1),
    ((1, 6, 11, 24, 18), (4, 9, 1, 18, 12), (1, 1, 1), [(0, 0)] * 3, (1, 1, 1), 1),
]
# a, b, transpose_a: as the gradients of kernels use them.
_PRODUCTS = [
    ((65, 33), (33, 17), False),
    ((128, 64), (64, 256), False),
    ((999, 9), (999, 32), True),
    ((512, 72), (512, 13), True),
]
_CALLS = [*_CONVOLUTIONS, *_PRODUCTS]
_Operands = Sequence[Sequence[Array]]  # two of every call


def answer() -> str:
    """The verdict as one line of JSON: what the other process prints."""
    try:
        found = _compare()
    except jax.errors.JaxRuntimeError as error:
        message = str(error).partition("\n")[0]
        found = Verdict(False, f"oneDNN's calls raised {type(error).__name__}: {message}")
    return json.dumps(asdict(found))


def _compare() -> Verdict:
    """Every call under jit, and the same in a loop, where XLA runs much by other means."""
    random = np.random.default_rng(0)
    rounds = [[[random.standard_normal(n, np.float32) for n in call[:2]] for call in _CALLS] for _ in range(2)]
    first, second = jax.device_put(rounds)
    truth = _stock(first)
    errors = [list(map(_error, ours, truth)) for ours in (_ours(first), _loop(first, second))]
    worst = np.max(errors, axis=0)
    if (worst <= _TOLERANCE).all():
        return Verdict(True, f"oneDNN agreed with XLA on {len(_CALLS)} calls")
    bad = int(worst.argmax())  # a NaN counts as the largest
    return Verdict(False, f"oneDNN differed from XLA by {worst[bad]:.0e} of the largest value in {_CALLS[bad]}")


def _error(y: Array, truth: Array) -> float:
    return np.abs(np.subtract(y, truth)).max() / np.abs(truth).max()


@jax.jit
def _ours(operands: _Operands) -> list[Array]:
    return [_by_onednn(*pair, *call[2:]) for pair, call in zip(operands, _CALLS, strict=True)]


@jax.jit
def _loop(first: _Operands, second: _Operands) -> list[Array]:
    """The first operands' results, after the second's: exchanged each round, so that no call can leave the loop."""
    state = (first, second, _ours(second))
    return lax.fori_loop(0, 3, lambda _, now: (now[1], now[0], _ours(now[0])), state)[2]


@jax.jit
def _stock(operands: _Operands) -> list[Array]:
    return [_by_xla(*pair, *call[2:]) for pair, call in zip(operands, _CALLS, strict=True)]


def _by_onednn(a: Array, b: Array, *how: Any) -> Array:
    if len(how) == 1:
        return onednn.matmul(a, b, transpose_a=how[0])
    stride, padding, dilation, groups = how
    return onednn.convolution(a, b, Geometry(stride, tuple(padding), dilation), groups)


def _by_xla(a: Array, b: Array, *how: Any) -> Array:
    if len(how) == 1:
        return (a.T if how[0] else a) @ b
    stride, padding, dilation, groups = how
    return convolve(a, b, Geometry(stride, tuple(padding), dilation), groups)
