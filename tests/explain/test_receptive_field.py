"""Receptive fields: the published ones, the closed form, and the true support of gradients of random nets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOLS = {1: ops.max_pool1d, 2: ops.max_pool2d, 3: ops.max_pool3d}
AVG_POOLS = {1: ops.avg_pool1d, 2: ops.avg_pool2d, 3: ops.avg_pool3d}
LENET = models.LeNet5(rngs=nnx.Rngs(0))
SPATIAL = {1: (17, 24), 2: (9, 14), 3: (5, 8)}


def test_lenet5_as_published():
    fields = explain.receptive_field(LENET, jnp.zeros((1, 28, 28, 1)))
    assert [fields[name][0].size for name in ("c1", "s2", "c3", "s4", "c5", "f6")] == [5, 6, 14, 16, 32, 32]
    assert [fields[name][0].jump for name in ("c1", "s2", "c3", "s4", "c5", "f6")] == [1, 2, 2, 4, 4, 0]
    # The picture is padded by 2: the first unit starts in the padding.
    assert {field.start for pair in fields.values() for field in pair} == {-2}
    assert all(len(pair) == 2 for pair in fields.values())


def test_a_chain_agrees_with_the_closed_form():
    rngs = nnx.Rngs(0)
    chain = nnx.Sequential(
        nn.Conv2d(1, 2, (3, 5), stride=(2, 1), padding=((1, 0), (3, 3)), rngs=rngs),
        nn.Conv2d(2, 2, 3, dilation=(3, 1), padding=2, rngs=rngs),
        lambda x: ops.max_pool2d(x, 2, stride=3),
        nn.Conv2d(2, 2, 2, padding="VALID", rngs=rngs),
    )
    fields = explain.receptive_field(chain, jnp.zeros((1, 64, 48, 1)))
    rows = ops.shapes.receptive_field([(3, 2, 1), (3, 1, 2, 3), (2, 3), (2,)])
    columns = ops.shapes.receptive_field([(5, 1, 3), (3, 1, 2), (2, 3), (2,)])
    assert list(fields.values())[-1] == (rows, columns)


class Random(nnx.Module):
    """A random net: convolutions, pools, residual and concatenated branches with any stride, padding and dilation."""

    def __init__(self, rng, rank):
        self.rank, self.rng, self.rngs, channels = rank, rng, nnx.Rngs(int(rng.integers(1000))), 2
        convs, plan = [], []
        for _ in range(int(rng.integers(2, 5 if rank < 3 else 4))):
            step = str(rng.choice(["conv", "max", "avg", "residual", "concatenate"]))
            if step == "conv":
                pads = ["SAME", "VALID", "SAME_LOWER", int(rng.integers(3)), ((0, 2),) * rank]
                convs.append(self._conv(channels, 3, pads[rng.integers(5)], int(rng.integers(1, 3))))
                channels = 3
                plan.append((step,))
            elif step in ("max", "avg"):
                # Compiling the 27 taps of a dilated pool of volumes takes seconds.
                window, stride, dilation = (int(n) for n in rng.integers((2, 1, 1), (3 if rank == 3 else 4, 3, 3)))
                options = {"stride": stride, "padding": str(rng.choice(["SAME", "VALID"])), "dilation": dilation}
                plan.append((step, window, tuple(options.items())))
            else:
                stride = 1 if step == "residual" else int(rng.integers(1, 3))
                convs += [self._conv(channels, channels, pad, stride) for pad in ("SAME", "SAME_LOWER")]
                channels *= 1 if step == "residual" else 2
                plan.append((step,))
        self.convs, self.plan = nnx.List(convs), tuple(plan)
        del self.rng, self.rngs

    def _conv(self, inputs, outputs, padding, stride):
        size, dilation = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3))
        init = nnx.initializers.normal(1.0)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "kernel_init": init}
        return CONVS[self.rank](inputs, outputs, size, **options, rngs=self.rngs)

    def __call__(self, x):
        convs = iter(self.convs)
        for step, *arguments in self.plan:
            if step == "conv":
                x = next(convs)(x)
            elif step in ("max", "avg"):
                window, options = arguments
                x = (MAX_POOLS if step == "max" else AVG_POOLS)[self.rank](x, window, **dict(options))
            elif step == "residual":
                x = x + next(convs)(jnp.sin(next(convs)(x)))
            else:
                x = jnp.concatenate([next(convs)(x), next(convs)(x)], -1)
        return x


def _random(seed):
    rng = np.random.default_rng(seed)
    rank = 3 if seed % 8 == 7 else 1 + seed % 2
    while True:
        # Many examples: a tap at the edge must be the maximum of stacked pools in one of them.
        x = jnp.asarray(rng.normal(size=(128, *(int(n) for n in rng.integers(*SPATIAL[rank], rank)), 2)), jnp.float32)
        model = Random(rng, rank)
        try:
            jax.eval_shape(model, x)
        except ValueError:  # a window that does not fit what is left
            continue
        return model, x


def _bounds(support, axis):
    """The first pixel along an axis that is in the support, and the one after the last."""
    seen = np.flatnonzero(support.any(tuple(a for a in range(support.ndim) if a != axis)))
    return slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)


def _true_support(model, x):
    """Gradients of any unit of the model's result, added up over examples and channels."""

    @jax.jit
    def magnitude(x, mask):
        return jnp.abs(jax.grad(lambda x: jnp.sum(model(x) * mask))(x)).sum((0, -1))

    def support(shape, unit):
        mask = np.zeros(shape[:-1], np.float32)
        mask[(slice(None), *unit)] = 1
        # One random weight a channel: equal ones could cancel.
        return np.asarray(magnitude(x, mask[..., None] * np.linspace(1, 2, shape[-1], dtype=np.float32))) > 0

    return support


