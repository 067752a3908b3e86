"""One step on 1, 2 and 8 devices: the same parameters in float64, the same gradients in float32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnjax import data, models, train

needs_eight = pytest.mark.skipif(jax.local_device_count() < 8, reason="needs 8 (virtual) devices")


def make_batch(step, dtype: Any = np.float32, size=16):
    rng = np.random.default_rng(step)
    image = rng.normal(size=(size, 12, 12, 1)).astype(dtype)
    position = (step * size + np.arange(size)).astype(np.uint32)
    return {"image": image, "label": (image.mean((1, 2, 3)) > 0).astype(np.int32), "position": position}


def loss_fn(model, batch, key):
    keys = jax.vmap(lambda position: jax.random.fold_in(jax.random.key(3), position))(batch["position"])
    moved = jax.vmap(lambda k, image: data.translate(k, image, max_shift=2))(keys, batch["image"])
    logits = train.apply(model, moved, train=True, key=None)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return losses, {"accuracy": logits.argmax(-1) == batch["label"]}


def metric_fn(model, batch):
    logits = train.apply(model, batch["image"], train=False)
    return {"accuracy": logits.argmax(-1) == batch["label"]}


def wrappers():
    devices = jax.local_devices()
    return [train.parallel.jit] + [lambda step, n=n: train.parallel.pmap(step, devices=devices[:n]) for n in (1, 2, 8)]


class StockNet(nnx.Module):
    def __init__(self, rngs):
        # A bias would have no gradient before a batch-norm but rounding, which AdamW divides by itself.
        self.conv = nnx.Conv(1, 4, (3, 3), use_bias=False, rngs=rngs)
        # Flax's default variance, E[x²] - m², would itself differ by more than the tolerance.
        self.norm = nnx.BatchNorm(4, use_fast_variance=False, rngs=rngs)
        self.dense = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def make(name, dtype):
    model = (
        models.LeNet(shape=(12, 12, 1), num_classes=2, widths=(4, 6, 8), rngs=nnx.Rngs(0))
        if name == "ours"
        else StockNet(nnx.Rngs(0))
    )
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(dtype), nnx.state(model)))
    return model


@needs_eight
@pytest.mark.parametrize("name", ["ours", "stock"])
def test_ten_steps_in_float64_give_the_same_parameters(name):
    finals = []
    with jax.enable_x64(True):
        for wrap in wrappers():
            tx = optax.adamw(1e-2)
            graphdef, state = train.create(make(name, jnp.float64), tx)
            run = wrap(train.make_train_step(graphdef, tx, loss_fn))
            metrics = {}
            for step in range(10):
                state, metrics = run(state, make_batch(step, np.float64), jax.random.key(0))
            finals.append((state.params, state.model_state, metrics))
            assert int(state.step) == 10
        first = nnx.to_pure_dict(nnx.state(make(name, jnp.float64), nnx.Param))
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), finals[0][0], first)
        # Not all: the bias of a convolution before a batch-norm has no gradient.
        assert np.median(jax.tree.leaves(moved)) > 1e-2
        for other in finals[1:]:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), finals[0], other)


@needs_eight
def test_first_gradients_in_float32_are_the_same():
    grads = []
    for wrap in wrappers():
        tx = optax.sgd(1.0)
        graphdef, state = train.create(make("ours", jnp.float32), tx)
        after, _ = wrap(train.make_train_step(graphdef, tx, loss_fn))(state, make_batch(0), jax.random.key(0))
        grads.append(jax.tree.map(lambda a, b: np.asarray(a - b), state.params, after.params))
    for other in grads[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), grads[0], other)


@needs_eight
def test_each_shard_draws_its_own_noise():
    class Probe(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jnp.ones(()))

        def __call__(self, x, *, key, train=False):
            return self.kernel[...] * jax.random.normal(key, x.shape)

    tx = optax.sgd(1.0)
    graphdef, state = train.create(Probe(), tx)
    step = train.make_train_step(
        graphdef, tx, lambda m, b, key: ((y := m(b["x"], train=True, key=key)), {"square": jnp.square(y)})
    )
    _, metrics = train.parallel.pmap(step)(state, {"x": jnp.ones(8)}, jax.random.key(0))
    # One draw a shard: were they equal, the mean of squares would be the square of the mean.
    assert float(metrics["square"]) > 1.5 * float(metrics["loss"]) ** 2


@needs_eight
def test_evaluation_counts_every_example_once_on_every_wrapper():
    graphdef, state = train.create(make("ours", jnp.float32), optax.sgd(0.1))
    examples = {name: value for name, value in make_batch(0, size=37).items() if name != "position"}
    results = []
    for wrap in wrappers():
        run = wrap(train.make_eval_step(graphdef, metric_fn))
        results.append(train.evaluate(run, state, data.padded(examples, 16)))
    assert results[0]["count"] == 37
    assert all(result == results[0] for result in results[1:])
    predictions = train.predict(graphdef, state, examples["image"]).argmax(1)
    assert results[0]["accuracy"] == pytest.approx((predictions == examples["label"]).mean())


@needs_eight
def test_a_batch_that_does_not_divide_is_refused():
    graphdef, state = train.create(make("ours", jnp.float32), optax.sgd(0.1))
    run = train.parallel.pmap(train.make_train_step(graphdef, optax.sgd(0.1), loss_fn))
    with pytest.raises(
        ValueError,
        match=r"pmap: a batch must divide over the devices, got 12 examples for 8 devices. Use a multiple of 8",
    ):
        run(state, make_batch(0, size=12), jax.random.key(0))
