"""One step on 1, 2 and 8 devices: the same parameters in float64, the same gradients in float32."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from train_helpers import first_gradients, loss_fn, make, make_batch, trained

from cnnjax import data, models, train

needs_eight = pytest.mark.skipif(jax.local_device_count() < 8, reason="needs 8 (virtual) devices")


def metric_fn(model, batch):
    logits = train.apply(model, batch["image"], train=False)
    return {"accuracy": logits.argmax(-1) == batch["label"]}


def mesh(*shape, names):
    return jax.sharding.Mesh(np.array(jax.local_devices()[: math.prod(shape)]).reshape(shape), names)


def wrappers():
    pmaps = [lambda step, n=n: train.parallel.pmap(step, devices=jax.local_devices()[:n]) for n in (1, 2, 8)]
    meshes = [mesh(2, names="d"), mesh(8, names=["fsdp"]), mesh(2, 4, names=["data", "fsdp"])]
    return [train.parallel.jit, *pmaps, *(lambda step, m=m: train.parallel.sharded(step, m) for m in meshes)]


@needs_eight
@pytest.mark.parametrize(
    ("name", "accumulate"), [("stock", 2), *(pytest.param("ours", n, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_twenty_steps_in_float64_give_the_same_parameters(name, accumulate):
    finals = [trained(wrap, name, steps=20, accumulate=accumulate) for wrap in wrappers()]
    state, metrics = finals[0]
    assert int(state.step) == 20
    first = nnx.to_pure_dict(nnx.state(make(name, jnp.float32), nnx.Param))
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), state.params, first)
    # Not all: the bias of a convolution before a batch-norm has no gradient.
    assert np.median(jax.tree.leaves(moved)) > 1e-2
    for other, other_metrics in finals[1:]:
        compared = (state.params, state.ema, state.model_state, metrics)
        with_it = (other.params, other.ema, other.model_state, other_metrics)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), compared, with_it)


@needs_eight
def test_first_gradients_in_float32_are_the_same():
    grads = [first_gradients(wrap, "stock") for wrap in wrappers()]
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


@needs_eight
@pytest.mark.parametrize("wrap", wrappers())
def test_no_wrapper_scales_gradients(wrap):
    class Line(nnx.Module):
        def __init__(self):
            self.slope = nnx.Param(jnp.zeros(2048))

        def __call__(self, x):
            return x * self.slope.sum()

    def loss_fn(model, batch, key):
        return model(batch["x"]), {}

    tx = optax.sgd(1.0)
    graphdef, state = train.create(Line(), tx)
    run = wrap(train.make_train_step(graphdef, tx, loss_fn))
    after, metrics = run(state, {"x": np.arange(16, dtype=np.float32)}, jax.random.key(0))
    # The mean of 0 to 15.
    np.testing.assert_allclose(after.params["slope"], -7.5, rtol=1e-6)
    assert float(metrics["loss"]) == 0


@needs_eight
def test_sharded_puts_an_eighth_of_the_state_on_each_device():
    model = models.MLP(shape=(8, 8, 3), hidden=(256, 512), num_classes=10, rngs=nnx.Rngs(0))
    tx = optax.adamw(1e-3)
    graphdef, state = train.create(model, tx, ema=True)
    step = train.make_train_step(graphdef, tx, image_loss, ema_decay=0.9)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    batch = {"image": np.zeros((8, 8, 8, 3), np.float32), "label": np.zeros(8, np.int32)}
    for shape, names, share in [((8,), ["fsdp"], 8), ((2, 4), ["data", "fsdp"], 4), ((8,), ["data"], 1)]:
        after, _ = train.parallel.sharded(step, mesh(*shape, names=names))(state, batch, jax.random.key(0))
        held = dict.fromkeys(jax.local_devices(), 0)
        for leaf in jax.tree.leaves(after):
            for shard in leaf.addressable_shards:
                held[shard.device] += shard.data.nbytes
        # A little is too small to be split.
        assert whole / share <= min(held.values()) <= max(held.values()) < 1.05 * whole / share
        again, _ = train.parallel.sharded(step, mesh(*shape, names=names))(after, batch, jax.random.key(0))
        assert jax.tree.map(lambda leaf: leaf.sharding, again) == jax.tree.map(lambda leaf: leaf.sharding, after)


def image_loss(model, batch, key):
    logits = train.apply(model, batch["image"], train=True, key=key)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), {}


@needs_eight
def test_sharded_takes_a_mesh_of_explicit_axes_and_a_state_from_elsewhere():
    explicit = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Explicit,))
    tx = optax.sgd(0.1)
    graphdef, state = train.create(make("ours", jnp.float32), tx)
    run = train.parallel.sharded(train.make_train_step(graphdef, tx, loss_fn), explicit)
    first, _ = run(state, make_batch(0), jax.random.key(0))
    committed = jax.device_put(state, jax.local_devices()[3])
    second, _ = run(committed, make_batch(0), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@needs_eight
def test_sharded_compiles_once():
    traces = []

    def counted(model, batch, key):
        traces.append(1)
        return loss_fn(model, batch, key)

    tx = optax.sgd(0.1)
    graphdef, state = train.create(make("ours", jnp.float32), tx)
    run = train.parallel.sharded(train.make_train_step(graphdef, tx, counted))
    for step in range(3):
        state, _ = run(state, make_batch(step), jax.random.key(step))
    assert len(traces) == 1


def test_sharded_refuses_a_batch_that_does_not_divide():
    run = train.parallel.sharded(lambda state, batch, axis_name: state)
    with pytest.raises(ValueError, match=r"sharded: a batch must divide over the devices, got 9 examples for 8 dev"):
        run(1.0, np.zeros(9))


@needs_eight
@pytest.mark.parametrize("wrap", [train.parallel.jit, train.parallel.pmap, train.parallel.sharded])
def test_a_step_may_work_in_the_memory_of_the_state(wrap):
    tx = optax.adamw(0.1)
    model = models.MLP(shape=(12, 12, 1), hidden=(64,), num_classes=2, dropout=0.0, rngs=nnx.Rngs(0))
    graphdef, state = train.create(model, tx, ema=True)
    step = train.make_train_step(graphdef, tx, loss_fn, ema_decay=0.5)
    kept, donated = state, jax.tree.map(jnp.copy, state)
    for number in range(3):
        kept, _ = wrap(step)(kept, make_batch(number), jax.random.key(0))
        given = donated
        donated, _ = wrap(step, donate=True)(given, make_batch(number), jax.random.key(0))
        # The other wrappers first spread the state over the devices.
        if wrap is train.parallel.jit or number:
            assert given.params["hidden"][0]["kernel"].is_deleted()
    jax.tree.map(np.testing.assert_array_equal, kept, donated)
