"""The folder of a run: result.json, metrics.jsonl, checkpoints, pictures."""

import json
import os
import shutil
import socket
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

RESULT, METRICS, CHECKPOINTS, LOCK = "result.json", "metrics.jsonl", "checkpoints", ".lock"
DIVERGED = ("diverged.json", "diverged.npz")
PICTURES = ("learning_curve", "confusion", "filters", "mistakes", "hardest", "worst", "median", "best")
"""What the experiments draw, as NAME.png."""
SHIPPED = Path(__file__).parent / "lenet"
"""A run of experiments.mnist to try things with: --data FOLDER on MNIST, published by experiments.publish."""


def fresh(experiment: str) -> Path:
    """Make runs/EXPERIMENT/NUMBER, with the lowest number above those that exist."""
    root = Path("runs") / experiment
    root.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(root), default=0) + 1
    while True:
        path = root / str(number)
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def newest(experiment: str) -> Path:
    """Name the run that `fresh` made last."""
    root = Path("runs") / experiment
    if not _numbers(root):
        raise ValueError(
            f"there is no run in {root}. Name one with --workdir, or train with -m experiments.{experiment}."
        )
    return root / str(max(_numbers(root)))


def newest_or_shipped() -> Path:
    """Name the run of experiments.mnist that `fresh` made last, or where there is none the one that comes with it."""
    return newest("mnist") if _numbers(Path("runs") / "mnist") else SHIPPED


def _numbers(root: Path) -> list[int]:
    return [int(path.name) for path in root.glob("*") if path.name.isdecimal()]


def check(path: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse a workdir whose contents would be lost; write nothing."""
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other. Give one of them.")
    if path is None:
        if resume or overwrite:
            raise ValueError("--resume and --overwrite need the run that they are about. Name it with --workdir.")
        return
    if path.exists() and not path.is_dir():
        raise ValueError(f"--workdir must be a folder, got the file {path}. Name another.")
    if resume and not path.is_dir():
        raise ValueError(f"--resume needs a run, but there is no folder {path}. Leave --resume out to start one.")
    if resume or overwrite:
        return
    if (path / RESULT).exists():
        raise ValueError(
            f"{path} holds a finished run and is left alone."
            " Train it further with --resume --epochs MORE, or replace it with --overwrite."
        )
    if (path / METRICS).exists() or (path / CHECKPOINTS).exists():
        raise ValueError(f"{path} holds an unfinished run. Go on with --resume, or replace it with --overwrite.")


def lock(path: Path) -> TextIO:
    """Make the folder if there is none, and keep other runs out of it as long as the file that is returned is open.

    The system opens the lock when the process ends, however that happens. Where it has no locks, on Windows and some
    network disks, there is a warning in place of one.
    """
    path.mkdir(parents=True, exist_ok=True)
    file = (path / LOCK).open("a+")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise ValueError(
            f"--workdir must be of one run at a time, but process {holder} is training in {path}."
            " Wait for it, or name another folder."
        ) from error
    except (ModuleNotFoundError, OSError) as error:
        said = f"{path} cannot be locked ({error}). Take care that no other run has it as its --workdir."
        warnings.warn(said, stacklevel=2)
    file.truncate(0)
    file.write(f"{os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def clear(path: Path) -> None:
    """Make the folder, without what an earlier run left in it; other files stay."""
    path.mkdir(parents=True, exist_ok=True)
    for old in [
        path / RESULT,
        path / METRICS,
        *(path / name for name in DIVERGED),
        *(path / f"{name}.png" for name in PICTURES),
    ]:
        old.unlink(missing_ok=True)
    if (path / CHECKPOINTS).exists():
        shutil.rmtree(path / CHECKPOINTS)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl."""
    file = path / METRICS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep_rows(path: Path, *, up_to: int) -> None:
    """Drop the rows of steps that no checkpoint remembers, and a line that a kill cut short."""
    file = path / METRICS
    if file.exists():
        whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        _write(file, "".join(line for line in whole if json.loads(line)["step"] <= up_to))


def add_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append to metrics.jsonl."""
    with (path / METRICS).open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_diverged(path: Path, facts: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Keep what a loss that is not finite was made of."""
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in batch.items()}
    np.savez(path / DIVERGED[1], **arrays)
    _write(path / DIVERGED[0], json.dumps(facts, indent=2) + "\n")


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write result.json, whole or not at all."""
    _write(path / RESULT, json.dumps(result, indent=2) + "\n")


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all, whenever the process is killed."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text)
    partial.replace(file)
