"""The walk over a model's jaxpr: which layers there are, what they are called, what they read and hand on."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

PICTURES: Any = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)


def _layers(model, x: Any = PICTURES):
    return {layer.name: layer for layer in explain.trace(model, x).layers}


def _kinds(model, x: Any = PICTURES):
    return {name: " + ".join([layer.kind, *layer.activation]) for name, layer in _layers(model, x).items()}


def test_lenet():
    model = nnx.eval_shape(lambda: models.LeNet(rngs=nnx.Rngs(0)))
    assert _kinds(model, jnp.zeros((1, 28, 28, 1))) == {
        "convs.0": "conv2d",
        "max_pool2d": "max_pool2d",
        "norms.0": "batch_norm + relu",
        "convs.1": "conv2d",
        "max_pool2d#2": "max_pool2d",
        "norms.1": "batch_norm + relu",
        "convs.2": "conv2d",
        "max_pool2d#3": "max_pool2d",
        "norms.2": "batch_norm + relu",
        "flatten": "flatten",
        "hidden": "dense + relu",
        "output": "dense",
    }


class Stock(nnx.Module):
    """A stock net with a residual and two concatenated branches, batch-norm, dropout and pools."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.block = nnx.Sequential(nnx.Conv(8, 8, (3, 3), rngs=rngs), nnx.relu, nnx.Conv(8, 8, (3, 3), rngs=rngs))
        self.out = nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x):
        x = self.drop(nnx.relu(self.norm(self.stem(x))))
        x = nnx.relu(x + self.block(x))
        x = jnp.concatenate([nnx.max_pool(x, (2, 2), strides=(2, 2)), nnx.avg_pool(x, (2, 2), strides=(2, 2))], axis=-1)
        return nnx.log_softmax(self.out(x.mean((1, 2))))


A_CLASS: Any = models.LeNet
A_SHAPE: Any = (1, 16, 16, 3)


def _stock():
    return nnx.eval_shape(lambda: Stock(nnx.Rngs(0)))


STOCK = {
    "stem": "conv2d",
    "norm": "batch_norm + relu",
    "block.layers.0": "conv2d + relu",
    "block.layers.2": "conv2d",
    "add": "add + relu",
    "max_pool2d": "max_pool2d",
    "avg_pool2d": "avg_pool2d",
    "concatenate": "concatenate",
    "global_avg_pool": "global_avg_pool",
    "out": "dense + log_softmax",
}


def test_a_stock_model_with_branches():
    model = _stock()
    layers = _layers(model)
    assert _kinds(model) == STOCK
    assert layers["add"].inputs == ("norm", "block.layers.2")
    assert layers["concatenate"].inputs == ("max_pool2d", "avg_pool2d")
    assert layers["stem"].inputs == ("",)
    assert layers["out"].inputs == ("global_avg_pool",)
    assert layers["concatenate"].shape == (2, 4, 4, 16)
    assert layers["stem"].input_shape == (2, 16, 16, 3)
    assert [layers[name].parameters for name in ("stem", "norm", "out")] == [3 * 3 * 3 * 8 + 8, 16, 85]


def _remat(model):
    class Remat(nnx.Module):
        def __init__(self):
            self.net = model

        def __call__(self, x):
            return nnx.remat(lambda net, x: net(x))(self.net, x)

    return Remat()


def _jitted(model):
    class Jitted(nnx.Module):
        def __init__(self):
            self.net = model

        def __call__(self, x):
            return nnx.jit(lambda net, x: net(x))(self.net, x)

    return Jitted()


@pytest.mark.parametrize("wrap", [_remat, _jitted])
def test_calls_are_opened(wrap):
    assert _kinds(wrap(_stock())) == {f"net.{name}": kind for name, kind in STOCK.items()}


def test_ops_are_named_where_they_are_called_and_numbered():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.conv = nn.Conv2d(3, 3, 3, rngs=rngs)

        def __call__(self, x):
            return ops.max_pool2d(self.conv(x), 2, stride=1, dilation=2)

    rngs = nnx.Rngs(0)
    # The dilated pool is nine comparisons of slices and one layer all the same.
    assert list(_layers(nnx.Sequential(Block(rngs), Block(rngs)))) == [
        "layers.0.conv",
        "layers.0.max_pool2d",
        "layers.1.conv",
        "layers.1.max_pool2d",
    ]

    class Shared(nnx.Module):
        def __init__(self):
            self.conv = nn.Conv2d(3, 3, 3, rngs=rngs)

        def __call__(self, x):
            return ops.global_avg_pool(self.conv(jnp.tanh(self.conv(x))))

    layers = _layers(Shared())
    assert {name: layer.parameters for name, layer in layers.items()} == {
        "conv": 84,
        "conv#2": 0,
        "global_avg_pool": 0,
    }
    assert layers["conv"].activation == ("tanh",)


def test_a_module_that_does_several_things_is_several_layers():
    class Functional(nnx.Module):
        def __init__(self):
            self.first = nnx.Param(jnp.ones((3, 3, 3, 4)))
            self.second = nnx.Param(jnp.ones((3, 3, 4, 4)))

        def __call__(self, x):
            x = ops.conv2d(x, self.first[...])
            return ops.conv2d(ops.global_max_pool(x)[:, None, None], self.second[...])

    model = nnx.Sequential(Functional())
    assert {name: layer.parameters for name, layer in _layers(model).items()} == {
        "layers.0.conv2d": 108,
        "layers.0.global_max_pool": 0,
        "layers.0.conv2d#2": 144,
    }
    assert list(_layers(Functional())) == ["conv2d", "global_max_pool", "conv2d#2"]


