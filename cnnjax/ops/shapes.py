"""The integer arithmetic of CNNs, one spatial axis at a time: paddings, output sizes, receptive fields."""

import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PAD_MODES = ("SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", "REFLECT", "REPLICATE")
TRANSPOSE_MODES = ("SAME", "SAME_LOWER", "VALID")


def effective_size(k: int, *, dilation: int = 1) -> int:
    """Count the pixels that a dilated window spans.

    size = dilation * (k - 1) + 1

    Args:
        k: window size, at least 1.
        dilation: distance between neighbouring taps, at least 1.

    Returns:
        The span, an int; k itself without dilation.

    Raises:
        ValueError: k or dilation is below 1.

    Example:
        >>> effective_size(3, dilation=2)
        5

    Source:
        Yu & Koltun 2016, "Multi-Scale Context Aggregation by Dilated Convolutions", section 2.
    """
    _at_least_one("effective_size", k=k, dilation=dilation)
    return dilation * (k - 1) + 1


def padding_amounts(
    n: int, k: int, *, padding: str | int | tuple[int, int], stride: int = 1, dilation: int = 1
) -> tuple[int, int]:
    """Turn a padding into the pixels added (before, after) one axis.

    SAME gives ceil(n / stride) outputs and puts an odd pixel at the end, SAME_LOWER at the start. CAUSAL pads
    the start alone, so that no output sees its future. CIRCULAR, REFLECT and REPLICATE give amounts that do not
    depend on the stride; what they fill in is the convolution's affair.

    Args:
        n: input size in pixels.
        k: window size, at least 1.
        padding: "SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", "REFLECT" or "REPLICATE" in any case, an
            int for both sides, or a (low, high) pair; amounts are at least 0.
        stride: step of the window, at least 1.
        dilation: distance between neighbouring taps, at least 1.

    Returns:
        (low, high), two ints.

    Raises:
        ValueError: an unknown mode, a negative amount, or a size below 1.

    Example:
        >>> padding_amounts(28, 4, padding="SAME"), padding_amounts(28, 4, padding="SAME_LOWER")
        ((1, 2), (2, 1))

    Source:
        SAME as TensorFlow, SAME_LOWER as ONNX, the modes that fill in as flax.nnx.Conv.
    """
    _at_least_one("padding_amounts", k=k, stride=stride, dilation=dilation)
    if isinstance(padding, str):
        span = dilation * (k - 1) + 1
        missing = max((-(-n // stride) - 1) * stride + span - n, 0)
        match padding.upper():
            case "VALID":
                return 0, 0
            case "SAME":
                return missing // 2, missing - missing // 2
            case "SAME_LOWER":
                return missing - missing // 2, missing // 2
            case "CAUSAL":
                return span - 1, 0
            case "CIRCULAR" | "REFLECT" | "REPLICATE":
                return (span - 1) // 2, span // 2
        raise ValueError(f"padding_amounts: padding must be one of {', '.join(PAD_MODES)}, got {padding!r}.")
    low, high = padding if isinstance(padding, Sequence) else (operator.index(padding), operator.index(padding))
    if min(low, high) < 0:
        raise ValueError(f"padding_amounts: amounts must be at least 0, got {padding!r}. Crop x instead.")
    return low, high


def conv_output_size(
    n: int, k: int, *, stride: int = 1, padding: str | int | tuple[int, int] = 0, dilation: int = 1
) -> int:
    """Compute how many outputs a convolution has along one axis.

    floor((n + low + high - dilation * (k - 1) - 1) / stride) + 1, or 0 where the window does not fit.

    Args:
        n: input size in pixels.
        k: kernel size, at least 1.
        stride: step of the window, at least 1.
        padding: as in `padding_amounts`.
        dilation: distance between neighbouring taps, at least 1.

    Returns:
        The output size, an int of at least 0. The ops refuse an output without pixels.

    Raises:
        ValueError: an unknown mode, a negative amount, or a size below 1.

    Example:
        >>> conv_output_size(32, 5), conv_output_size(7, 3, stride=2), conv_output_size(7, 3, padding=1)
        (28, 3, 7)

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", relationship 6.
    """
    low, high = padding_amounts(n, k, padding=padding, stride=stride, dilation=dilation)
    return max((n + low + high - effective_size(k, dilation=dilation)) // stride + 1, 0)


def conv_transpose_output_size(
    n: int,
    k: int,
    *,
    stride: int = 1,
    padding: str | int | tuple[int, int] = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> int:
    """Compute how many outputs a transposed convolution has along one axis.

    (n - 1) * stride + dilation * (k - 1) + 1 - low - high + output_padding, or 0 where all is cropped. With SAME and
    SAME_LOWER it is n * stride + output_padding, for any k.

    Args:
        n: input size in pixels.
        k: kernel size, at least 1.
        stride: distance in the output between neighbouring pixels of the input, at least 1.
        padding: "SAME", "SAME_LOWER" or "VALID" in any case, or what is cropped: an int for both sides, or a
            (low, high) pair; amounts are at least 0.
        output_padding: pixels more at the end, at least 0, less than the stride or than the dilation.
        dilation: distance between neighbouring taps, at least 1.

    Returns:
        The output size, an int of at least 0. The ops refuse an output without pixels.

    Raises:
        ValueError: an unknown mode, a negative amount, a size below 1, or too large an output_padding.

    Example:
        >>> conv_transpose_output_size(4, 3, stride=2), conv_transpose_output_size(4, 3, stride=2, padding="SAME")
        (9, 8)
        >>> conv_output_size(8, 3, stride=2, padding=1), conv_output_size(7, 3, stride=2, padding=1)
        (4, 4)
        >>> [conv_transpose_output_size(4, 3, stride=2, padding=1, output_padding=extra) for extra in (1, 0)]
        [8, 7]

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", relationship 14.
    """
    name = "conv_transpose_output_size"
    mode = padding.upper() if isinstance(padding, str) else None
    if mode is not None and mode not in TRANSPOSE_MODES:
        raise ValueError(f"{name}: padding must be amounts or one of {', '.join(TRANSPOSE_MODES)}, got {padding!r}.")
    low, high = padding_amounts(n * stride, k, padding=padding, stride=stride, dilation=dilation)
    if not 0 <= output_padding < max(stride, dilation):
        raise ValueError(
            f"{name}: output_padding must be at least 0 and below the stride or the dilation, got {output_padding} with"
            f" stride {stride} and dilation {dilation}."
        )
    if mode in ("SAME", "SAME_LOWER"):
        return n * stride + output_padding
    return max((n - 1) * stride + effective_size(k, dilation=dilation) - low - high + output_padding, 0)


def pool_output_size(
    n: int,
    k: int,
    *,
    stride: int | None = None,
    padding: str | int | tuple[int, int] = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """Compute how many outputs a pool has along one axis.

    As a convolution's, but the stride defaults to the window, and `ceil_mode` rounds up: the last window may
    then hang over the end, if it starts inside the input or the padding before it.

    Args:
        n: input size in pixels.
        k: window size, at least 1.
        stride: step of the window, at least 1; None is k.
        padding: as in `padding_amounts`.
        dilation: distance between neighbouring taps, at least 1.
        ceil_mode: round up instead of down.

    Returns:
        The output size, an int of at least 0. The ops refuse an output without pixels.

    Raises:
        ValueError: an unknown mode, a negative amount, or a size below 1.

    Example:
        >>> pool_output_size(5, 2), pool_output_size(5, 2, ceil_mode=True)
        (2, 3)

    Source:
        torch.nn.MaxPool2d, section Shape.
    """
    stride = k if stride is None else stride
    low, high = padding_amounts(n, k, padding=padding, stride=stride, dilation=dilation)
    room = n + low + high - effective_size(k, dilation=dilation)
    if not ceil_mode:
        return max(room // stride + 1, 0)
    size = -(-room // stride) + 1
    return max(size - ((size - 1) * stride >= n + low), 0)


class ReceptiveField(NamedTuple):
    """What one output sees of one input axis: output i sees pixels start + i * jump, `size` of them."""

    size: int
    jump: int
    start: int


class Window(NamedTuple):
    """A convolution or pool along one axis, as `receptive_field` takes it."""

    size: int
    stride: int = 1
    padding_low: int = 0
    dilation: int = 1


def receptive_field(layers: Iterable[Window | tuple[int, ...]]) -> ReceptiveField:
    """Compute which input pixels an output of stacked convolutions and pools sees, along one axis.

    size grows by dilation * (k - 1) * jump a layer, jump multiplies by the stride, and start moves back by
    padding_low * jump. A negative start lies in the padding.

    Args:
        layers: from input to output, a `Window` or (size, stride, padding_low, dilation) each, with the defaults
            1, 0, 1 for what is left out.

    Returns:
        ReceptiveField(size, jump, start), ints in input pixels.

    Raises:
        ValueError: a size, stride or dilation is below 1.

    Example:
        >>> receptive_field([(5,), (2, 2), (5,), (2, 2)])  # LeNet-5 up to its second pool
        ReceptiveField(size=16, jump=4, start=0)

    Source:
        Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", equations 2-4.
    """
    size, jump, start = 1, 1, 0
    for k, stride, low, dilation in (Window(*layer) for layer in layers):
        _at_least_one("receptive_field", size=k, stride=stride, dilation=dilation)
        size += dilation * (k - 1) * jump
        start -= low * jump
        jump *= stride
    return ReceptiveField(size, jump, start)


def _at_least_one(op: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{op}: {name} must be at least 1, got {value}.")
