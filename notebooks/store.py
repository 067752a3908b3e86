"""Run notebooks from a bare kernel and store them with their pictures: python notebooks/store.py [NAME.ipynb ...]."""

import sys
from pathlib import Path

import nbclient
import nbformat


def store(path: Path) -> None:
    """Execute one notebook and write it back, without the times of the run."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    # Lines that a cell prints one by one stay one output.
    nbclient.NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(notebook, path)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    folder = Path(__file__).parent
    for name in sys.argv[1:] or sorted(folder.glob("*.ipynb")):
        store(Path(name))
