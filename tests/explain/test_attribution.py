"""Heat maps: planted patterns, weights worked by hand, NumPy loops and PyTorch."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

WAYS: dict[str, Any] = {
    "saliency": explain.saliency,
    "integrated_gradients": explain.integrated_gradients,
    "occlusion": lambda model, x, **options: explain.occlusion(model, x, window=2, **options),
    "grad_cam": explain.grad_cam,
    "guided_backprop": explain.guided_backprop,
}
POOLS = {1: ops.max_pool1d, 2: ops.max_pool2d, 3: ops.max_pool3d}
every_way = pytest.mark.parametrize("way", list(WAYS))


class Net(nnx.Module):
    """Convolution, ReLU, pool, convolution, ReLU, global average, dense."""

    def __init__(self, rank=2, channels=2, classes=3, dtype=None):
        rngs, conv = nnx.Rngs(0), {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        bias = nnx.initializers.normal(0.5)
        self.rank = rank
        self.a = conv(channels, 4, 3, dtype=dtype, bias_init=bias, rngs=rngs)
        self.b = conv(4, 5, 3, dtype=dtype, bias_init=bias, rngs=rngs)
        self.out = nn.Dense(5, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = POOLS[self.rank](jax.nn.relu(self.a(x)), 2)
        return self.out(ops.global_avg_pool(jax.nn.relu(self.b(x))))


class Stock(nnx.Module):
    """A stock net that ends in a softmax."""

    def __init__(self):
        rngs = nnx.Rngs(1)
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def logits(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.out(self.drop(nnx.max_pool(x, (2, 2), strides=(2, 2)).mean((1, 2))))

    def __call__(self, x):
        return nnx.softmax(self.logits(x))


def _x(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _linear(weight):
    """A model of one class whose score is the sum of weight * x."""
    return nnx.Sequential(lambda x: jnp.sum(weight * x, tuple(range(1, x.ndim)))[:, None])


NET = Net()


class Detector(nnx.Module):
    """Two classes: does the pattern or its negative stand anywhere?"""

    def __init__(self, pattern):
        kernel = np.stack([pattern, -pattern], -1)[:, :, None]
        self.conv = nn.Conv2d(1, 2, pattern.shape, padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
        self.conv.kernel[...] = jnp.asarray(kernel, jnp.float32)

    def __call__(self, x):
        return ops.global_max_pool(jax.nn.relu(self.conv(x) - 7))


def _planted():
    """A picture with a cross at (4, 9), and where the cross is."""
    cross = np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]], np.float32)
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 16, 16, 1)).astype(np.float32)
    x[0, 4:7, 9:12, 0] = cross
    here = np.zeros((16, 16), bool)
    here[4:7, 9:12] = True
    return Detector(cross), x, here, cross


def test_gradients_of_a_detector_light_up_where_the_pattern_is():
    model, x, here, cross = _planted()
    for way in (explain.saliency, explain.guided_backprop):
        heat = np.asarray(way(model, x))[0, :, :, 0]
        np.testing.assert_array_equal(heat[4:7, 9:12], cross)
        assert not heat[~here].any()
        assert not np.asarray(way(model, x, target=1)).any()
    shares = explain.integrated_gradients(model, x)[0, :, :, 0]
    assert float(shares[here].sum()) == pytest.approx(2, abs=0.1)
    assert not np.asarray(shares)[~here].any()


def test_maps_of_a_detector_peak_where_the_pattern_is():
    model, x, _, _ = _planted()
    heat = np.asarray(explain.occlusion(model, x, window=3)[0])
    # Whatever window meets the cross costs all of the score, and all windows over its middle do.
    np.testing.assert_allclose(heat[5, 10], heat.max())
    assert heat[5, 10] > 1.5
    outside = np.ones((16, 16), bool)
    outside[2:9, 7:14] = False
    assert not heat[outside].any()
    heat = explain.grad_cam(model, x)[0]
    # The one unit that answers is (4, 9) of the 14 x 14 map of the valid convolution.
    assert np.unravel_index(int(heat.argmax()), heat.shape) == (5, 10)


def test_integrated_gradients_of_a_linear_model_are_weight_times_input():
    weight, x, baseline = _x(5, 4, 2, seed=1), _x(3, 5, 4, 2), _x(4, 2, seed=2)
    for steps in (1, 7):
        shares = explain.integrated_gradients(_linear(weight), x, baseline=baseline, steps=steps)
        np.testing.assert_allclose(shares, weight * (x - baseline), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [64, 61])
def test_integrated_gradients_are_complete(steps):
    x = _x(3, 8, 8, 2)
    target = np.array([2, 0, 1])
    shares = explain.integrated_gradients(NET, x, target=target, baseline=0.3, steps=steps)
    difference = (NET(x) - NET(jnp.full_like(x, 0.3)))[np.arange(3), target]
    np.testing.assert_allclose(shares.sum((1, 2, 3)), difference, atol=0.02)
    assert float(jnp.abs(difference).min()) > 0.05


def test_integrated_gradients_of_a_square():
    """The score is the sum of squares: the gradient along the line grows evenly, so midpoints are exact."""
    model = nnx.Sequential(lambda x: jnp.sum(x**2, -1)[:, None])
    x = _x(2, 6)
    np.testing.assert_allclose(explain.integrated_gradients(model, x, steps=4), x**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("spatial", "window", "stride"),
    [((9,), 3, 1), ((7,), (3,), 2), ((6, 5), (2, 3), (2, 1)), ((6, 5), 5, 3), ((4, 3, 5), 2, (1, 2, 2))],
)
def test_occlusion_is_a_loop(spatial, window, stride):
    model, x, value = Net(len(spatial)), _x(2, *spatial, 2), np.array([0.3, -0.2], np.float32)
    heat = explain.occlusion(model, x, target=1, window=window, stride=stride, value=value)
    sizes, strides = np.broadcast_to(window, len(spatial)), np.broadcast_to(stride, len(spatial))
    starts = []
    for n, size, step in zip(spatial, sizes, strides, strict=True):
        along = [*range(0, n - size, step), n - size]
        starts.append(along)
    # Every window in turn, and every pixel's mean.
    total, count = np.zeros((2, *spatial)), np.zeros(spatial)
    score = jax.jit(lambda x: model(x)[:, 1])
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, len(spatial)):
        here = tuple(slice(c, c + size) for c, size in zip(corner, sizes, strict=True))
        covered = np.array(x)
        covered[(slice(None), *here)] = value
        drop = np.asarray(score(x) - score(covered))
        total[(slice(None), *here)] += drop.reshape(2, *[1] * len(spatial))
        count[here] += 1
    np.testing.assert_allclose(heat, total / count, atol=1e-5)


def test_grad_cam_of_a_linear_head_is_the_class_activation_map():
    """With a global average and a dense layer, a[k] is the weight divided by the number of positions (Zhou 2016)."""
    x = _x(2, 8, 8, 2)
    heat = explain.grad_cam(NET, x, target=[2, 0])
    maps = explain.activations(NET, x)["b"]
    assert maps.shape == (2, 4, 4, 5)
    weights = np.asarray(NET.out.kernel[...])[:, [2, 0]].T / 16
    cams = np.maximum(np.einsum("nhwk,nk->nhw", maps, weights), 0)
    assert cams.any(axis=(1, 2)).all()
    # Linear, by hand along one axis after the other: 4 pixels become 8.
    at = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    spread = np.maximum(1 - abs(at[:, None] - np.arange(4)), 0)
    np.testing.assert_allclose(heat, spread @ cams @ spread.T, atol=1e-6)
    np.testing.assert_array_equal(heat, explain.grad_cam(NET, x, target=[2, 0], layer="b"))


def test_grad_cam_sees_a_layer_that_goes_two_ways():
    class Residual(nnx.Module):
        def __init__(self):
            self.a = nn.Conv2d(2, 3, 1, use_bias=False, rngs=nnx.Rngs(0))
            self.b = nn.Conv2d(3, 3, 1, use_bias=False, rngs=nnx.Rngs(1))

        def __call__(self, x):
            y = self.a(x)
            return ops.global_avg_pool(self.b(y) + y)

    model, x = Residual(), _x(1, 4, 4, 2)
    slope = (np.asarray(model.b.kernel[...])[0, 0] + np.eye(3))[:, 1] / 16
    by_hand = np.maximum(np.asarray(model.a(x)) @ slope, 0)
    assert by_hand.any()
    np.testing.assert_allclose(explain.grad_cam(model, x, layer="a", target=1), by_hand, atol=1e-6)


@pytest.fixture(scope="module")
def torch_net():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    layers = torch.nn
    net = layers.Sequential(
        layers.Conv2d(2, 4, 3, padding=1), layers.ReLU(), layers.MaxPool2d(2),
        layers.Conv2d(4, 5, 3, padding=1), layers.ReLU(),
        layers.AdaptiveAvgPool2d(1), layers.Flatten(), layers.Linear(5, 3),
    )  # fmt: skip
    with torch.no_grad():
        for theirs, ours in ((net[0], NET.a), (net[3], NET.b)):
            theirs.weight.copy_(torch.tensor(np.asarray(ours.kernel[...]).transpose(3, 2, 0, 1).copy()))
            theirs.bias.copy_(torch.tensor(np.array(ours.bias[...])))
        net[7].weight.copy_(torch.tensor(np.asarray(NET.out.kernel[...]).T.copy()))
        net[7].bias.copy_(torch.tensor(np.array(nnx.state(NET)["out"]["bias"][...])))
    return torch, net


def _torch_gradient(torch, net, x, start, rule=None):
    """The gradient by PyTorch of what `start` makes of the layers' values, ReLUs hooked to `rule`."""
    hooks = [layer.register_full_backward_hook(rule) for layer in net if isinstance(layer, torch.nn.ReLU) and rule]
    picture = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy(), requires_grad=True)
    values, value = [], picture
    for layer in net:
        value = layer(value)
        values.append(value)
    start(values).backward()
    for hook in hooks:
        hook.remove()
    return picture.grad.numpy().transpose(0, 2, 3, 1)