@pytest.mark.parametrize(
    ("model", "x", "kinds"),
    [
        (lambda: nn.Conv1d(3, 4, 3, rngs=nnx.Rngs(0)), (1, 9, 3), {"conv1d": "conv1d"}),
        (lambda: nn.Conv3d(3, 4, 3, rngs=nnx.Rngs(0)), (1, 5, 5, 5, 3), {"conv3d": "conv3d"}),
        (
            lambda: nnx.Conv(3, 6, 3, feature_group_count=3, rngs=nnx.Rngs(0)),
            (1, 9, 3),
            {"depthwise_conv1d": "depthwise_conv1d"},
        ),
        (
            lambda: nnx.ConvTranspose(3, 4, 3, strides=2, rngs=nnx.Rngs(0)),
            (1, 9, 3),
            {"conv_transpose1d": "conv_transpose1d"},
        ),
        (lambda: nn.Dense(3, 4, rngs=nnx.Rngs(0)), (1, 3), {"dense": "dense"}),
        (lambda: nnx.LayerNorm(3, rngs=nnx.Rngs(0)), (1, 9, 3), {"layer_norm": "layer_norm"}),
        (lambda: nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.gelu), (1, 3), {"layers.0": "dense + gelu"}),
        (lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)), (1, 3), {}),
        (lambda: nnx.Sequential(lambda x: -x.max((1, 2))), (1, 5, 5, 3), {"global_max_pool": "global_max_pool"}),
        (lambda: nnx.Sequential(lambda x: (x - x.mean((1, 2), keepdims=True)) * 2), (1, 5, 5, 3), {}),
        (lambda: nnx.Sequential(lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0)))), (1, 5, 3), {"pad": "pad"}),
        (lambda: nnx.Sequential(lambda x: x[:, :2]), (1, 5, 3), {"slice": "slice"}),
        (lambda: nnx.RNN(nnx.SimpleCell(2, 3, rngs=nnx.Rngs(0))), (1, 7, 2), {"rnn": "rnn"}),
    ],
)  # fmt: skip
def test_kinds(model, x, kinds):
    assert _kinds(nnx.eval_shape(model), jax.ShapeDtypeStruct(x, jnp.float32)) == kinds


def test_loops_and_branches_count_their_work():
    matrix = jnp.ones((3, 3))
    scan = nnx.Sequential(lambda x: jax.lax.scan(lambda c, _: (c @ matrix, None), x, length=5)[0])
    assert _layers(scan, jnp.zeros((1, 3)))["scan"].multiply_adds == 5 * 9
    cond = nnx.Sequential(lambda x: jax.lax.cond(x.sum() > 0, lambda x: x @ matrix @ matrix, lambda x: x @ matrix, x))
    assert [layer.multiply_adds for layer in _layers(cond, jnp.zeros((1, 3))).values()][-1] == 18
    steps = nnx.Sequential(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ matrix, x))
    assert _layers(steps, jnp.zeros((1, 3)))["while"].multiply_adds == 9


def test_any_result_will_do():
    class Two(nnx.Module):
        def __init__(self):
            self.conv = nn.Conv2d(3, 4, 3, rngs=nnx.Rngs(0))
            self.dense = nn.Dense(4, 2, rngs=nnx.Rngs(0))

        def __call__(self, x):
            maps = self.conv(x)
            logits = self.dense(ops.global_avg_pool(maps))
            return {"maps": maps, "class": jnp.argmax(nnx.softmax(logits), -1)}

    layers = _layers(Two())
    assert list(layers) == ["conv", "global_avg_pool", "dense"]
    assert layers["dense"].shape == (2, 2)


def test_tracing_leaves_the_model_alone_and_needs_no_values():
    model = Stock(nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    kinds = {type(node) for _, node in nnx.iter_graph(model)}
    explain.trace(model, PICTURES)
    assert {type(node) for _, node in nnx.iter_graph(model)} == kinds
    assert not hasattr(model.stem, "_explain_path")
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    assert explain.trace(model, PICTURES).names() == list(STOCK)


def test_threads_do_not_disturb_each_other():
    found, model = [], models.LeNet5(rngs=nnx.Rngs(0))

    def run():
        found.append(explain.trace(model, jnp.zeros((1, 28, 28, 1))).names())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["c1", "s2", "c3", "s4", "c5", "f6", "output"]] * 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: explain.trace(A_CLASS, PICTURES),
            TypeError,
            r"^trace: model must be an nnx\.Module, got the class LeNet\. Call it, with rngs=nnx\.Rngs\(0\) perhaps\.$",
        ),
        (
            lambda: explain.trace(_stock(), A_SHAPE),
            TypeError,
            r"^trace: x must be an array or a jax\.ShapeDtypeStruct, got tuple\. A shape alone does:"
            r" jax\.ShapeDtypeStruct\(\(1, 28, 28, 1\), 'float32'\)\.$",
        ),
        (
            lambda: explain.trace(_stock(), jnp.zeros(3)),
            ValueError,
            r"^trace: x must be a batch \(N, \.\.\., C\), got shape \(3,\)\. Add a batch axis with x\[None\]\.$",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
