"""A third of every large grid for the quick tier, and what the random comparisons found in all processes."""

from collections import defaultdict
from pathlib import Path

import comparison
import pytest

_LARGE = 4  # cases of one test
_parts = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark two thirds of every large grid of options slow: one case of three, of every three another one."""
    grids = defaultdict(list)
    for item in items:
        if item.path.parent == Path(__file__).parent:
            grids[item.path, item.originalname].append(item)
    for grid in grids.values():
        for number, item in enumerate(grid):
            if len(grid) > _LARGE and (number + number // 3) % 3:
                item.add_marker(pytest.mark.slow)


def pytest_sessionfinish(session):
    """Send a worker's part to the controller; keep one's own."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["comparisons"] = comparison.found
    else:
        _parts.append(comparison.found)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Receive a worker's part."""
    _parts.append(getattr(node, "workeroutput", {}).get("comparisons", {}))


def pytest_terminal_summary(terminalreporter):
    """Print a line a family."""
    for family, (count, error) in sorted(comparison.merged(_parts).items()):
        terminalreporter.write_line(f"{family}: {count:.0f} arrays compared, largest relative error {error:.1e}")