def test_saliency_and_guided_backprop_are_pytorchs(torch_net):
    torch, net = torch_net
    x = _x(2, 8, 8, 2)

    def score(values):
        return values[-1][:, 1].sum()

    theirs = _torch_gradient(torch, net, x, score)
    np.testing.assert_allclose(explain.saliency(NET, x, target=1), theirs, atol=1e-6)
    guided = _torch_gradient(torch, net, x, score, lambda _, inward, outward: (inward[0].clamp(min=0),))
    np.testing.assert_allclose(explain.guided_backprop(NET, x, target=1), guided, atol=1e-6)
    assert abs(guided - theirs).max() > 1e-3


@pytest.mark.parametrize("unit", [None, (1, 3)])
def test_deconvnet_is_pytorchs(torch_net, unit):
    torch, net = torch_net
    x = _x(2, 8, 8, 2)

    def start(values):
        """Another activation than the chosen unit's counts nothing; the unit starts with its own value."""
        maps = values[4][:, 1].flatten(1)
        at = maps.argmax(1) if unit is None else torch.full((2,), unit[0] * 4 + unit[1])
        chosen = maps.gather(1, at[:, None])
        return (chosen * chosen.detach()).sum()

    theirs = _torch_gradient(torch, net, x, start, lambda _, inward, outward: (outward[0].clamp(min=0),))
    ours = explain.deconvnet(NET, x, layer="b", channel=1, unit=unit)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert theirs.any()


