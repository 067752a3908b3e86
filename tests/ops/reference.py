"""The ops once more, as plainly as possible: NumPy, loops, one window at a time."""

import math

import numpy as np

Padding = str | int | list | tuple

FILL = {"CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "edge"}


def pair(n, k, padding, stride=1, dilation=1):
    """The (low, high) pixels that a padding means along one axis."""
    if isinstance(padding, int):
        return padding, padding
    if not isinstance(padding, str):
        return padding
    span = (k - 1) * dilation + 1
    if padding == "VALID":
        return 0, 0
    if padding == "CAUSAL":
        return span - 1, 0
    if padding in FILL:
        return (span - 1) // 2, span // 2
    total = 0
    while (n + total - span) // stride + 1 < math.ceil(n / stride):
        total += 1
    less, more = total // 2, total - total // 2
    return (less, more) if padding == "SAME" else (more, less)


def each_axis(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def pairs(spatial, window, padding, stride, dilation):
    rank = len(spatial)
    stride, dilation = each_axis(stride, rank), each_axis(dilation, rank)
    paddings = (padding,) * rank if isinstance(padding, str | int) else padding
    return [pair(*axis) for axis in zip(spatial, window, paddings, stride, dilation, strict=True)]


def conv(x, kernel, bias=None, *, stride=1, padding: Padding = "SAME", dilation=1, groups=1):
    rank = x.ndim - 2
    window, (taken, outputs) = kernel.shape[:rank], kernel.shape[rank:]
    margin = pairs(x.shape[1:-1], window, padding, stride, dilation)
    stride, dilation = each_axis(stride, rank), each_axis(dilation, rank)
    mode = FILL.get(padding, "constant") if isinstance(padding, str) else "constant"
    x = np.pad(x, [(0, 0), *margin, (0, 0)], mode)  # pyright: ignore[reportCallIssue, reportArgumentType]
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[1:-1], window, stride, dilation, strict=True)]
    y = np.zeros((x.shape[0], *out, outputs), np.result_type(x, kernel))
    each = outputs // groups
    for place in np.ndindex(*out):
        for tap in np.ndindex(*window):
            at = [p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True)]
            for group in range(groups):
                own = slice(group * each, (group + 1) * each)
                pixel = x[(slice(None), *at, slice(group * taken, (group + 1) * taken))]
                y[(slice(None), *place, own)] += pixel @ kernel[tap][:, own]
    return y if bias is None else y + bias


def taps(n, k, stride, low, high, dilation, ceil_mode):
    """For every window along one axis, the positions of its taps; those outside range(n) lie in the padding."""
    windows, start = [], -low
    slack = stride - 1 if ceil_mode else 0
    while start + (k - 1) * dilation + 1 <= n + high + slack and (start < n or not ceil_mode):
        windows.append([start + t * dilation for t in range(k)])
        start += stride
    return windows


def pool_windows(spatial, window, stride, padding, dilation, ceil_mode):
    """One list of windows an axis, and the (low, high) padding of that axis."""
    rank = len(spatial)
    window = each_axis(window, rank)
    stride = window if stride is None else each_axis(stride, rank)
    margin = pairs(spatial, window, padding, stride, dilation)
    dilation = each_axis(dilation, rank)
    axes = zip(spatial, window, stride, margin, dilation, strict=True)
    return [taps(n, k, s, low, high, d, ceil_mode) for n, k, s, (low, high), d in axes], margin


def legal(windows, spatial):
    """Whether there is an output, and every window sees a pixel."""
    return all(
        axis and all(any(0 <= i < n for i in window) for window in axis)
        for axis, n in zip(windows, spatial, strict=True)
    )


def _pixels(windows, place, spatial):
    """Where the taps of the window at a place lie, in row-major order, without those in the padding."""
    chosen = [axis[p] for axis, p in zip(windows, place, strict=True)]
    for tap in np.ndindex(*map(len, chosen)):
        at = tuple(axis[t] for axis, t in zip(chosen, tap, strict=True))
        if all(0 <= i < n for i, n in zip(at, spatial, strict=True)):
            yield at


def max_pool(x, window, *, stride=None, padding: Padding = "VALID", dilation=1, ceil_mode=False, weights=None):
    """The maxima; with `weights` for every output, the gradient of their weighted sum: the first of equals."""
    spatial = x.shape[1:-1]
    windows, _ = pool_windows(spatial, window, stride, padding, dilation, ceil_mode)
    y = np.zeros((x.shape[0], *map(len, windows), x.shape[-1]), x.dtype)
    gradient = np.zeros_like(x)
    for place in np.ndindex(*map(len, windows)):
        pixels = list(_pixels(windows, place, spatial))
        values = np.stack([x[(slice(None), *at)] for at in pixels])
        y[(slice(None), *place)] = values.max(0)
        for (n, c), best in np.ndenumerate(values.argmax(0)):
            if weights is not None:
                gradient[(n, *pixels[best], c)] += weights[(n, *place, c)]
    return y if weights is None else gradient


def avg_pool(
    x, window, *, stride=None, padding: Padding = "VALID", dilation=1, ceil_mode=False, count_include_pad=True
):
    spatial = x.shape[1:-1]
    windows, margin = pool_windows(spatial, window, stride, padding, dilation, ceil_mode)
    y = np.zeros((x.shape[0], *map(len, windows), x.shape[-1]), x.dtype)
    for place in np.ndindex(*map(len, windows)):
        total = sum(x[(slice(None), *at)] for at in _pixels(windows, place, spatial))
        divisor = 1
        for axis, p, n, (low, high) in zip(windows, place, spatial, margin, strict=True):
            first, last = (-low, n + high) if count_include_pad else (0, n)
            divisor *= sum(first <= i < last for i in axis[p])
        y[(slice(None), *place)] = total / divisor
    return y
