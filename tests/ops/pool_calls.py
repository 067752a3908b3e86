"""Random calls of a pool."""

import numpy as np
import reference
from hypothesis import strategies as st


@st.composite
def calls(draw):
    """Rank, shape of x, window and options. The window may not fit, or see padding alone."""
    rank = draw(st.integers(1, 3))

    def each(largest, smallest=1):
        return tuple(draw(st.integers(smallest, largest)) for _ in range(rank))

    spatial, window = each((12, 8, 5)[rank - 1]), each((6, 5, 4)[rank - 1])
    amounts = st.tuples(
        *(st.tuples(*[st.integers(0, k // 2 + draw(st.sampled_from([0] * 9 + [1])))] * 2) for k in window)
    )
    options = {
        "stride": draw(st.sampled_from([None, 1, 2, each(4)])),
        "padding": draw(st.sampled_from(["SAME", "SAME_LOWER", "VALID"]) | amounts),
        "dilation": draw(st.sampled_from([1, 1, 2, each(3)])),
        "ceil_mode": draw(st.booleans()),
    }
    return rank, (draw(st.integers(1, 2)), *spatial, draw(st.integers(1, 2))), window, options


def windows(shape, window, options):
    """Where the taps lie, one list of windows an axis; None where the call must be refused."""
    spatial = shape[1:-1]
    found, _ = reference.pool_windows(
        spatial, window, options["stride"], options["padding"], options["dilation"], options["ceil_mode"]
    )
    return found if reference.legal(found, spatial) else None


REFUSED = r"does not fit the padded input|every window must see a pixel"


def pixels(found, spatial):
    """For every window its place, and the places of its pixels in row-major order."""
    for place in np.ndindex(*map(len, found)):
        chosen = [axis[p] for axis, p in zip(found, place, strict=True)]
        taps = (tuple(axis[t] for axis, t in zip(chosen, tap, strict=True)) for tap in np.ndindex(*map(len, chosen)))
        yield place, [at for at in taps if all(0 <= i < n for i, n in zip(at, spatial, strict=True))]
