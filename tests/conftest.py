"""Eight virtual CPU devices for the whole test process: the flag counts only before JAX starts its backend.

With --accelerate the tests run on what cnnjax.accelerate() compiles.
"""

import os

import pytest

_FLAG = "--xla_force_host_platform_device_count"
# Where compiling is most of the time.
_LIGHTLY = {"ops", "models", "train", "explain", "experiments"}

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


@pytest.fixture(autouse=True, scope="module")
def _compilation(request):
    """Compile lightly in the quick tier, as for users in the others, and let a file's programs go with it."""
    import jax

    quick = request.config.option.markexpr == "not slow" and not request.config.getoption("--accelerate")
    light = quick and request.path.parent.name in _LIGHTLY
    jax.config.update("jax_disable_most_optimizations", light)
    # For the processes that the tests start: what is compiled otherwise computes other bits.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(light))
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    # Thousands of programs kept would slow the process down.
    jax.clear_caches()
