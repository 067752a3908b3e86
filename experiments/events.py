"""The metrics of a run as events for TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def check() -> None:
    """Say which extra is missing before a run has begun."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ImportError("--tensorboard writes with tensorboardX: pip install 'cnnjax[tensorboard]'") from error


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of metrics.jsonl to the folder `events` of a run; `tensorboard --logdir` shows it."""
    from tensorboardX import SummaryWriter

    step = rows[0]["step"]
    # A run that was stopped comes by some steps again; and files are named by the second.
    with SummaryWriter(str(path / "events"), purge_step=step, filename_suffix=f".{step}") as writer:
        for row in rows:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    writer.add_scalar(name, value, row["step"])