def _sees_padding_alone(layer):
    """Whether a window of a layer lies in the padding altogether."""
    for w in (w for windows in layer.windows for w in windows):
        at = np.arange(w.out)[:, None] * w.stride - w.low + np.arange(w.size) * w.dilation
        if not ((at >= 0) & (at < w.n)).any(1).all():
            return True
    return False


def _pads_beyond_its_window(conv):
    """Whether a convolution adds so much that windows lie in it: the op pads x first then, which no window shows."""
    reach = conv.dilation * (conv.kernel.shape[0] - 1)
    return not isinstance(conv.padding, str) and np.max(conv.padding) > reach


def _check(seed):
    model, x = _random(seed)
    traced = explain.trace(model, x)
    layer = traced.layers[-1]
    shape, support = layer.shape, _true_support(model, x)
    spatial = shape[1:-1]
    units = {tuple(0 for n in spatial), tuple(n - 1 for n in spatial), tuple(n // 2 for n in spatial)}
    textbook = explain.receptive_field(model, x)[layer.name]
    for unit in units:
        window = explain.receptive_window(model, x, layer=layer.name, unit=unit)
        seen = support(shape, unit)
        true = tuple(_bounds(seen, axis) for axis in range(len(spatial)))
        if not (any(map(_sees_padding_alone, traced.layers)) or any(map(_pads_beyond_its_window, model.convs))):
            assert window == true, (unit, model.plan)
        elif seen.any():
            # What a branch sees along one axis counts, even if it sees nothing along another.
            assert all(a.start <= b.start <= b.stop <= a.stop for a, b in zip(window, true, strict=True))
        for part, field, u in zip(window, textbook, unit, strict=True):
            if part.start < part.stop:
                assert field.start + u * field.jump <= part.start, (unit, model.plan)
                assert part.stop <= field.start + u * field.jump + field.size, (unit, model.plan)
    return model


@pytest.mark.parametrize("seed", range(16))
def test_random_nets_have_the_support_of_their_gradients(seed):
    _check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(16, 40), *range(1000, 1300)])
def test_more_random_nets(seed):
    _check(seed)


def test_a_unit_in_the_middle_sees_as_many_pixels_as_the_textbook_says():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nn.Conv1d(1, 2, 5, dilation=2, rngs=rngs),
        lambda x: ops.max_pool1d(x, 3, stride=2, padding=1),
        nn.Conv1d(2, 2, 3, rngs=rngs),
    )
    x = jnp.zeros((1, 101, 1))
    (field,) = list(explain.receptive_field(model, x).values())[-1]
    (window,) = explain.receptive_window(model, x, layer="layers.2")
    assert field.size == window.stop - window.start == 15  # 1 + 8 + 2 + 2 * 2
    assert window.start == field.start + 25 * field.jump == -7 + 50


def _check_module(model, x, layer, unit):
    seen = _true_support(model, x)(jax.eval_shape(model, x).shape, unit)
    window = explain.receptive_window(model, x, layer=layer, unit=unit)
    assert window == tuple(_bounds(seen, axis) for axis in range(seen.ndim))
    return window


