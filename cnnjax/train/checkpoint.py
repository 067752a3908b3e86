"""Checkpoints: a train state and what describes it, on disk through orbax."""

import json
import math
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.train import parallel, processes
from cnnjax.train.state import TrainState

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_FORMAT = 2


@contextmanager
def saving(directory: str | Path, *, keep: int = 2) -> Iterator[Callable[..., None]]:
    """Hand out the function that writes checkpoints while training goes on.

    It returns when it has copied the state; files are written behind its back, and the next call waits for them, as
    leaving the block does. A checkpoint appears under its name, the step, only when it is whole, and older ones go only
    after that. The best one stays, too.

    Where several processes run, all must call it, and name one folder that all of them reach.

    Args:
        directory: folder of the run's checkpoints; made if missing.
        keep: how many of the newest checkpoints to keep, at least 1.

    Returns:
        A context manager of write(state, meta, score=None): meta are JSON values that describe the run, the largest
        score is the best. Of checkpoints without a score only the newest are kept. One of the same step or a later
        one, which can only be damaged where a run goes on before it, is renamed STEP.replaced.

    Raises:
        OSError: the folder cannot be written, or has no room. What was in it before is intact.

    Example:
        >>> import tempfile
        >>> _, state = train.create(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> with tempfile.TemporaryDirectory() as folder, train.checkpoint.saving(folder) as write:
        ...     write(state, {"model": "linear"}, score=0.9)

    Source:
        orbax.checkpoint.CheckpointManager.
    """
    scores: dict[int, float] = {}
    with _told(directory):
        manager = _manager(directory, _Kept(keep, scores))
        scores.update(_scores(manager, directory))

    def write(state: TrainState, meta: Mapping[str, Any], score: float | None = None) -> None:
        step, ocp = int(state.step), _orbax()
        # A step may be given the memory of the state that is being written.
        state = jax.tree.map(lambda leaf: leaf.copy(), parallel.joint(state))
        described = {"format": _FORMAT, "tree": _describe(state), "sums": _sums(state), "meta": dict(meta)}
        described |= {} if score is None else {"score": score}
        described["sum"] = _sum(described)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), description=ocp.args.JsonSave(described))
        with _told(directory):
            manager.wait_until_finished()
            _set_aside(manager, Path(directory), step)
            scores.pop(step, None) if score is None else scores.update({step: score})
            manager.save(step, args=args, force=True)

    try:
        yield write
    finally:
        with _told(directory):
            manager.wait_until_finished()
            manager.close()


def save(directory: str | Path, state: TrainState, meta: Mapping[str, Any], *, keep: int = 2) -> None:
    """Write a checkpoint of a state, named after its step, and wait until it is there.

    Args:
        directory: folder of the run's checkpoints; made if missing.
        state: the state to write.
        meta: JSON values that describe the run.
        keep: how many of the newest checkpoints to keep, at least 1.

    Returns:
        None.

    Raises:
        OSError: the folder cannot be written.

    Example:
        See `restore`.

    Source:
        orbax.checkpoint.CheckpointManager.
    """
    with saving(directory, keep=keep) as write:
        write(state, meta)


def read_meta(directory: str | Path) -> dict[str, Any] | None:
    """Read what describes the newest checkpoint.

    Args:
        directory: folder of the run's checkpoints.

    Returns:
        The meta that `save` was given, or None where there is no checkpoint.

    Raises:
        ValueError: the checkpoint was written in a format that this version does not read, or all are damaged.

    Example:
        See `restore`.

    Source:
        orbax.checkpoint.CheckpointManager.
    """
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        if not manager.all_steps():
            return None
        return _newest_whole(manager, directory, lambda step: _description(manager, step, directory)["meta"])


def newest(directory: str | Path) -> int | None:
    """Tell the step of the newest checkpoint.

    Args:
        directory: folder of the run's checkpoints.

    Returns:
        Its step, or None where there is no checkpoint.

    Raises:
        Nothing.

    Example:
        >>> train.checkpoint.newest("no such folder")

    Source:
        orbax.checkpoint.CheckpointManager.
    """
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        return manager.latest_step()


