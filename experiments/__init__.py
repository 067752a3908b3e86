"""Runnable experiments: python -m experiments.mnist, experiments.predict and experiments.bench."""

import time

STARTED = time.perf_counter()
"""When the program began, but for Python itself."""