def _noise(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT"])
@pytest.mark.parametrize("unit", [(0,), (4,), (9,)])
def test_padding_that_wraps_or_mirrors(padding, unit):
    window = _check_module(nnx.Conv(2, 2, 5, padding=padding, rngs=nnx.Rngs(0)), _noise(2, 10, 2), "conv1d", unit)
    assert window[0] == (slice(2, 7) if unit == (4,) else window[0])
    field = explain.receptive_field(nnx.Conv(2, 2, 5, padding=padding, rngs=nnx.Rngs(0)), _noise(2, 10, 2))["conv1d"]
    assert field == ((5, 1, -2),)


@pytest.mark.parametrize("unit", [(0, 0), (7, 2), (15, 15)])
def test_transposed_convolutions_see_through_the_holes(unit):
    model = nnx.ConvTranspose(2, 2, (3, 5), strides=(2, 2), rngs=nnx.Rngs(0))
    _check_module(model, _noise(2, 8, 8, 2), "conv_transpose2d", unit)
    first, second = explain.receptive_field(model, _noise(2, 8, 8, 2))["conv_transpose2d"]
    assert (first.size, first.jump, second.size) == (2, 0.5, 3)


class Squeeze(nnx.Module):
    """Squeeze and excitation, and the nearest-neighbour upsampling of a U-Net's way up."""

    def __init__(self, *, gated, rngs):
        self.gated = gated
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.gate = nnx.Linear(4, 4, rngs=rngs)
        self.skip = nnx.Conv(2, 4, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = nnx.avg_pool(self.conv(x), (2, 2), strides=(2, 2))
        if self.gated:
            y = y * nnx.sigmoid(self.gate(y.mean((1, 2))))[:, None, None]
        n, h, w, c = y.shape
        y = jnp.broadcast_to(y[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
        return y + self.skip(x)


@pytest.mark.parametrize("unit", [(0, 0), (3, 6), (7, 7)])
def test_upsampling_by_repeating(unit):
    model, x = Squeeze(gated=False, rngs=nnx.Rngs(0)), _noise(4, 8, 8, 2)
    _check_module(model, x, "add", unit)
    (field, _) = explain.receptive_field(model, x)["add"]
    assert field.size >= 4


def test_a_gate_sees_everything():
    model, x = Squeeze(gated=True, rngs=nnx.Rngs(0)), _noise(4, 8, 8, 2)
    assert _check_module(model, x, "add", (0, 0)) == (slice(0, 8), slice(0, 8))
    assert explain.receptive_field(model, x)["mul"][0].jump == 0


def test_normalising_over_pixels_sees_everything():
    model = nnx.Sequential(nnx.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0)))
    fields = explain.receptive_field(model, jnp.zeros((1, 9, 9, 2)))
    assert fields["layers.0"][0] == (3, 1, -1)
    assert fields["layers.1"][0].jump == 0
    layer_norm = nnx.Sequential(nnx.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.LayerNorm(4, rngs=nnx.Rngs(0)))
    assert explain.receptive_field(layer_norm, jnp.zeros((1, 9, 9, 2)))["layers.1"][0] == (3, 1, -1)


def test_attention_and_loops_see_everything():
    attention = nnx.MultiHeadAttention(2, 8, 8, decode=False, rngs=nnx.Rngs(0))
    assert explain.receptive_window(attention, jnp.zeros((1, 5, 8)), layer="out", unit=(0,)) == (slice(0, 5),)
    loop = nnx.RNN(nnx.SimpleCell(2, 3, rngs=nnx.Rngs(0)))
    assert explain.receptive_field(loop, jnp.zeros((1, 7, 2)))["rnn"][0] == (7, 0, 0)


def test_the_effective_field_is_the_gradient():
    kernel = jnp.array([1.0, -2.0, 3.0]).reshape(3, 1, 1)
    model = nn.Conv1d(1, 1, 3, kernel_init=lambda *_: kernel, rngs=nnx.Rngs(0))
    field = explain.effective_receptive_field(model, _noise(4, 9, 1), layer="conv1d", unit=(3,))
    np.testing.assert_allclose(field, [0, 0, 1, 2, 3, 0, 0, 0, 0])


def test_the_effective_field_of_stacked_averages_is_a_binomial():
    """Luo et al., section 2.2: k uniform kernels of size 2 weigh the pixels with binomial coefficients."""
    average = nnx.initializers.constant(0.5)
    layers = [nn.Conv1d(1, 1, 2, padding="VALID", kernel_init=average, rngs=nnx.Rngs(0)) for _ in range(4)]
    field = explain.effective_receptive_field(nnx.Sequential(*layers), _noise(1, 9, 1), layer="layers.3", unit=(2,))
    np.testing.assert_allclose(field, np.array([0, 0, 1, 4, 6, 4, 1, 0, 0]) / 16)


def test_the_effective_field_lies_within_the_window_and_fills_it():
    model, x = LENET, _noise(8, 28, 28, 1)
    for layer in ("s2", "s4"):
        window = explain.receptive_window(model, x, layer=layer)
        field = explain.effective_receptive_field(model, x, layer=layer)
        assert tuple(_bounds(field > 0, axis) for axis in (0, 1)) == window
    # One channel of a linear layer has only its own gradient.
    one, other = (explain.effective_receptive_field(model, x, layer="c1", channel=c) for c in (0, 1))
    assert not np.allclose(one, other)
    assert np.count_nonzero(one) == 25


def _image(ax):
    return np.asarray(ax.images[0].get_array())


def test_plot_draws_the_box_and_the_gradient():
    model, x = LENET, _noise(2, 28, 28, 1)
    figure = explain.plot_receptive_field(model, x, layer="s4", unit=(0, 2), example=1)
    left, right = figure.axes[:2]
    assert left.get_title() == "s4, unit (0, 2): 16 x 16 pixels"
    for ax in (left, right):
        box: Any = ax.patches[-1]
        # The unit begins 2 pixels above the picture; pixel centres are integers.
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (5.5, -2.5, 16, 16)
        assert ax.get_xlim()[0] <= -0.5
        assert ax.get_ylim()[1] <= -2.5
    heat = explain.effective_receptive_field(model, x, layer="s4", unit=(0, 2))
    np.testing.assert_array_equal(_image(right), heat)
    assert _image(left).shape == (28, 28)


def test_plot_takes_series_volumes_and_colour(tmp_path):
    series = explain.plot_receptive_field(nn.Conv1d(1, 2, 5, rngs=nnx.Rngs(0)), _noise(1, 40, 1), layer="conv1d")
    assert series.axes[0].get_title() == "conv1d, unit (20): 5 pixels"
    volume = nn.Conv3d(1, 2, 3, rngs=nnx.Rngs(0))
    figure = explain.plot_receptive_field(volume, _noise(1, 6, 7, 8, 1), layer="conv3d", unit=(1, 2, 3))
    assert _image(figure.axes[0]).shape == (7, 8)
    box: Any = figure.axes[0].patches[-1]
    assert box.get_xy() == (1.5, 0.5)
    colour = explain.plot_receptive_field(nn.Conv2d(3, 2, 3, rngs=nnx.Rngs(0)), _noise(1, 9, 9, 3), layer="conv2d")
    assert _image(colour.axes[0]).shape == (9, 9, 3)
    dense = explain.plot_receptive_field(models.MLP(rngs=nnx.Rngs(0)), _noise(1, 28, 28, 1), layer="output")
    assert dense.axes[0].get_title() == "output: 28 x 28 pixels"
    series.savefig(tmp_path / "series.png", dpi=40)
    figure.savefig(tmp_path / "volume.png", dpi=40)


X = np.zeros((1, 28, 28, 1), np.float32)
SHAPE: Any = jax.ShapeDtypeStruct(X.shape, X.dtype)
FUNCTION: Any = ops.flatten


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: explain.receptive_field(FUNCTION, X),
            TypeError,
            r"receptive_field: model must be an nnx.Module, got function\. Wrap it in one\.",
        ),
        (
            lambda: explain.receptive_window(LENET, X, layer="c9"),
            ValueError,
            r"receptive_window: layer must be one of c1, s2, c3, s4, c5, f6, output, got 'c9'\.",
        ),
        (
            lambda: explain.receptive_window(LENET, X, layer="s4", unit=(5, 0)),
            ValueError,
            r"receptive_window: unit must be a position on the map \(5, 5\) of s4, got \(5, 0\)\.",
        ),
        (
            lambda: explain.effective_receptive_field(LENET, X, layer="s4", channel=16),
            ValueError,
            r"effective_receptive_field: channel must be one of the 16 channels of s4, got 16\.",
        ),
        (
            lambda: explain.effective_receptive_field(LENET, X.astype(np.uint8), layer="s4"),
            TypeError,
            r"effective_receptive_field: x must be floating point, got uint8\. Cast it",
        ),
        (
            lambda: explain.effective_receptive_field(LENET, SHAPE, layer="s4"),
            TypeError,
            r"effective_receptive_field: x must be an array, got a jax\.ShapeDtypeStruct\. Gradients need values\.",
        ),
        (
            lambda: explain.effective_receptive_field(LENET, X[:0], layer="s4"),
            ValueError,
            r"effective_receptive_field: x must have an example, got shape \(0, 28, 28, 1\)\.",
        ),
        (
            lambda: explain.plot_receptive_field(LENET, X, layer="s4", example=1),
            ValueError,
            r"plot_receptive_field: x must be .* and example 1, got shape \(1, 28, 28, 1\)\.",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
