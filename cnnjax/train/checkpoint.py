"""Checkpoints: a train state and what describes it, on disk through orbax."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from cnnjax.train import parallel
from cnnjax.train.state import TrainState

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_FORMAT = 1


def save(directory: str | Path, state: TrainState, meta: Mapping[str, Any], *, keep: int = 2) -> None:
    """Write a checkpoint of a state, named after its step.

    A checkpoint appears under its name only when it is whole, and older ones go only after that.

    Where several processes run, all must call it, and name one folder that all of them reach.

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
    state = parallel.joint(state)
    with _manager(directory, create=True, keep=keep) as manager:
        ocp = _orbax()
        described = {"format": _FORMAT, "tree": _describe(state), "meta": dict(meta)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), description=ocp.args.JsonSave(described))
        manager.save(int(state.step), args=args, force=True)


def read_meta(directory: str | Path) -> dict[str, Any] | None:
    """Read what describes the newest checkpoint.

    Args:
        directory: folder of the run's checkpoints.

    Returns:
        The meta that `save` was given, or None where there is no checkpoint.

    Raises:
        ValueError: the checkpoint was written in a format that this version does not read.

    Example:
        See `restore`.

    Source:
        orbax.checkpoint.CheckpointManager.
    """
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        return None if manager.latest_step() is None else _description(manager, directory)["meta"]


def restore(directory: str | Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Read the newest checkpoint.

    Args:
        directory: folder of the run's checkpoints.
        like: a state of the same model and optimiser, as `create` makes it; only its shapes and dtypes matter.

    Returns:
        (state, meta), bit for bit what was saved.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint is of another model, optimiser or format; names the first difference.

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
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"restore: there must be a checkpoint, but {directory} holds none. Train first.")
        description = _description(manager, directory)
        _check_same(description["tree"], _describe(like), directory)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), parallel.joint(like)
        )
        ocp = _orbax()
        restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
        return parallel.gathered(restored["state"]), description["meta"]


def _orbax() -> Any:
    # Late, because it takes half a second to import and only runs that save need it.
    import orbax.checkpoint

    return orbax.checkpoint


def _manager(directory: str | Path, *, create: bool = False, keep: int = 2) -> "ocp.CheckpointManager":
    ocp = _orbax()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=create, enable_async_checkpointing=False, save_decision_policy=None
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "description": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(Path(directory).absolute(), options=options, item_handlers=handlers)


def _description(manager: "ocp.CheckpointManager", directory: str | Path) -> dict[str, Any]:
    args = _orbax().args.Composite(description=_orbax().args.JsonRestore())
    description = manager.restore(manager.latest_step(), args=args)["description"]
    if description["format"] != _FORMAT:
        raise ValueError(
            f"restore: {directory} must be of checkpoint format {_FORMAT}, got {description['format']}."
            " Read it with the version of cnnjax that wrote it."
        )
    return description


def _describe(state: TrainState) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _check_same(saved: Mapping[str, str], wanted: Mapping[str, str], directory: str | Path) -> None:
    for path in [*wanted, *saved]:
        if saved.get(path) != wanted.get(path):
            raise ValueError(
                f"restore: {directory} is a checkpoint of another model or optimiser: {path} is"
                f" {saved.get(path, 'absent')} there and {wanted.get(path, 'absent')} here. Build the same model."
            )
