"""The switch: how convolution and pooling are compiled for CPU, in the whole process."""

import platform
import threading
import warnings
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata

import jax
from jax import lax

from cnnjax.cpu import (
    convolution,
    library,
    lowering,
    max_pool,
    max_pool_gradient,
    max_pool_tangent,
    memory,
    probe,
    sum_pool,
)

OLDEST, NEWEST = (0, 10), (0, 12)  # the versions of JAX that the tests ran with, both included

_lock = threading.Lock()


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did.

    Attributes:
        active: whether anything is replaced now.
        replaced: names of the primitives of `jax.lax` that are compiled in another way for CPU.
        onednn: whether oneDNN's kernels are used; plain JAX is elsewhere.
        reason: why, in one line; empty where it was switched off.
        versions: of what it was decided for.
        keeps_memory: whether freed memory is kept for the next use.
    """

    active: bool
    replaced: tuple[str, ...]
    onednn: bool
    reason: str
    versions: str
    keeps_memory: bool = False

    def __repr__(self) -> str:
        kernels = "with oneDNN and plain JAX" if self.onednn else "with plain JAX"
        lines = [
            f"cnnjax.accelerate: {f'on for CPU, {kernels}' if self.active else 'off, all is compiled as JAX does'}"
        ]
        lines += [f"  why:      {self.reason}"] if self.reason else []
        lines += [f"  replaced: {', '.join(self.replaced)}"] if self.replaced else []
        lines += ["  memory:   kept when freed"] if self.keeps_memory else []
        return "\n".join([*lines, f"  versions: {self.versions}"])


_OFF = Acceleration(False, (), False, "", "")
_state: tuple[bool, Acceleration] | None = None  # what was asked for, and what came of it


def accelerate(on: bool = True, *, keep_memory: bool = False) -> Acceleration:
    """Make convolution and pooling fast on CPU, in the whole process: in cnnjax, Flax, Equinox and every other model.

    JAX compiles `lax.conv_general_dilated`, `lax.reduce_window` and the gradients of pooling for CPU by rules that are
    up to a hundred times slower than they need be. This replaces those rules, and nothing else: the programs, their
    derivatives and transformations, and every other platform stay what they are. It holds for what is compiled from now
    on; JAX's caches are cleared when the state changes, but what `.compile()` returned keeps the rules it was built
    with. Call it once, at the start.

    The first call on a machine takes some seconds: a child process tries the kernels of oneDNN that jaxlib carries. If
    they fail there, or the machine is not x86-64 Linux, formulations in plain JAX are used. Programs that the compiler
    divides among devices (`jit` with shardings) and exported ones keep JAX's rules; under `pmap`, and `shard_map` over
    all axes, each device has its own program and is accelerated. Such programs cannot be stored in JAX's persistent
    compilation cache.

    Args:
        on: False restores JAX's own rules.
        keep_memory: also keep memory that was freed for the next use, instead of giving it back to the system, which
            has to clear it page by page each time: up to a third faster where a step needs more than 32 MB. The process
            then keeps the most it ever needed, and threads that start later share one heap: so call it before the
            first computation, which starts XLA's. For glibc, the C library of most Linux systems; nothing elsewhere.

    Returns:
        What is replaced, whether with oneDNN, why, and the versions. Print it.

    Example:
        >>> cnnjax.accelerate(False).active
        False

    Source:
        oneDNN, https://uxlfoundation.github.io/oneDNN/.
    """
    global _state
    with _lock:
        before = _state[1] if _state else _OFF
        if _state is None or _state[0] != on:
            _state = on, _switch_on() if on else _switch_off()
            if _state[1].active != before.active:
                jax.clear_caches()
        keeps = before.keeps_memory
        if keeps != (on and (keep_memory or keeps)):
            keeps = memory.keep(on)
        if _state[1].keeps_memory != keeps:
            _state = on, replace(_state[1], keeps_memory=keeps)
        return _state[1]


def knows_jax() -> bool:
    """Whether this version of JAX is among those that the tests ran with."""
    return OLDEST <= tuple(map(int, jax.__version__.split(".")[:2])) <= NEWEST


def _switch_on() -> Acceleration:
    if obstacle := _obstacle():
        warnings.warn(f"cnnjax.accelerate: {obstacle} Everything is compiled as JAX does it.", stacklevel=3)
        return Acceleration(False, (), False, obstacle, _versions())
    verdict = probe.verdict()
    kernels = library.onednn if verdict.passed else library.plain
    choosers = {
        lax.conv_general_dilated_p: partial(convolution.choose, library=kernels),
        lax.reduce_window_max_p: max_pool.choose_max,
        lax.reduce_window_min_p: max_pool.choose_min,
        lax.reduce_window_sum_p: sum_pool.choose_sum,
        lax.select_and_scatter_add_p: max_pool_gradient.choose_scatter,
        lax.select_and_gather_add_p: max_pool_tangent.choose_gather,
    }
    for primitive, choose in choosers.items():
        lowering.replace(primitive, choose)
    # JAX tries to store each program, and these it cannot: saying so for each helps nobody.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry .*bad_alloc", UserWarning)
    return Acceleration(True, tuple(map(str, choosers)), verdict.passed, verdict.reason, _versions())


def _switch_off() -> Acceleration:
    lowering.restore_all()
    return Acceleration(False, (), False, "", _versions())


def _obstacle() -> str | None:
    """Why nothing may be replaced here, if so."""
    if not knows_jax():
        tested = " to ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))
        return f"jax {jax.__version__} is not among the versions it was tested with, {tested}."
    if moved := lowering.missing():
        return f"jax {jax.__version__} has no {', '.join(moved)} any more."
    return None


def _versions() -> str:
    return f"jax {jax.__version__}, jaxlib {metadata.version('jaxlib')}, {platform.machine()} {platform.system()}"