def test_deconvnet_of_one_filter_is_the_filter():
    kernel = _x(3, 3, 2, 1, seed=3)
    conv = nn.Conv2d(2, 1, 3, padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    conv.kernel[...] = kernel
    model = nnx.Sequential(conv, jax.nn.relu)
    x = np.zeros((2, 6, 7, 2), np.float32)
    x[0, 1:4, 2:5], x[1, 3:6, 0:3] = kernel[..., 0], 2 * kernel[..., 0]
    seen = np.asarray(explain.deconvnet(model, x, layer="layers.0", channel=0))
    energy = float((kernel**2).sum())
    np.testing.assert_allclose(seen, np.stack([energy * x[0], energy * x[1]]), rtol=1e-5)


def test_deconvnet_puts_back_where_the_maximum_was():
    model = nnx.Sequential(lambda x: ops.max_pool1d(x, 2))
    x = jnp.array([1.0, 3, 5, 2, 0, 4]).reshape(1, 6, 1)
    for unit, expected in ((None, [0, 0, 5, 0, 0, 0]), ((0,), [0, 3, 0, 0, 0, 0]), ((2,), [0, 0, 0, 0, 0, 4])):
        seen = explain.deconvnet(model, x, layer="max_pool1d", channel=0, unit=unit)
        np.testing.assert_array_equal(seen.ravel(), expected)


def test_deconvnet_of_a_layer_without_places_has_one_unit():
    every = explain.deconvnet(NET, X, layer="out", channel=1)
    assert np.asarray(every).any()
    np.testing.assert_array_equal(explain.deconvnet(NET, X, layer="out", channel=1, unit=()), every)


@pytest.mark.parametrize(
    "relu",
    [
        jax.nn.relu, nnx.relu, lambda x: jnp.maximum(x, 0), lambda x: jnp.maximum(0.0, x),
        jax.jit(lambda x: 2 * jax.nn.relu(x) / 2), jax.nn.relu6,
    ],
    ids=["relu", "nnx", "maximum", "zero_first", "within_a_call", "relu6"],
)  # fmt: skip
def test_every_way_to_write_a_relu_is_guided(relu):
    """x -> relu(x) -> weights of both signs: plain gradients pass both, guided ones those above zero, deconv all."""
    weights = jnp.array([1.0, -1, 1, -1])
    dense = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))
    dense.kernel[...] = jnp.eye(4)
    model = nnx.Sequential(dense, relu, lambda h: (h * weights).sum(-1)[:, None])
    x = jnp.array([[1.0, 2, -3, -4]])
    np.testing.assert_array_equal(explain.saliency(model, x), [[1, -1, 0, 0]])
    np.testing.assert_array_equal(explain.guided_backprop(model, x), [[1, 0, 0, 0]])


