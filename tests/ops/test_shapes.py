from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from cnnjax import ops
from cnnjax.ops import shapes

CONV: dict[int, Any] = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
MAX: dict[int, Any] = {1: ops.max_pool1d, 2: ops.max_pool2d, 3: ops.max_pool3d}
AVG: dict[int, Any] = {1: ops.avg_pool1d, 2: ops.avg_pool2d, 3: ops.avg_pool3d}


@pytest.mark.parametrize(("k", "dilation", "expected"), [(1, 1, 1), (1, 9, 1), (3, 1, 3), (3, 2, 5), (2, 4, 5)])
def test_effective_size(k, dilation, expected):
    assert shapes.effective_size(k, dilation=dilation) == expected


@pytest.mark.parametrize(
    ("n", "k", "options", "expected"),
    [
        (28, 5, {"padding": "SAME"}, (2, 2)),
        (28, 4, {"padding": "SAME"}, (1, 2)),
        (28, 4, {"padding": "SAME_LOWER"}, (2, 1)),
        (28, 4, {"padding": "same_lower"}, (2, 1)),
        (7, 3, {"padding": "SAME", "stride": 2}, (1, 1)),
        (8, 3, {"padding": "SAME", "stride": 2}, (0, 1)),
        (8, 3, {"padding": "SAME_LOWER", "stride": 2}, (1, 0)),
        (8, 1, {"padding": "SAME", "stride": 3}, (0, 0)),
        (8, 3, {"padding": "SAME", "dilation": 3}, (3, 3)),
        (8, 3, {"padding": "VALID"}, (0, 0)),
        (8, 3, {"padding": "Causal", "dilation": 2}, (4, 0)),
        (8, 4, {"padding": "CIRCULAR", "stride": 3}, (1, 2)),
        (8, 4, {"padding": "REFLECT"}, (1, 2)),
        (8, 2, {"padding": "REPLICATE", "dilation": 3}, (1, 2)),
        (8, 2, {"padding": 3}, (3, 3)),
        (8, 2, {"padding": (3, 0)}, (3, 0)),
    ],
)
def test_padding_amounts(n, k, options, expected):
    assert shapes.padding_amounts(n, k, **options) == expected


def test_output_sizes_of_the_design():
    """floor((n + 2p - k) / s) + 1."""
    for n, k, s, p in np.ndindex(12, 6, 4, 4):
        expected = (n + 1 + 2 * p - (k + 1)) // (s + 1) + 1 if n + 1 + 2 * p >= k + 1 else 0
        assert shapes.conv_output_size(n + 1, k + 1, stride=s + 1, padding=p) == expected


@pytest.mark.parametrize(
    ("n", "k", "options", "expected"),
    [
        (5, 2, {}, 2),
        (5, 2, {"ceil_mode": True}, 3),
        (5, 2, {"stride": 1}, 4),
        (3, 4, {}, 0),
        (3, 4, {"ceil_mode": True}, 1),
        (1, 4, {"ceil_mode": True}, 1),
        (1, 4, {"ceil_mode": True, "stride": 2}, 0),
        (4, 1, {"stride": 2, "ceil_mode": True}, 2),
        (2, 2, {"stride": 5, "padding": 1, "ceil_mode": True}, 1),
        (6, 3, {"stride": 2, "padding": "SAME"}, 3),
    ],
)
def test_pool_output_size(n, k, options, expected):
    assert shapes.pool_output_size(n, k, **options) == expected


@pytest.mark.parametrize(
    ("n", "k", "options", "expected"),
    [
        (4, 3, {}, 6),
        (4, 3, {"stride": 2}, 9),
        (4, 3, {"stride": 2, "padding": 1}, 7),
        (4, 3, {"stride": 2, "padding": (0, 2), "output_padding": 1}, 8),
        (4, 3, {"stride": 2, "dilation": 3, "output_padding": 2}, 15),
        (4, 1, {"stride": 5, "padding": "VALID"}, 16),
        (4, 1, {"stride": 5, "padding": "same"}, 20),
        (4, 9, {"stride": 2, "padding": "SAME_LOWER", "output_padding": 1}, 9),
        (1, 2, {"padding": 1}, 0),
        (1, 2, {"padding": 3}, 0),
    ],
)
def test_conv_transpose_output_size(n, k, options, expected):
    assert shapes.conv_transpose_output_size(n, k, **options) == expected


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID", 0, 1, (2, 1)])
def test_conv_transpose_gives_back_what_a_convolution_reads(padding):
    """With the output_padding that makes up for what the convolution's size rounds away."""
    for n, k, stride, dilation in np.ndindex(9, 4, 4, 3):
        options: Any = {"stride": stride + 1, "padding": padding, "dilation": dilation + 1}
        size = shapes.conv_output_size(n + 1, k + 1, **options)
        if size < 1:
            continue
        extras = range(stride + 1)
        sizes = [shapes.conv_transpose_output_size(size, k + 1, output_padding=extra, **options) for extra in extras]
        if padding in ("SAME", "SAME_LOWER"):
            assert sizes[0] == size * (stride + 1)
        else:
            assert n + 1 in sizes


