"""Report what the random comparisons found, over all processes of pytest-xdist."""

import comparison
import pytest

_parts = []


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