@pytest.mark.parametrize("norm", [nnx.LayerNorm, nn.LayerNorm])
def test_the_variance_of_a_normalisation_is_not_guided(norm):
    """It is kept from going below zero by a maximum with 0, which is no activation function."""
    model = nnx.Sequential(norm(4, rngs=nnx.Rngs(0)), nnx.Linear(4, 5, rngs=nnx.Rngs(0)))
    x = _x(2, 3, 4)[:, 0]
    np.testing.assert_allclose(explain.guided_backprop(model, x), explain.saliency(model, x), atol=1e-7)
    assert np.asarray(explain.saliency(model, x)).any()


@every_way
@pytest.mark.parametrize("rank", [1, 3])
def test_series_and_volumes(way, rank):
    x = _x(2, *(8, 6, 4)[:rank], 2)
    heat = WAYS[way](Net(rank), x)
    assert heat.shape in (x.shape, x.shape[:-1])
    assert bool(jnp.isfinite(heat).all())
    assert np.asarray(heat).any()


@every_way
def test_softmax_is_left_out_and_evaluation_asked_for(way):
    model, x = Stock(), _x(2, 8, 8, 2)
    frozen = nnx.view(model, deterministic=True, use_running_average=True)
    heat = WAYS[way](model, x)
    # The same model without softmax, called by hand in evaluation.
    logits = nnx.Sequential(lambda x: frozen.logits(x))
    np.testing.assert_allclose(heat, WAYS[way](logits, x, target=frozen(x).argmax(1)), atol=1e-6)
    assert np.asarray(heat).any()


@pytest.mark.parametrize("end", [jax.nn.log_softmax, lambda z: jax.nn.softmax(z.astype(jnp.float32)).astype(z.dtype)])
def test_what_a_softmax_reads(end):
    dense = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    gradient = explain.saliency(nnx.Sequential(dense, end), _x(2, 3), target=[1, 3])
    np.testing.assert_allclose(gradient, np.asarray(dense.kernel[...])[:, [1, 3]].T, rtol=1e-6)


@every_way
def test_the_same_under_jit(way):
    x = _x(2, 8, 8, 2)
    inside = jax.jit(lambda x, target: WAYS[way](NET, x, target=target))
    np.testing.assert_allclose(inside(x, jnp.array([1, 2])), WAYS[way](NET, x, target=[1, 2]), atol=1e-5)


