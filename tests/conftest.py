"""Eight virtual CPU devices for the whole test process: the flag counts only before JAX starts its backend.

With --accelerate the tests run on what cnnjax.accelerate() compiles.
"""

import os

_FLAG = "--xla_force_host_platform_device_count"

if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=8".strip()


def pytest_addoption(parser):
    """Add the option."""
    parser.addoption("--accelerate", action="store_true", help="run on what cnnjax.accelerate() compiles")


def pytest_configure(config):
    """Accelerate this process, a worker of pytest-xdist or the only one."""
    if config.getoption("--accelerate"):
        import cnnjax

        cnnjax.accelerate()
