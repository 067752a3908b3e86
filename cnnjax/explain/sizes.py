"""The output size of a convolution or pool, worked with numbers."""

from cnnjax.ops import shapes


def size_formula(
    n: int,
    k: int,
    *,
    stride: int = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> str:
    """Write out how the output size of a convolution or pool follows from its numbers, along one axis.

    floor((n + low + high - dilation * (k - 1) - 1) / stride) + 1, which without dilation and with equal padding
    is floor((n + 2p - k) / s) + 1.

    Args:
        n: input size in pixels, at least 1.
        k: size of kernel or window, at least 1.
        stride: step of the window, at least 1; a pool's is usually k.
        padding: as in `ops.shapes.padding_amounts`.
        dilation: distance between neighbouring taps, at least 1.
        ceil_mode: round up instead of down, as pools may.

    Returns:
        The formula with its numbers, and the size after the last equals sign but for what SAME adds.

    Raises:
        ValueError: a size below 1, an unknown padding, or a window that does not fit.

    Example:
        >>> size_formula(7, 3, stride=2)
        'floor((7 + 2·0 − 3) / 2) + 1 = 3'
        >>> size_formula(8, 3, stride=2, padding="SAME")
        'floor((8 + 0 + 1 − 3) / 2) + 1 = 4 = ceil(8 / 2)'

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", relationship 6; ceil_mode as
        torch.nn.MaxPool2d.
    """
    if n < 1:
        raise ValueError(f"size_formula: n must be at least 1, got {n}. Give the size of the input in pixels.")
    low, high = shapes.padding_amounts(n, k, padding=padding, stride=stride, dilation=dilation)
    size = shapes.pool_output_size(n, k, stride=stride, padding=(low, high), dilation=dilation, ceil_mode=ceil_mode)
    if size < 1:
        span = shapes.effective_size(k, dilation=dilation)
        raise ValueError(
            f"size_formula: a window of {span} does not fit the padded input of {n + low + high}."
            " Pad, or use a smaller window."
        )
    padded = f"{n} + 2·{low}" if low == high else f"{n} + {low} + {high}"
    span = str(k) if dilation == 1 else f"{dilation}·({k} − 1) − 1"
    text = f"{'ceil' if ceil_mode else 'floor'}(({padded} − {span}) / {stride}) + 1"
    room = n + low + high - shapes.effective_size(k, dilation=dilation)
    if ceil_mode and -(-room // stride) + 1 > size:
        text += " − 1 (the last window would start after the input)"
    same = isinstance(padding, str) and padding.upper().startswith("SAME")
    return f"{text} = {size}" + (f" = ceil({n} / {stride})" if same else "")