@every_way
def test_a_model_that_computes_in_bfloat16(way):
    x = _x(2, 8, 8, 2)
    exact, heat = WAYS[way](NET, x, target=1), WAYS[way](Net(dtype=jnp.bfloat16), x, target=1)
    assert heat.dtype == jnp.float32
    np.testing.assert_allclose(heat, exact, atol=0.1 * float(jnp.abs(exact).max()))


def test_pictures_in_bfloat16():
    x = _x(2, 8, 8, 2).astype(jnp.bfloat16)
    shares = explain.integrated_gradients(NET, x, target=1)
    assert shares.dtype == jnp.bfloat16
    exact = explain.integrated_gradients(NET, x.astype(jnp.float32), target=1)
    np.testing.assert_allclose(shares.astype(jnp.float32), exact, atol=0.1 * float(jnp.abs(exact).max()))


def test_a_resnet():
    model = models.ResNet(blocks=(1, 1), widths=(4, 8), zero_init=False, num_classes=3, rngs=nnx.Rngs(0))
    x = _x(1, 16, 16, 3)
    gradient = explain.saliency(model, x, target=1)
    plain = jax.jit(jax.grad(lambda x: model(x)[:, 1].sum()))(x)
    np.testing.assert_allclose(gradient, plain, atol=1e-4 * float(jnp.abs(plain).max()))
    heat = explain.grad_cam(model, x, target=1)
    np.testing.assert_array_equal(heat, explain.grad_cam(model, x, target=1, layer="blocks.1.add"))


def test_the_model_stays_as_it_was():
    model, x = Stock(), _x(2, 8, 8, 2)
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model)))
    for way in WAYS.values():
        way(model, x)
    after = nnx.to_pure_dict(nnx.state(model))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))
    assert type(model) is Stock


X: Any = np.zeros((2, 8, 8, 2), np.float32)


class Two(nnx.Module):
    def __call__(self, x):
        return x.mean((1, 2)), x.mean((1, 2, 3))


@every_way
@pytest.mark.parametrize(
    ("model", "x", "options", "error", "match"),
    [
        (NET, X.astype(int), {}, TypeError, r"x must be floating point, got int"),
        (NET, jax.ShapeDtypeStruct((2, 8, 8, 2), "float32"), {}, TypeError, "x must be an array, got a jax.ShapeDtype"),
        (NET, X[:0], {}, ValueError, r"x must have an example, got shape \(0, 8, 8, 2\)"),
        (Net, X, {}, TypeError, "model must be an nnx.Module, got the class Net"),
        (NET, X, {"target": 3}, ValueError, "target must be one of the 3 classes from 0, got 3 to 3"),
        (NET, X, {"target": [0, -1]}, ValueError, "target must be one of the 3 classes from 0, got -1 to 0"),
        (NET, X, {"target": [0, 1, 2]}, ValueError, r"target must be an integer or 2 of them, got shape \(3,\)"),
        (NET, X, {"target": 1.0}, TypeError, "target must be an integer or 2 of them, got dtype float64"),
        (Two(), X, {}, ValueError, r"model must return one array \(N, K\), got \(2, 2\) and \(2,\) for N = 2"),
        (NET.a, X, {}, ValueError, r"model must return one array \(N, K\), got \(2, 8, 8, 4\) for N = 2"),
    ],
)
def test_errors(way, model, x, options, error, match):
    with pytest.raises(error, match=f"^{way}: {match}"):
        WAYS[way](model, x, **options)


