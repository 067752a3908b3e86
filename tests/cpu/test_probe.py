"""The probe: what it does with every way in which another process can answer, and that this machine's oneDNN passes."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from cnnjax.cpu import probe
from cnnjax.cpu.probe import Verdict

KEY = {"jaxlib": "1", "cnnjax": "2", "cpu": "three", "calls": "four"}
YES = Verdict(True, "oneDNN agreed with XLA on 27 calls")
x86_linux = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="oneDNN is for x86-64 Linux"
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cache" / "onednn.json"


def child(code):
    return [sys.executable, "-c", code]


def saying(verdict):
    return child(f"print({json.dumps(asdict(verdict))!r})")


NEVER = child("raise SystemExit('asked again')")


def judge(file, command, limit=30.0, key=KEY):
    return probe.judge(file, key, command, limit)


def test_a_pass_is_remembered(file):
    assert judge(file, saying(YES)) == YES
    assert judge(file, NEVER) == YES
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_no_is_remembered_and_says_how_to_ask_again(file):
    no = judge(file, saying(Verdict(False, "oneDNN differed from XLA by 3e-01")))
    assert no == Verdict(False, f"oneDNN differed from XLA by 3e-01: using plain JAX (delete {file} to probe again)")
    assert judge(file, NEVER) == no
    file.unlink()
    assert judge(file, saying(YES)) == YES


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL"])
def test_a_crash_is_remembered(file, name):
    code = (
        "import os, resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        f"os.kill(os.getpid(), signal.{name})"
    )
    crash = judge(file, child(code))
    assert not crash.passed
    assert crash.reason.startswith(f"the probe of oneDNN ended by {name}: using plain JAX (delete ")
    assert judge(file, NEVER) == crash


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_kill_from_outside_is_not_remembered(file, name):
    killed = judge(file, child(f"import os, signal; os.kill(os.getpid(), signal.{name})"))
    assert killed == Verdict(False, f"the probe of oneDNN gave no answer (ended by {name}): using plain JAX")
    assert judge(file, saying(YES)) == YES


def test_a_hang_ends_at_the_limit_and_is_remembered(file):
    start = time.monotonic()
    hang = judge(file, child("import time; time.sleep(60)"), limit=0.5)
    assert time.monotonic() - start < 30
    assert not hang.passed
    assert hang.reason.startswith("the probe of oneDNN took longer than 0.5 s: using plain JAX (delete ")
    assert judge(file, NEVER) == hang


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (child("print('Segmentation fault')"), "it printed 'Segmentation fault'"),
        (child("print('[1, 2]')"), r"it printed '\[1, 2\]'"),
        (child("""print('{"passed": "yes", "reason": ""}')"""), "it printed"),
        (child(""), "it printed ''"),
        (child("import sys; sys.stdout.buffer.write(b'\\xff\\x00')"), "it printed"),
        (child("import no_such_module"), "exit status 1: ModuleNotFoundError: No module named 'no_such_module'"),
        (["/no/such/python"], "No such file or directory: '/no/such/python'"),
        ([""], ""),
    ],
)
def test_no_answer_is_not_remembered(file, command, reason):
    verdict = judge(file, command)
    assert not verdict.passed
    assert "\n" not in verdict.reason
    with pytest.raises(ValueError, match=f"the probe of oneDNN gave no answer .*{reason}.*: using plain JAX"):
        raise ValueError(verdict.reason)
    assert judge(file, saying(YES)) == YES


def test_only_the_last_line_counts(file):
    assert judge(file, child(f"print('oneDNN says hello'); {saying(YES)[-1]}")) == YES


def test_the_cache_cannot_be_written(tmp_path):
    (tmp_path / "cache").touch()
    file = tmp_path / "cache" / "cnnjax" / "onednn.json"
    unwritten = f"(not remembered: {file} cannot be written)"
    assert judge(file, saying(YES)) == Verdict(True, f"{YES.reason} {unwritten}")
    assert judge(file, saying(Verdict(False, "no"))) == Verdict(False, f"no {unwritten}")


def test_the_cache_is_a_folder(file):
    file.mkdir(parents=True)
    assert judge(file, saying(YES)).passed
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"key": {}}',
        json.dumps({"key": KEY, "verdict": {"passed": "no", "reason": ""}}).encode(),
        json.dumps({"key": KEY, "verdict": []}).encode(),
        json.dumps({"key": {**KEY, "jaxlib": "0"}, "verdict": {"passed": False, "reason": "old"}}).encode(),
    ],
)
def test_a_corrupt_or_foreign_cache_is_overwritten(file, content):
    file.parent.mkdir()
    file.write_bytes(content)
    assert judge(file, saying(YES)) == YES
    assert judge(file, NEVER) == YES


def test_probes_at_once(file):
    found = []
    threads = [threading.Thread(target=lambda: found.append(judge(file, saying(YES)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [YES] * 6
    assert [path.name for path in file.parent.iterdir()] == [file.name]


# Where to ask, and under which name to keep it.


@pytest.fixture
def no_process(monkeypatch):
    def run(*args, **kwargs):
        raise AssertionError(f"started {args}")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


ask = probe.verdict.__wrapped__


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Darwin", "x86_64"), ("Windows", "AMD64"), ("Linux", "aarch64")]
)
def test_other_platforms_start_nothing(monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert ask() == Verdict(False, f"oneDNN is for x86-64 Linux, this is {machine} {system}")


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("executable", ["", None])
def test_without_a_python_nothing_is_started(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert ask() == Verdict(False, "oneDNN cannot be probed: there is no Python to start")


@pytest.mark.usefixtures("no_process")
def test_a_frozen_program_does_not_start_itself(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert ask() == Verdict(False, "oneDNN cannot be probed: there is no Python to start")


@pytest.mark.usefixtures("no_process")
def test_the_probe_does_not_probe(monkeypatch):
    for name, value in probe._environment().items():
        monkeypatch.setenv(name, value)
    assert ask() == Verdict(False, "this is the process that probes oneDNN")


def test_the_child_does_not_inherit_jax_settings(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/dump")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/tmp/cache")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("PATH", "/bin")
    environment = probe._environment()
    assert {name for name in environment if name.startswith(("JAX_", "XLA_"))} == {"JAX_PLATFORMS"}
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["PATH"] == "/bin"


def test_the_file_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probe._file(KEY).parent == tmp_path / "cnnjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert probe._file(KEY).parent == tmp_path / ".cache" / "cnnjax"
    for name in KEY:
        assert probe._file({**KEY, name: "other"}) != probe._file(KEY)


# This machine.


@x86_linux
def test_this_machine_passes_and_is_asked_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.chdir(tmp_path)  # the child finds the package where this process did
    (tmp_path / "json.py").write_text("raise ImportError('imported from the folder of the moment')")
    assert ask() == Verdict(True, "oneDNN agreed with XLA on 27 calls")
    monkeypatch.setattr(probe, "_command", lambda: NEVER)
    assert ask() == Verdict(True, "oneDNN agreed with XLA on 27 calls")


WRONG = "from cnnjax.cpu import onednn, probe; onednn.matmul = lambda a, b, transpose_a: {}; print(probe.answer())"


@x86_linux
@pytest.mark.parametrize(
    ("product", "reason"),
    [
        ("(a.T if transpose_a else a) @ b * 1.01", "oneDNN differed from XLA by 1e-02 of the largest value in "),
        ("(a.T if transpose_a else a) @ b * float('nan')", "oneDNN differed from XLA by nan of the largest value in "),
        ("onednn._call('__onednn$gone', a, {}, a)", "oneDNN's calls raised JaxRuntimeError: UNIMPLEMENTED: "),
    ],
)
def test_a_wrong_or_missing_call_is_a_no(file, product, reason):
    verdict = judge(file, child(WRONG.format(product)))
    assert not verdict.passed
    assert verdict.reason.startswith(reason)
    assert judge(file, NEVER) == verdict