def restore(directory: str | Path, like: TrainState, *, best: bool = False) -> tuple[TrainState, dict[str, Any]]:
    """Read the newest checkpoint, or the best.

    A damaged one is passed over with a warning, and the one before is read. Nothing in a file is ever executed.

    Args:
        directory: folder of the run's checkpoints.
        like: a state of the same model and optimiser, as `create` makes it; only its shapes and dtypes matter.
        best: whether to read the one with the largest score, which may be older.

    Returns:
        (state, meta), bit for bit what was saved.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint is of another model, optimiser or format; names the first difference. Or all are
            damaged.

    Example:
        >>> import tempfile
        >>> _, state = train.create(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train.checkpoint.save(folder, state, {"model": "linear"})
        ...     again, meta = train.checkpoint.restore(folder, state)
        >>> meta, bool((again.params["kernel"] == state.params["kernel"]).all())
        ({'model': 'linear'}, True)

    Source:
        orbax.checkpoint.CheckpointManager.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"restore: there must be a checkpoint, but {directory} is no folder. Train first.")
    with _manager(directory) as manager:
        if not manager.all_steps():
            raise FileNotFoundError(f"restore: there must be a checkpoint, but {directory} holds none. Train first.")

        def read(step: int) -> tuple[TrainState, dict[str, Any]]:
            description = _description(manager, step, directory)
            _check_same(description["tree"], _describe(like), directory)
            return _read(manager, step, like, description["sums"]), description["meta"]

        return _newest_whole(manager, directory, read, best=best)


class _DamagedError(ValueError):
    """A checkpoint that cannot be read, or is not what was saved."""


def _newest_whole(
    manager: "ocp.CheckpointManager", directory: str | Path, read: Callable[[int], Any], *, best: bool = False
) -> Any:
    """What `read` makes of the newest checkpoint that it can read, with a warning for each that it cannot."""
    steps = sorted(manager.all_steps(), reverse=True)
    if best:
        scores = _scores(manager, directory)
        steps.sort(key=lambda step: scores.get(step, -math.inf), reverse=True)
    for step in steps[:-1]:
        try:
            return read(step)
        except _DamagedError as error:
            said = f"restore: {Path(directory) / str(step)} is damaged, reading the one before: {error}"
            warnings.warn(said, stacklevel=3)
    try:
        return read(steps[-1])
    except _DamagedError as error:
        raise ValueError(
            f"restore: {directory} must hold a checkpoint that can be read, got {error} Train anew, or bring back a"
            " copy."
        ) from error


def _read(manager: "ocp.CheckpointManager", step: int, like: TrainState, sums: Mapping[str, int]) -> TrainState:
    like = parallel.joint(like)
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)
    state = parallel.gathered(_item(manager, step, "state", _orbax().args.StandardRestore(target)))
    found = _sums(state)
    wrong = [path for path, value in sums.items() if found[path] != value]
    if wrong:
        raise _DamagedError(f"the values of {wrong[0]} are not those that were saved.")
    return state


def _item(manager: "ocp.CheckpointManager", step: int, name: str, args: Any) -> Any:
    try:
        return manager.restore(step, args=_orbax().args.Composite(**{name: args}))[name]
    # Of data that it cannot read orbax makes an Exception of no kind.
    except Exception as error:
        raise _DamagedError(_short(error)) from error


def _orbax() -> Any:
    # Late, because it takes half a second to import and only runs that save need it.
    import orbax.checkpoint

    return orbax.checkpoint


@dataclass(frozen=True)
class _Kept:
    """Which checkpoints stay: the newest and the best. Orbax's own policy ends where a file of scores is damaged."""

    keep: int
    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        stay = {*steps[-self.keep :], *sorted(set(steps) & set(self.scores), key=lambda n: (self.scores[n], n))[-1:]}
        return [checkpoint.step in stay for checkpoint in checkpoints]


def _manager(directory: str | Path, kept: _Kept | None = None) -> "ocp.CheckpointManager":
    """A manager that reads, or one that also writes."""
    ocp = _orbax()
    write = kept is not None
    options = ocp.CheckpointManagerOptions(preservation_policy=kept, create=write, cleanup_tmp_directories=write)
    handlers = {"state": ocp.StandardCheckpointHandler(), "description": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(Path(directory).absolute(), options=options, item_handlers=handlers)


def _scores(manager: "ocp.CheckpointManager", directory: str | Path) -> dict[int, float]:
    """The scores of the checkpoints that have one and can be read."""
    found: dict[int, float | None] = {}
    for step in manager.all_steps():
        with suppress(_DamagedError):  # `restore` says which are damaged
            found[step] = _description(manager, step, directory).get("score")
    return {step: score for step, score in found.items() if score is not None}


@contextmanager
def _told(directory: str | Path) -> Iterator[None]:
    try:
        yield
    # A full disk is an error of the operating system, of tensorstore or of JSON, as it happens.
    except Exception as error:
        raise OSError(
            f"save: {directory} must be a folder with room that can be written, got: {_short(error)} The checkpoints"
            " before are intact."
        ) from error


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _set_aside(manager: "ocp.CheckpointManager", directory: Path, step: int) -> None:
    names = [str(later) for later in manager.all_steps() if later >= step]
    if names:
        with processes.first():
            for name in names if not jax.process_index() else []:
                shutil.rmtree(directory / f"{name}.replaced", ignore_errors=True)
                (directory / name).rename(directory / f"{name}.replaced")
        manager.reload()


def _description(manager: "ocp.CheckpointManager", step: int, directory: str | Path) -> dict[str, Any]:
    description = _item(manager, step, "description", _orbax().args.JsonRestore())
    # Other formats may have no sum.
    if description.pop("sum", None) not in (None, _sum(description)):
        raise _DamagedError("its description is not the one that was saved.")
    if description["format"] != _FORMAT:
        raise ValueError(
            f"restore: {directory} must be of checkpoint format {_FORMAT}, got {description['format']}."
            " Read it with the version of cnnjax that wrote it."
        )
    return description


def _describe(state: TrainState) -> dict[str, str]:
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _leaves(state)}


def _sums(state: TrainState) -> dict[str, int]:
    """Check sums of what this process can see the whole of: files are damaged in ways that no reader notices."""
    whole = [(path, leaf) for path, leaf in _leaves(state) if leaf.is_fully_replicated or leaf.is_fully_addressable]
    return {path: zlib.crc32(_raw(leaf).tobytes()) for path, leaf in whole}


def _sum(description: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(description, sort_keys=True).encode())


def _raw(leaf: jax.Array) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _leaves(state: TrainState) -> list[tuple[str, jax.Array]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _check_same(saved: Mapping[str, str], wanted: Mapping[str, str], directory: str | Path) -> None:
    for path in [*wanted, *saved]:
        if saved.get(path) != wanted.get(path):
            raise ValueError(
                f"restore: {directory} is a checkpoint of another model or optimiser: {path} is"
                f" {saved.get(path, 'absent')} there and {wanted.get(path, 'absent')} here. Build the same model."
            )