def test_errors_of_the_options():
    dense = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^integrated_gradients: steps must be at least 1, got 0"):
        explain.integrated_gradients(NET, X, steps=0)
    with pytest.raises(ValueError, match=r"^integrated_gradients: baseline must broadcast to x .*, got shape \(3,\)"):
        explain.integrated_gradients(NET, X, baseline=np.zeros(3))
    with pytest.raises(ValueError, match=r"^occlusion: window \(9, 9\) must fit x \(8, 8\)"):
        explain.occlusion(NET, X, window=9)
    with pytest.raises(ValueError, match=r"^occlusion: stride \(3, 3\) must be at most window \(2, 2\)"):
        explain.occlusion(NET, X, window=2, stride=3)
    with pytest.raises(ValueError, match=r"^occlusion: value must be a number or one for each of 2 channels"):
        explain.occlusion(NET, X, window=2, value=np.zeros(3))
    with pytest.raises(ValueError, match=r"^occlusion: x must be \(N, \*spatial, C\) with spatial axes"):
        explain.occlusion(dense, X[:, 0, 0], window=2)
    with pytest.raises(ValueError, match=r"^grad_cam: x must be \(N, \*spatial, C\) with one to three spatial axes"):
        explain.grad_cam(dense, X[:, 0, 0])
    with pytest.raises(ValueError, match=r"^grad_cam: layer must be one of a, max_pool2d, b, .*, got 'c'"):
        explain.grad_cam(NET, X, layer="c")
    with pytest.raises(ValueError, match=r"^grad_cam: layer must have 2 spatial axes as x has, got out with shape"):
        explain.grad_cam(NET, X, layer="out")
    with pytest.raises(ValueError, match=r"^grad_cam: no layer of the model has a map with the 2 spatial axes of x"):
        explain.grad_cam(nnx.Sequential(ops.flatten, nnx.Linear(128, 2, rngs=nnx.Rngs(0))), X)
    with pytest.raises(ValueError, match=r"^deconvnet: channel must be one of the 4 channels of a, got 4"):
        explain.deconvnet(NET, X, layer="a", channel=4)
    with pytest.raises(ValueError, match=r"^deconvnet: unit must be a position on the map \(8, 8\) of a, got \(8, 0\)"):
        explain.deconvnet(NET, X, layer="a", channel=0, unit=(8, 0))
    with pytest.raises(ValueError, match=r"^deconvnet: layer must be one of .*, got 'z'"):
        explain.deconvnet(NET, X, layer="z", channel=0)


def _titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_plot_of_pictures():
    x = np.abs(_x(2, 6, 8, 3))
    signed, unsigned = np.zeros((2, 6, 8), np.float32), np.zeros((2, 6, 8, 3), np.float32)
    signed[0, 1, 2], signed[0, 3, 3], signed[1, 5, 5], unsigned[1, 4, 5] = -2, 8, 3, 1
    figure = explain.plot_attribution(x, {"a": signed, "b $": unsigned})
    # Two rows of three, and a legend for what has a sign.
    assert _titles(figure) == ["input", "a", "b $", "", "", "", ""]
    colours: Any = figure.axes[1].images[1].get_array()
    assert colours[3, 3, 0] > colours[3, 3, 2]
    assert colours[1, 2, 2] > colours[1, 2, 0]
    # The square root of a quarter is a half.
    np.testing.assert_allclose(colours[..., 3][[3, 1, 0], [3, 2, 0]], [1, 0.5, 0])
    # A row without negative values is red as the rest of its column, not orange: more blue than green.
    colours = figure.axes[4].images[1].get_array()
    assert colours[5, 5, 2] > colours[5, 5, 1]
    colours = figure.axes[5].images[1].get_array()
    assert np.unravel_index(colours[..., 3].argmax(), (6, 8)) == (4, 5)
    figure.draw_without_rendering()


def test_plot_of_series_and_of_nothing():
    x = _x(2, 20, 3)
    figure = explain.plot_attribution(x, {"a": np.zeros((2, 20)), "b": jnp.ones((2, 20, 3), jnp.bfloat16)})
    assert _titles(figure) == ["input", "a", "b", "", "", ""]
    with warnings.catch_warnings(action="error"):
        figure.draw_without_rendering()


def test_errors_of_the_plot():
    with pytest.raises(ValueError, match=r"^plot_attribution: x must be .*Take a slice of the volume, x\[:, depth\]"):
        explain.plot_attribution(np.zeros((1, 2, 3, 4, 1)), {"a": np.zeros((1, 2, 3, 4))})
    with pytest.raises(ValueError, match=r"^plot_attribution: maps must be of shape .*, got \(2, 8\) for 'a'"):
        explain.plot_attribution(X, {"a": np.zeros((2, 8))})
    with pytest.raises(ValueError, match=r"^plot_attribution: maps must name at least one, got none"):
        explain.plot_attribution(X, {})