@pytest.mark.parametrize("k", range(1, 6))
def test_against_counting(k):
    """Every window is enumerated."""
    paddings: list[Any] = ["SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", 0, 1, (0, 2), (2, 1)]
    for n, stride, dilation in np.ndindex(9, 4, 3):
        n, stride, dilation = n + 1, stride + 1, dilation + 1
        for padding in paddings:
            low, high = reference.pair(n, k, padding, stride, dilation)
            assert shapes.padding_amounts(n, k, padding=padding, stride=stride, dilation=dilation) == (low, high)
            count = len(reference.taps(n, k, stride, low, high, dilation, ceil_mode=False))
            options = {"stride": stride, "padding": padding, "dilation": dilation}
            assert shapes.conv_output_size(n, k, **options) == count
            assert shapes.pool_output_size(n, k, **options) == count
            if high <= k // 2:  # more would let several windows start beyond the input; the ops refuse those
                count = len(reference.taps(n, k, stride, low, high, dilation, ceil_mode=True))
                assert shapes.pool_output_size(n, k, **options, ceil_mode=True) == count


@pytest.mark.parametrize("stride", range(1, 5))
def test_same_gives_one_output_a_stride(stride):
    for n in range(1, 20):
        for k in range(1, 6):
            for padding in ("SAME", "SAME_LOWER"):
                assert shapes.conv_output_size(n, k, stride=stride, padding=padding) == -(-n // stride)


def _axes(rng, rank):
    spatial = [int(n) for n in rng.integers(1, 16, rank)]
    window = [int(n) for n in rng.integers(1, 6, rank)]
    stride = [int(n) for n in rng.integers(1, 5, rank)]
    dilation = [int(n) for n in rng.integers(1, 4, rank)]
    return spatial, window, stride, dilation


@pytest.mark.parametrize("family", ["conv", "pool"])
def test_the_ops_return_what_shapes_says(family):
    """Some hundred random calls, traced only: the shape, or the refusal of an output without pixels."""
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        rank = int(rng.integers(1, 4))
        spatial, window, stride, dilation = axes = _axes(rng, rank)
        pairs = [tuple(int(p) for p in rng.integers(0, k // 2 + 1, 2)) for k in window]
        modes = ["SAME", "SAME_LOWER", "VALID", *(["CIRCULAR", "REPLICATE"] if family == "conv" else [])]
        padding = pairs if rng.random() < 0.5 else str(rng.choice(modes))
        each: Any = pairs if isinstance(padding, list) else [padding] * rank
        ceil_mode = bool(rng.random() < 0.5)
        x = jax.ShapeDtypeStruct((2, *spatial, 3), jnp.float32)
        if family == "conv":
            size, options = shapes.conv_output_size, {}
            kernel = jax.ShapeDtypeStruct((*window, 3, 4), jnp.float32)
            run, args = CONV[rank], (x, kernel)
        else:
            size, options = shapes.pool_output_size, {"ceil_mode": ceil_mode}
            pool = (MAX if rng.random() < 0.5 else AVG)[rank]
            run, args = (lambda x, pool=pool, window=window, **options: pool(x, window, **options)), (x,)
        expected = [
            size(n, k, stride=s, padding=p, dilation=d, **options) for n, k, s, d, p in zip(*axes, each, strict=True)
        ]

        def call(*args, run=run, options=(stride, padding, dilation, options)):
            stride, padding, dilation, more = options
            return run(*args, stride=stride, padding=padding, dilation=dilation, **more)

        windows, _ = reference.pool_windows(spatial, window, stride, padding, dilation, ceil_mode)
        if min(expected) < 1:
            refused += 1
            with pytest.raises(ValueError, match="does not fit"):
                jax.eval_shape(call, *args)
        elif family == "pool" and not reference.legal(windows, spatial):
            with pytest.raises(ValueError, match="sees padding alone"):
                jax.eval_shape(call, *args)
        else:
            assert jax.eval_shape(call, *args).shape == (2, *expected, 4 if family == "conv" else 3)
    assert 10 < refused < 200


# Receptive fields.


def test_receptive_field_by_hand():
    assert shapes.receptive_field([]) == (1, 1, 0)
    assert shapes.receptive_field([(3,), (3,), (3,)]) == (7, 1, 0)
    assert shapes.receptive_field([(3, 1, 1), (3, 1, 1)]) == (5, 1, -2)
    assert shapes.receptive_field([(3, 1, 0, 4)]) == (9, 1, 0)
    field = shapes.receptive_field(iter([shapes.Window(5), shapes.Window(2, stride=2), (5,), (2, 2)]))
    assert (field.size, field.jump, field.start) == (16, 4, 0)


@pytest.mark.parametrize("seed", range(20))
def test_receptive_field_is_the_support_of_a_gradient(seed):
    """The pixels whose gradient is not zero, for every output of a random stack; strides leave no holes."""
    rng = np.random.default_rng(seed)
    layers, kinds = [], []
    for _ in range(int(rng.integers(1, 5))):
        k, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 3))
        layers.append(shapes.Window(k, int(rng.integers(1, 4)), int(rng.integers(0, k // 2 + 1)), dilation))
        kinds.append(str(rng.choice(["conv", "avg"])))
    n = 200

    def stack(x):
        for (k, stride, low, dilation), kind in zip(layers, kinds, strict=True):
            options = {"stride": stride, "dilation": dilation, "padding": ((low, low),)}
            if kind == "conv":
                x = ops.conv1d(x, jnp.ones((k, 1, 1)), **options)
            else:
                x = ops.avg_pool1d(x, k, **options)
        return x.ravel()

    reached = np.asarray(jax.jit(jax.jacrev(lambda x: stack(x.reshape(1, n, 1))))(jnp.ones(n))) > 0
    size, jump, start = shapes.receptive_field(layers)
    whole = 0
    for i, row in enumerate(reached):
        first = start + i * jump
        last = first + size - 1
        support = np.flatnonzero(row)
        assert first <= support[0]
        assert support[-1] <= last
        if first >= 0 and last < n:
            whole += 1
            assert (support[0], support[-1]) == (first, last)
    assert whole


def test_receptive_field_of_a_dense_stack_has_no_holes():
    gradient = jax.grad(lambda x: ops.max_pool1d(ops.conv1d(x, jnp.ones((3, 1, 1))), 2, stride=2)[0, 4, 0])
    size, jump, start = shapes.receptive_field([(3, 1, 1), (2, 2)])
    support = np.zeros(20, bool)
    for seed in range(9):
        x = np.random.default_rng(seed).normal(size=(1, 20, 1)).astype("float32")
        support |= np.asarray(gradient(x)).ravel() != 0
    np.testing.assert_array_equal(np.flatnonzero(support), start + 4 * jump + np.arange(size))


# Errors.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapes.effective_size(0), "effective_size: k must be at least 1, got 0."),
        (lambda: shapes.effective_size(3, dilation=0), "effective_size: dilation must be at least 1, got 0."),
        (
            lambda: shapes.padding_amounts(5, 3, padding="FULL"),
            "padding_amounts: padding must be one of SAME, SAME_LOWER, VALID, CAUSAL, CIRCULAR, REFLECT, REPLICATE,"
            " got 'FULL'.",
        ),
        (
            lambda: shapes.padding_amounts(5, 3, padding=-1),
            "padding_amounts: amounts must be at least 0, got -1. Crop x instead.",
        ),
        (
            lambda: shapes.padding_amounts(5, 3, padding=(0, -1)),
            "padding_amounts: amounts must be at least 0, got (0, -1). Crop x instead.",
        ),
        (
            lambda: shapes.padding_amounts(5, 3, padding=0, stride=0),
            "padding_amounts: stride must be at least 1, got 0.",
        ),
        (
            lambda: shapes.conv_transpose_output_size(5, 3, padding="REFLECT"),
            "conv_transpose_output_size: padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'REFLECT'.",
        ),
        (
            lambda: shapes.conv_transpose_output_size(5, 3, stride=2, output_padding=2),
            "conv_transpose_output_size: output_padding must be at least 0 and below the stride or the dilation, got 2"
            " with stride 2 and dilation 1.",
        ),
        (lambda: shapes.receptive_field([(0,)]), "receptive_field: size must be at least 1, got 0."),
        (lambda: shapes.receptive_field([(1, 0)]), "receptive_field: stride must be at least 1, got 0."),
        (lambda: shapes.receptive_field([(1, 1, 0, 0)]), "receptive_field: dilation must be at least 1, got 0."),
    ],
)
def test_errors_word_for_word(call, message):
    with pytest.raises(ValueError, match="must be") as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("size", [shapes.conv_output_size, shapes.conv_transpose_output_size, shapes.pool_output_size])
@pytest.mark.parametrize("options", [{"stride": 0}, {"dilation": 0}, {"padding": -1}, {"padding": "FULL"}, {"k": 0}])
def test_sizes_refuse_what_the_ops_refuse(size, options):
    with pytest.raises(ValueError, match="must be"):
        size(5, **{"k": 3, **options})


@pytest.mark.parametrize("integer", [int, np.int64, np.int32])
def test_takes_the_integers_that_the_ops_take(integer):
    options: Any = {"n": integer(7), "k": integer(3), "stride": integer(2), "padding": integer(1)}
    assert shapes.conv_output_size(**options) == shapes.pool_output_size(**options) == 4
