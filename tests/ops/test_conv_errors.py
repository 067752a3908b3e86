"""What the convolutions refuse, and in which words."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnnjax import ops

CONV: dict[int, Any] = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, KERNEL = ones(1, 8, 8, 3), ones(3, 3, 3, 8)

EXACT = [
    (
        (ones(8, 8, 3), KERNEL),
        {},
        "conv2d: x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None].",
    ),
    (
        (ones(2, 1, 8, 8, 3), KERNEL),
        {},
        "conv2d: x must be (N, H, W, C), got shape (2, 1, 8, 8, 3). Use vmap for more batch axes.",
    ),
    (
        (ones(32, 3, 28, 28), KERNEL),
        {},
        "conv2d: x (32, 3, 28, 28) looks channels-first: kernel (3, 3, 3, 8) takes 3 channels in the last axis."
        " Use x.transpose(0, 2, 3, 1).",
    ),
    (
        (ones(1, 0, 8, 3), KERNEL),
        {},
        "conv2d: x must have pixels, got shape (1, 0, 8, 3). Only the batch axis may be empty.",
    ),
    (
        (PICTURE, ones(3, 3, 1, 8)),
        {"groups": 3},
        "conv2d: groups must divide the output channels, got groups=3 and kernel (3, 3, 1, 8)."
        " Use a multiple of 3 output channels.",
    ),
    (
        (PICTURE, KERNEL, ones(3)),
        {},
        "conv2d: bias must be (8,), one value an output channel, got shape (3,).",
    ),
    (
        (PICTURE, KERNEL, ones(1, 8)),
        {},
        "conv2d: bias must be (8,), one value an output channel, got shape (1, 8).",
    ),
    (
        (PICTURE, ones(3, 3, 8)),
        {},
        "conv2d: kernel must be (*window, C_in // groups, C_out) with 2 window axes, got shape (3, 3, 8).",
    ),
    (
        (PICTURE, ones(0, 3, 3, 8)),
        {},
        "conv2d: kernel must be (*window, C_in // groups, C_out) with 2 window axes, got shape (0, 3, 3, 8).",
    ),
    (
        (PICTURE, KERNEL),
        {"stride": (1, 2, 3)},
        "conv2d: stride takes one value an axis (2), got (1, 2, 3). Give an int for all axes.",
    ),
    (
        (PICTURE, KERNEL),
        {"padding": "FULL"},
        "conv2d: padding must be amounts or one of SAME, SAME_LOWER, VALID, CIRCULAR, REFLECT, REPLICATE, got 'FULL'.",
    ),
    (
        (ones(1, 4, 7, 3), ones(5, 5, 3, 8)),
        {"padding": "VALID"},
        "conv2d: kernel (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller kernel.",
    ),
    (
        (ones(1, 7, 4, 3), KERNEL),
        {"padding": ((0, 0), (1, 1)), "dilation": 3},
        "conv2d: kernel (3, 3) with dilation (3, 3) does not fit the padded input (7, 6) along W."
        " Pad, or use a smaller kernel.",
    ),
    (
        (ones(1, 9, 3, 3), ones(3, 7, 3, 8)),
        {"padding": "reflect"},
        "conv2d: REFLECT must add fewer pixels than there are, got 3 for 3 along W. Use REPLICATE, or a smaller"
        " kernel.",
    ),
    ((PICTURE, KERNEL), {"stride": 0}, "conv2d: stride must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"stride": (1, -1)}, "conv2d: stride must be at least 1, got (1, -1)."),
    ((PICTURE, KERNEL), {"dilation": 0}, "conv2d: dilation must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"groups": 0}, "conv2d: groups must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"padding": -1}, "conv2d: padding must be at least 0, got -1."),
    ((PICTURE, KERNEL), {"padding": (1, -2)}, "conv2d: padding must be at least 0, got (1, -2)."),
]


@pytest.mark.parametrize(("args", "options", "message"), EXACT)
def test_errors_word_for_word(args, options, message):
    with pytest.raises(ValueError, match="conv2d") as caught:
        ops.conv2d(*args, **options)
    assert str(caught.value) == message


def test_channel_mismatch_begins_as_the_design_says():
    with pytest.raises(ValueError, match="conv2d") as caught:
        ops.conv2d(ones(1, 28, 28, 4), KERNEL)
    assert str(caught.value).startswith("conv2d: x has 4 channels but kernel (3, 3, 3, 8) with groups=1 takes 3.")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"padding": ((1, 1), (1, -1))}, r"^conv2d: .*pair.* must be at least 0, got \(1, -1\)"),
        ({"padding": ((1, 1),)}, r"^conv2d: padding takes one \(low, high\) pair an axis \(2\), got \(\(1, 1\),\)"),
        ({"padding": ((1, 1), (1, 1), (1, 1))}, r"^conv2d: padding takes one \(low, high\) pair an axis \(2\)"),
        ({"padding": ((1, 1, 1), (1, 1, 1))}, r"^conv2d: .*pair.* \(1, 1, 1\)"),
        ({"padding": (1, 2, 3)}, r"^conv2d: padding takes one value an axis \(2\), got \(1, 2, 3\)"),
        ({"padding": ()}, r"^conv2d: padding takes one value an axis \(2\), got \(\)"),
        ({"padding": "CAUSAL"}, r"^conv2d: padding must be amounts or one of SAME, .*REPLICATE, got 'CAUSAL'"),
        ({"padding": ""}, r"^conv2d: padding must be amounts or one of SAME, .*REPLICATE, got ''"),
        ({"dilation": (1,)}, r"^conv2d: dilation takes one value an axis \(2\), got \(1,\)"),
        ({"groups": 2}, r"^conv2d: x has 3 channels but kernel \(3, 3, 3, 8\) with groups=2 takes 6\."),
        ({"groups": -1}, r"^conv2d: groups must be at least 1, got -1"),
    ],
)
def test_errors_of_value(options, pattern):
    with pytest.raises(ValueError, match=pattern):
        ops.conv2d(PICTURE, KERNEL, **options)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"stride": 1.5}, r"^conv2d: stride must be an int or 2 ints, got 1\.5"),
        ({"stride": "2"}, r"^conv2d: stride must be an int or 2 ints, got '2'"),
        ({"dilation": (1, 2.0)}, r"^conv2d: dilation must be an int or 2 ints, got \(1, 2\.0\)"),
        ({"padding": None}, r"^conv2d: padding must be .*got None"),
        ({"padding": ((1, 1), 2)}, r"^conv2d: padding must be .*got \(\(1, 1\), 2\)"),
        ({"groups": 1.0}, r"^conv2d: groups must be an int.*got 1\.0"),
    ],
)
def test_errors_of_type(options, pattern):
    with pytest.raises(TypeError, match=pattern):
        ops.conv2d(PICTURE, KERNEL, **options)


@pytest.mark.parametrize("groups", [(1,), (1, 1), [3]])
def test_groups_is_one_int(groups):
    with pytest.raises((TypeError, ValueError), match=r"^conv2d: groups must be an int"):
        ops.conv2d(PICTURE, KERNEL, groups=groups)


@pytest.mark.parametrize("shape", [(8, 8), (3,), ()])
def test_more_than_a_batch_axis_missing(shape):
    """Vmap is for too many axes, not for too few."""
    with pytest.raises(ValueError, match=r"^conv2d: x must be \(N, H, W, C\), got shape") as caught:
        ops.conv2d(ones(*shape), KERNEL)
    assert "vmap" not in str(caught.value)


@pytest.mark.parametrize(("op", "rank"), [(ops.conv1d, 1), (ops.conv3d, 3)])
def test_flat_pair_must_be_nested(op, rank):
    """(low, high) of one axis, or of all: both readings are possible, so neither is taken."""
    x, kernel = ones(1, *(5,) * rank, 1), ones(*(3,) * rank, 1, 1)
    with pytest.raises(ValueError, match=rf"^{op.__name__}: padding takes one value an axis \({rank}\).* Nest"):
        op(x, kernel, padding=(1, 2))


@ranks
def test_channels_first_in_every_rank(rank):
    spatial = (9, 8, 7)[:rank]
    wrong = ones(2, 4, *spatial)
    fix = {1: "(0, 2, 1)", 2: "(0, 2, 3, 1)", 3: "(0, 2, 3, 4, 1)"}[rank]
    with pytest.raises(ValueError, match="looks channels-first") as caught:
        CONV[rank](wrong, ones(*(3,) * rank, 2, 8), groups=2)
    assert str(caught.value).endswith(f"takes 4 channels in the last axis. Use x.transpose{fix}.")
    assert CONV[rank](jnp.transpose(wrong, eval(fix)), ones(*(3,) * rank, 2, 8), groups=2).shape == (2, *spatial, 8)


@ranks
def test_errors_name_their_op(rank):
    for args in [(ones(3), KERNEL), (ones(1, *(5,) * rank, 3), ones(*(3,) * rank, 2, 1))]:
        with pytest.raises(ValueError, match=f"^conv{rank}d: "):
            CONV[rank](*args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (ones(1, 8, 8, 3, dtype="bfloat16"), KERNEL),
            "conv2d: x is bfloat16 but kernel is float32. Cast one, as in kernel.astype(x.dtype).",
        ),
        (
            (PICTURE, KERNEL, ones(8, dtype="bfloat16")),
            "conv2d: x is float32 but bias is bfloat16. Cast one, as in bias.astype(x.dtype).",
        ),
        (
            (ones(1, 8, 8, 3, dtype="uint8"), KERNEL),
            "conv2d: x must be floating point, got uint8. Cast it with x.astype('float32').",
        ),
        (
            (PICTURE, ones(3, 3, 3, 8, dtype="int32")),
            "conv2d: kernel must be floating point, got int32. Cast it with kernel.astype('float32').",
        ),
        (
            (PICTURE, KERNEL, ones(8, dtype="int32")),
            "conv2d: bias must be floating point, got int32. Cast it with bias.astype('float32').",
        ),
        (
            (ones(1, 8, 8, 3, dtype="bool"), KERNEL),
            "conv2d: x must be floating point, got bool. Cast it with x.astype('float32').",
        ),
    ],
)
def test_errors_of_dtype_word_for_word(args, message):
    with pytest.raises(TypeError, match="conv2d") as caught:
        ops.conv2d(*args)
    assert str(caught.value) == message


def test_errors_come_before_lax(monkeypatch):
    monkeypatch.setattr(lax, "conv_general_dilated", lambda *args, **options: pytest.fail("lax saw the call"))
    for args, options, _ in EXACT:
        with pytest.raises(ValueError, match=r"^conv2d: "):
            ops.conv2d(*args, **options)


def test_errors_under_jit():
    with pytest.raises(ValueError, match="looks channels-first"):
        jax.jit(ops.conv2d)(ones(2, 3, 9, 9), KERNEL)
