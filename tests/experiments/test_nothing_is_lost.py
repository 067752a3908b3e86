"""Runs that are killed, asked to stop, out of disk, out of bounds or in each other's way: what was trained is kept."""

import errno
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from short_runs import ROOT, assert_same_bits, contents, fast, rows, run

from cnnjax import data, explain, train
from experiments import mnist, workdir

KILLS = int(os.environ.get("CNNJAX_KILLS", "12"))


def started(*arguments, shell="", stderr: int | IO[str] = subprocess.PIPE):
    """The command in a process of its own, after something that its shell does first."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = shlex.join([sys.executable, "-m", "experiments.mnist", *map(str, arguments)])
    return subprocess.Popen(
        ["sh", "-c", f"{shell} exec {command}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended too early: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def checkpoints(path):
    return sorted(int(file.name) for file in Path(path, "checkpoints").glob("*") if file.name.isdecimal())


def signalled(monkeypatch, target, name, number, at):
    """Send this process a signal when a function is called for the at-th time."""
    function, calls = getattr(target, name), []

    def signalling(*arguments, **options):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(number)
        return function(*arguments, **options)

    monkeypatch.setattr(target, name, signalling)


# Two epochs of many steps, the second one short.
MANY_STEPS = ("--batch-size", 2, "--epochs", 2, "--steps", 300)


def test_a_run_asked_to_stop_saves_within_its_epoch_and_goes_on_bit_for_bit(digits, monkeypatch, capfd):
    arguments = [*fast(digits), *MANY_STEPS]
    assert run(monkeypatch, mnist, *arguments, "--workdir", "whole") == 0
    arguments += ["--workdir", "stopped"]
    capfd.readouterr()
    with monkeypatch.context() as patch:
        signalled(patch, data.Batches, "__call__", signal.SIGTERM, at=40)
        assert run(patch, mnist, *arguments) == 143
    said = capfd.readouterr().err
    assert "experiments.mnist: SIGTERM: saving. Ctrl-C again leaves at once." in said
    assert "SIGTERM: saved. Go on with the same options and --workdir stopped --resume." in said
    assert checkpoints("stopped") == [40]
    assert not Path("stopped/metrics.jsonl").exists()
    # As if it had been killed later, with the epoch's metrics written, and its checkpoint not yet.
    Path("stopped/metrics.jsonl").write_text("".join(Path("whole/metrics.jsonl").read_text().splitlines(True)[:20]))
    arguments.append("--resume")
    with monkeypatch.context() as patch:
        signalled(patch, data.Batches, "__call__", signal.SIGINT, at=50)
        assert run(patch, mnist, *arguments) == 130
    assert checkpoints("stopped") == [40, 90]
    assert run(monkeypatch, mnist, *arguments) == 0
    assert_same_bits("whole", "stopped")
    assert rows("whole") == rows("stopped")


@pytest.mark.slow
def test_a_run_asked_to_stop_while_it_tests_or_draws_leaves_and_goes_on_bit_for_bit(digits, monkeypatch):
    arguments = [*fast(digits), *MANY_STEPS]
    assert run(monkeypatch, mnist, *arguments, "--workdir", "whole") == 0
    arguments += ["--workdir", "stopped"]
    with monkeypatch.context() as patch:
        signalled(patch, train, "evaluate", signal.SIGTERM, at=1)
        assert run(patch, mnist, *arguments) == 143
    assert checkpoints("stopped") == [160]
    assert not Path("stopped/metrics.jsonl").exists()
    arguments.append("--resume")
    with monkeypatch.context() as patch:
        signalled(patch, explain, "plot_filters", signal.SIGINT, at=1)
        assert run(patch, mnist, *arguments) == 130
    assert not Path("stopped/result.json").exists()
    assert run(monkeypatch, mnist, *arguments) == 0
    assert_same_bits("whole", "stopped")
    assert rows("whole") == rows("stopped")


def test_an_interrupt_while_data_is_read_ends_in_one_line(digits, monkeypatch, capsys):
    for number, status, name in ((signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "SIGTERM")):
        with monkeypatch.context() as patch:
            signalled(patch, data, "load", number, at=1)
            assert run(patch, mnist, *fast(digits), "--workdir", "run") == status
        assert capsys.readouterr().err == f"experiments.mnist: {name}.\n"
    assert not Path("run").exists()


def test_a_second_interrupt_leaves_at_once(digits, monkeypatch, capsys):
    def twice(self, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(data.Batches, "__call__", twice)
    # In the background of a shell it is ignored.
    before = signal.getsignal(signal.SIGINT)
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", "run") == 130
    assert "interrupted: left at once. Go on with the same options and --workdir run --resume." in (
        capsys.readouterr().err
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_of_two_runs_in_a_folder_the_second_is_refused(digits):
    arguments = [*fast(digits), "--epochs", 10_000, "--workdir", "run"]
    first = started(*arguments)
    try:
        wait_for(lambda: checkpoints("run"), first)
        second = started(*arguments, "--resume")
        said = second.communicate(timeout=120)[1]
        assert second.returncode == 2
        assert f"--workdir must be of one run at a time, but process {first.pid} on " in said
        assert " is training in run. Wait for it, or name another folder." in said
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=120)
    assert first.returncode == 143


def test_where_there_are_no_locks_there_is_a_warning(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"cannot be locked .*No locks available.*Take care that no other run"):
        workdir.lock(tmp_path).close()


@pytest.mark.slow
def test_runs_that_are_killed_anywhere_end_as_one_that_is_not(digits):
    """Kill anywhere: while it starts, reads, trains, tests, draws and, every other time, while it saves."""
    random.seed(0)
    # Epochs of forty steps, and a save after nearly every step.
    arguments = [*fast(digits), "--batch-size", 8, "--epochs", 20, "--save-minutes", 0.0005, "--workdir"]
    clock = time.monotonic()
    finished(started(*arguments, "whole"))
    longest = time.monotonic() - clock
    kills = runs = torn = 0
    said = Path("said")
    while kills < KILLS or Path("killed").exists():
        with said.open("w") as file:
            resume = ["--resume"] if Path("killed").exists() else []
            process = started(*arguments, "killed", *resume, stderr=file)
        if kills < KILLS:
            end = time.monotonic() + random.uniform(0, longest / 2)
            while time.monotonic() < end and process.poll() is None:
                if kills % 2 and time.monotonic() > end - longest / 4 and saving("killed"):
                    break
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02))
            process.kill()
        status = process.wait(timeout=600)
        assert status in (0, -signal.SIGKILL), said.read_text()
        assert "is damaged" not in said.read_text()
        kills, torn = kills + (status != 0), torn + saving("killed")
        if status == 0:
            runs += 1
            assert_same_bits("whole", "killed")
            assert rows("whole") == rows("killed")
            shutil.rmtree("killed")
    print(f"{kills} kills, {torn} of them while a checkpoint was written, in {runs} runs")
    assert torn


def saving(path):
    """Whether a checkpoint is being written, or was when the run was killed."""
    return any("tmp" in file.name for file in Path(path, "checkpoints").glob("*"))


def finished(process):
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said


def poison(monkeypatch, at):
    batches = data.Batches.__call__

    def poisoned(self, step):
        batch = batches(self, step)
        return batch | {"image": batch["image"].astype(np.float32) * (np.nan if step == at else 1)}

    monkeypatch.setattr(data.Batches, "__call__", poisoned)


def test_a_diverging_run_says_so_and_keeps_its_checkpoint_and_the_batch(digits, monkeypatch, capsys):
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", "run") == 0
    poison(monkeypatch, at=15)
    for _ in range(2):
        capsys.readouterr()
        assert run(monkeypatch, mnist, *fast(digits), "--epochs", 2, "--workdir", "run", "--resume") == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "fit: the loss must stay finite, got nan in step 15. Lower the learning rate. It was 0.00" in said
        assert "The checkpoint of step 10 is intact. With --workdir run --resume the run comes by the same way" in said
    meta = train.checkpoint.read_meta("run/checkpoints")
    assert meta is not None
    assert meta["epochs_done"] == 1
    facts = json.loads(Path("run/diverged.json").read_text())
    assert (facts["step"], facts["loss"], facts["checkpoint"]) == (15, "nan", 10)
    with np.load("run/diverged.npz") as batch:
        np.testing.assert_array_equal(batch["position"], np.arange(15 * 32, 16 * 32))
        assert np.isnan(batch["image"]).all()


@pytest.mark.slow
def test_where_a_checkpoint_cannot_be_written_the_last_one_is_intact(digits, monkeypatch):
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", "run") == 0
    # What a full disk does to whoever writes files of some size; the metrics are smaller. In blocks of 512 bytes.
    process = started(*fast(digits), "--epochs", 3, "--workdir", "run", "--resume", shell="ulimit -f 400;")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1, said
    last = said.splitlines()[-1]
    assert last.startswith(
        "experiments.mnist: save: run/checkpoints must be a folder with room that can be written, got"
    )
    assert last.endswith("Go on with the same options and --workdir run --resume.")
    assert checkpoints("run") == [10]
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 3, "--workdir", "run", "--resume") == 0
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 3, "--workdir", "whole") == 0
    assert json.loads(Path("run/result.json").read_text())["steps"] == 30


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own of 24 MB, which is given to few to make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk cannot be made here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_is_intact(digits, small_disk, monkeypatch):
    workdir = small_disk / "run"
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", workdir) == 0
    free = os.statvfs(small_disk)
    (small_disk / "other").write_bytes(bytes(free.f_bavail * free.f_frsize - 300_000))
    process = started(*fast(digits), "--epochs", 3, "--workdir", workdir, "--resume")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1, said
    assert "must be a folder with room that can be written, got" in said.splitlines()[-1]
    assert checkpoints(workdir) == [10]
    (small_disk / "other").unlink()
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 3, "--workdir", workdir, "--resume") == 0


@pytest.mark.slow
def test_a_disk_that_cannot_be_written_ends_in_one_line(digits, small_disk, monkeypatch, capsys):
    workdir = small_disk / "run"
    assert run(monkeypatch, mnist, *fast(digits), "--epochs", 1, "--workdir", workdir) == 0
    before = contents(workdir)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for extra in (["--resume"], ["--overwrite"]):
        capsys.readouterr()
        assert run(monkeypatch, mnist, *fast(digits), "--epochs", 2, "--workdir", workdir, *extra) == 2
        said = capsys.readouterr().err
        assert os.strerror(errno.EROFS) in said
        assert said.count("\n") == 1
    assert contents(workdir) == before


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_an_epoch_and_not_the_run(digits, monkeypatch, capsys):
    arguments = [*fast(digits), "--epochs", 3, "--workdir"]
    assert run(monkeypatch, mnist, *arguments, "whole") == 0
    assert run(monkeypatch, mnist, *arguments, "torn") == 0
    Path("torn/result.json").unlink()
    for file in Path("torn/checkpoints/30").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    with pytest.warns(UserWarning, match=r"torn/checkpoints/30 is damaged, reading the one before"):
        assert run(monkeypatch, mnist, *arguments, "torn", "--resume") == 0
    assert_same_bits("whole", "torn")
    assert rows("whole") == rows("torn")
