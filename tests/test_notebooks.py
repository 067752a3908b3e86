"""Every notebook of the course: stored executed with its pictures, small, ready for Colab, and running again."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

REASON = "notebooks need the extra: pip install 'cnnjax[notebooks]'"
nbformat = pytest.importorskip("nbformat", reason=REASON)
nbclient = pytest.importorskip("nbclient", reason=REASON)
pytest.importorskip("ipykernel", reason=REASON)

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
COLAB = "https://colab.research.google.com/github"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_is_valid_and_below_one_megabyte(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 1_000_000


@every_notebook
def test_is_stored_executed_with_pictures(path):
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    _assert_clean(notebook)


@every_notebook
def test_carries_nothing_of_the_machine_that_ran_it(path):
    notebook = read(path)
    sources = [cell.source for cell in notebook.cells]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs(notebook)]
    for trace in ("/home/", "/root/", "/tmp/", "/Users/", "site-packages"):
        assert trace not in "\n".join(sources + texts)
    assert not any(cell.metadata for cell in code_cells(notebook))


@every_notebook
def test_has_a_colab_badge_for_itself(path):
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert f"({COLAB}/{owner_and_name}/blob/main/notebooks/{path.name})" in first.source


@every_notebook
def test_installs_only_what_is_missing(path):
    first = code_cells(read(path))[0].source
    assert 'if importlib.util.find_spec("cnnjax") is None:\n    %pip install' in first
    assert f'"cnnjax[experiments] @ git+{REPOSITORY}"' in first


# The shortest one, every time; all of them take minutes.
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem != "03_pooling")) for path in NOTEBOOKS],
)
def test_runs_from_a_bare_kernel(path, tmp_path):
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=_offline_environment())
    _assert_clean(notebook)
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert not list(tmp_path.iterdir())


def _offline_environment() -> dict[str, str]:
    """This process's environment as a user would have it: one device, this checkout; a download fails at once."""
    dead = "http://127.0.0.1:9"
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "MPLBACKEND")}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), dead)
    return {**kept, **proxies, "PYTHONPATH": str(ROOT)}


def _assert_clean(notebook: Any) -> None:
    """No error, and nothing on stderr: neither warnings nor the remains of a progress bar."""
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
