from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mnist_folder():
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("shared/data is not part of the project")
    return folder
