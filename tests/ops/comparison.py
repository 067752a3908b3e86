"""Random comparisons of the ops with something independent: how many were made, and the largest error."""

import math
import os

import numpy as np
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("CNNJAX_EXAMPLES", "15"))
"""Configurations a family: CNNJAX_EXAMPLES=2000 for the whole proof."""

drawn = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

found: dict[str, list[float]] = {}
"""Of every family, how many arrays were compared and the largest relative error."""


def close(family, ours, theirs, tolerance=1e-10):
    """Compare two arrays, NaN and infinities included, relative to the largest finite number of the second."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(ours[~finite], theirs[~finite])
    scale = max(float(np.max(np.abs(theirs[finite]), initial=0.0)), 1.0)
    error = float(np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0)) / scale
    entry = found.setdefault(family, [0, 0.0])
    entry[0] += 1
    entry[1] = max(entry[1], error)
    assert error <= tolerance, f"{family}: relative error {error:.1e}"


def merged(parts):
    """What several processes found."""
    total: dict[str, list[float]] = {}
    for part in parts:
        for family, (count, error) in part.items():
            entry = total.setdefault(family, [0, 0.0])
            entry[0] += count
            entry[1] = max(entry[1], error) if not math.isnan(error) else error
    return total
