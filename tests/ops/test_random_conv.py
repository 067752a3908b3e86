"""Random convolutions against loops: the value and every gradient, element by element."""

import functools
from typing import Any

import numpy as np
import pytest
import reference
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from ops_helpers import normal, unsimplified, value_and_grads, weights_of

from cnnjax import ops

CONV: dict[int, Any] = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
MODES = ["SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", "REPLICATE"]

# Of the largest number. Half precision rounds the sum, and once more with the bias.
TOLERANCES = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 1e-2, "float16": 1.5e-3}


@st.composite
def configurations(draw):
    """The shapes of x and kernel, whether there is a bias, the options, and a dtype."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return st.integers(low, high) | st.tuples(*[st.integers(low, high)] * rank)

    spatial = draw(st.lists(st.integers(1, (12, 7, 4)[rank - 1]), min_size=rank, max_size=rank))
    window = draw(st.tuples(*[st.integers(1, (6, 4, 3)[rank - 1])] * rank))
    groups, block, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    modes = st.sampled_from(MODES + ["CAUSAL"] * (rank == 1))
    amounts = each(0, 3) | st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    options = {
        "stride": draw(each(1, 4)),
        "padding": draw(modes if draw(st.booleans()) else amounts),
        "dilation": draw(each(1, 3)),
        "groups": groups,
    }
    if draw(st.integers(0, 9)):  # mostly large enough
        axes = per_axis(spatial, window, options)
        spans = [d * (k - 1) + 1 for _, k, _, _, d in axes]
        reflects = options["padding"] == "REFLECT"
        spatial = [
            max(n, span // 2 + 1 if reflects else span - sum(reference.pair(n, k, p, s, d)))
            for span, (n, k, s, p, d) in zip(spans, axes, strict=True)
        ]
    # XLA's CPU compiler aborts on some float64 gradients of depthwise kernels larger than the output.
    dtypes = [dtype for dtype in TOLERANCES if dtype != "float64" or block > 1 or groups == 1]
    shapes = (draw(st.sampled_from([1, 2, 1, 2, 3, 0])), *spatial, groups * block), (*window, block, groups * outputs)
    return *shapes, draw(st.booleans()), options, draw(st.sampled_from(dtypes)), draw(st.integers(0, 2**16))


def per_axis(spatial, window, options):
    """Of every axis: the size, the window, the stride, the padding as `ops.shapes` takes it, and the dilation."""
    rank, padding = len(spatial), options["padding"]
    return list(
        zip(
            spatial,
            window,
            reference.each_axis(options["stride"], rank),
            (padding,) * rank if isinstance(padding, str | int) else padding,
            reference.each_axis(options["dilation"], rank),
            strict=True,
        )
    )


def gradients(x, kernel, weights, options):
    """The gradients of the weighted sum of the outputs with respect to x and kernel, one tap at a time."""
    padding, groups = options["padding"], options["groups"]
    mode: Any = reference.FILL.get(padding, "constant") if isinstance(padding, str) else "constant"
    fill: Any = {"constant_values": -1} if mode == "constant" else {}
    axes = per_axis(x.shape[1:-1], kernel.shape[:-2], options)
    pixels = [np.pad(np.arange(n), reference.pair(n, k, p, s, d), mode, **fill) for n, k, s, p, d in axes]
    to_x, to_kernel = np.zeros_like(x), np.zeros_like(kernel)
    taken, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    for place in np.ndindex(*weights.shape[1:-1]):
        for tap in np.ndindex(*kernel.shape[:-2]):
            at = [pixel[p * s + t * d] for pixel, p, t, (*_, s, _, d) in zip(pixels, place, tap, axes, strict=True)]
            if min(at) < 0:
                continue
            for group in range(groups):
                read = (slice(None), *at, slice(group * taken, (group + 1) * taken))
                own = slice(group * outputs, (group + 1) * outputs)
                weight = weights[(slice(None), *place, own)]
                to_x[read] += weight @ kernel[tap][:, own].T
                to_kernel[(*tap, slice(None), own)] += x[read].T @ weight
    return to_x, to_kernel


@drawn
@given(configurations())
def test_random_configurations(configuration):
    x_shape, kernel_shape, with_bias, options, dtype, seed = configuration
    rank = len(x_shape) - 2
    args = [normal(seed, *x_shape), normal(seed + 1, *kernel_shape)]
    args = [arg.astype(dtype) for arg in [*args, normal(seed + 2, kernel_shape[-1])][: 2 + with_bias]]
    conv = functools.partial(CONV[rank], **options)
    axes = per_axis(x_shape[1:-1], kernel_shape[:-2], options)
    sizes = [ops.shapes.conv_output_size(n, k, stride=s, padding=p, dilation=d) for n, k, s, p, d in axes]
    if 0 in sizes:
        with pytest.raises(ValueError, match=rf"^conv{rank}d: kernel .* does not fit the padded input"):
            conv(*args)
        return
    if options["padding"] == "REFLECT" and any(d * (k - 1) + 1 >= 2 * n for n, k, *_, d in axes):
        with pytest.raises(ValueError, match=rf"^conv{rank}d: REFLECT must add fewer pixels than there are"):
            conv(*args)
        return
    steps = [axis[2] for axis in axes]
    y, grads = value_and_grads(conv, *args, compiler_options=unsimplified(kernel_shape[:-2], sizes, stride=steps))
    assert y.shape == (x_shape[0], *sizes, kernel_shape[-1])
    assert {y.dtype, *(grad.dtype for grad in grads)} == {np.dtype(dtype)}
    x, kernel, *bias = (arg.astype("float64") for arg in args)
    weights = weights_of(y.shape).astype(dtype).astype("float64")
    expected = [*gradients(x, kernel, weights, options), weights.sum(tuple(range(rank + 1)))]
    close(f"conv {dtype}", y, reference.conv(x, kernel, *bias, **options), TOLERANCES[dtype])
    for grad, their in zip(grads, expected[: len(grads)], strict=True):
        close(f"conv's gradients {dtype}", grad, their, TOLERANCES[dtype])
