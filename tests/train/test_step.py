"""The train and eval steps: by hand, with noise, with averages, with stock models."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnjax import models, nn, ops, train


class Line(nnx.Module):
    """y = kernel * x, the model whose gradient one can do by hand."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.array(2.0))

    def __call__(self, x, *, train=False, key=None):
        return self.kernel[...] * x


def square_loss(model, batch, key):
    error = model(batch["x"], train=True, key=key) - batch["y"]
    return jnp.square(error), {"error": jnp.abs(error)}


LINE_BATCH = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([0.0, 1.0])}


def test_one_sgd_step_by_hand():
    tx = optax.sgd(0.1)
    graphdef, state = train.create(Line(), tx)
    after, metrics = train.make_train_step(graphdef, tx, square_loss)(state, LINE_BATCH, jax.random.key(0))
    # errors 2 and 3; d loss / d kernel = mean(2 * error * x) = (4 + 12) / 2 = 8
    np.testing.assert_allclose(metrics["loss"], 6.5)
    np.testing.assert_allclose(metrics["error"], 2.5)
    np.testing.assert_allclose(after.params["kernel"], 2 - 0.1 * 8, rtol=1e-6)
    assert (int(state.step), int(after.step)) == (0, 1)
    np.testing.assert_allclose(state.params["kernel"], 2)


def test_the_average_moves_by_its_decay_and_is_what_is_evaluated():
    tx = optax.sgd(0.1)
    graphdef, state = train.create(Line(), tx, ema=True)
    step = train.make_train_step(graphdef, tx, square_loss, ema_decay=0.75)
    after, _ = step(state, LINE_BATCH, jax.random.key(0))
    np.testing.assert_allclose(after.params["kernel"], 1.2, rtol=1e-6)
    np.testing.assert_allclose(after.ema["kernel"], 0.75 * 2 + 0.25 * 1.2, rtol=1e-6)
    np.testing.assert_allclose(train.merge(graphdef, after)(jnp.array(1.0)), 1.8, rtol=1e-6)


@pytest.mark.parametrize(("ema", "decay"), [(True, None), (False, 0.9)])
def test_half_an_average_is_refused(ema, decay):
    tx = optax.sgd(0.1)
    graphdef, state = train.create(Line(), tx, ema=ema)
    with pytest.raises(ValueError, match=r"make_train_step: ema_decay and create\(\.\.\., ema=True\) go together"):
        train.make_train_step(graphdef, tx, square_loss, ema_decay=decay)(state, LINE_BATCH, jax.random.key(0))


def test_a_mean_loss_is_refused():
    tx = optax.sgd(0.1)
    graphdef, state = train.create(Line(), tx)
    step = train.make_train_step(graphdef, tx, lambda model, batch, key: (square_loss(model, batch, key)[0].mean(), {}))
    with pytest.raises(
        ValueError, match=r"make_train_step: loss_fn must return one loss an example, \(N,\), got shape"
    ):
        step(state, LINE_BATCH, jax.random.key(0))


def test_the_noise_is_a_function_of_key_and_step():
    drawn = []

    def loss_fn(model, batch, key):
        drawn.append(np.asarray(jax.random.key_data(key)))
        return square_loss(model, batch, key)

    tx = optax.sgd(0.1)
    graphdef, state = train.create(Line(), tx)
    step = train.make_train_step(graphdef, tx, loss_fn)
    with jax.disable_jit():
        after, _ = step(state, LINE_BATCH, jax.random.key(0))
        for start, key in ((state, 0), (after, 0), (state, 1)):
            step(start, LINE_BATCH, jax.random.key(key))
    assert np.array_equal(drawn[0], drawn[1])
    assert len({tuple(key) for key in drawn}) == 3


def test_the_step_compiles_once():
    tx = optax.adam(0.1)
    graphdef, state = train.create(Line(), tx)
    step = chex.assert_max_traces(train.make_train_step(graphdef, tx, square_loss), n=1)
    run = train.parallel.jit(step)
    for _ in range(3):
        state, _ = run(state, LINE_BATCH, jax.random.key(0))
    assert int(state.step) == 3


def test_batch_statistics_come_back_as_model_state():
    tx = optax.sgd(0.0)
    graphdef, state = train.create(nn.BatchNorm(1, decay=0.5, rngs=nnx.Rngs(0)), tx)
    step = train.make_train_step(graphdef, tx, lambda m, b, key: (m(b["x"], train=True)[:, 0], {}))
    after, _ = step(state, {"x": jnp.array([[1.0], [3.0]])}, jax.random.key(0))
    np.testing.assert_allclose(after.model_state["mean"], [1.0])
    np.testing.assert_allclose(after.model_state["var"], [1.0])
    np.testing.assert_allclose(state.model_state["mean"], [0.0])


def test_eval_counts_every_example_once():
    graphdef, state = train.create(Line(), optax.sgd(0.1))
    run = train.parallel.jit(train.make_eval_step(graphdef, lambda model, batch: {"y": model(batch["x"])}))
    filling = jnp.nan
    batches = [
        {"x": jnp.array([1.0, 2.0]), "mask": jnp.array([True, True])},
        {"x": jnp.array([6.0, filling]), "mask": jnp.array([True, False])},
    ]
    assert train.evaluate(run, state, batches) == {"y": 6.0, "count": 3}


def test_eval_without_mask_or_examples_is_refused():
    graphdef, state = train.create(Line(), optax.sgd(0.1))
    step = train.make_eval_step(graphdef, lambda model, batch: {"y": model(batch["x"])})
    with pytest.raises(ValueError, match="make_eval_step: the batch must have a bool mask"):
        step(state, {"x": jnp.ones(2)})
    with pytest.raises(ValueError, match="evaluate: there must be an example to evaluate, got none"):
        train.evaluate(step, state, [])


class Stock(nnx.Module):
    """A net of flax.nnx alone, called the way its tutorials do."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.dense(self.dropout(x.mean((1, 2))))


def stock_loss(model, batch, key):
    logits = train.apply(model, batch["image"], train=True, key=key)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), {}


LABELS = jnp.arange(12) % 3
STOCK_BATCH = {
    "image": jax.random.normal(jax.random.key(5), (12, 6, 6, 1)) + LABELS[:, None, None, None],
    "label": LABELS,
}


def on_four_devices(step):
    return train.parallel.pmap(step, devices=jax.local_devices()[:4])


@pytest.mark.parametrize("wrap", [train.parallel.jit, on_four_devices])
def test_stock_models_train(wrap):
    tx = optax.adam(0.03)
    graphdef, state = train.create(Stock(nnx.Rngs(0)), tx)
    run = wrap(train.make_train_step(graphdef, tx, stock_loss))
    after, history = train.fit(run, state, lambda step: STOCK_BATCH, jax.random.key(0), steps=60)
    assert history["loss"][-10:].mean() < 0.75 * history["loss"][:5].mean()
    assert not np.allclose(after.model_state["norm"]["mean"], 0)
    # Random streams are left as they were: the noise comes from the step's key alone.
    chex.assert_trees_all_equal(
        jax.random.key_data(after.model_state["dropout"]["rngs"]["key"]),
        jax.random.key_data(state.model_state["dropout"]["rngs"]["key"]),
    )
    assert int(after.model_state["dropout"]["rngs"]["count"]) == 0
    probabilities = train.predict(graphdef, after, STOCK_BATCH["image"], batch_size=5)
    assert probabilities.shape == (12, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities, train.predict(graphdef, after, STOCK_BATCH["image"], batch_size=5))


def test_stock_models_called_directly_are_in_the_mode_of_the_step():
    def loss_fn(model, batch, key):
        modes.append((model.dropout.deterministic, model.norm.use_running_average))
        return model(batch["image"]).sum(1), {}

    def metric_fn(model, batch):
        modes.append((model.dropout.deterministic, model.norm.use_running_average))
        return {"sum": model(batch["image"]).sum(1)}

    modes = []
    tx = optax.sgd(0.0)
    graphdef, state = train.create(Stock(nnx.Rngs(0)), tx)
    step = train.make_train_step(graphdef, tx, loss_fn)
    first, again, other = (step(state, STOCK_BATCH, jax.random.key(seed))[1]["loss"] for seed in (0, 0, 1))
    assert first == again != other
    after, _ = step(state, STOCK_BATCH, jax.random.key(0))
    assert int(after.model_state["dropout"]["rngs"]["count"]) == 0
    sums = train.make_eval_step(graphdef, metric_fn)(state, {**STOCK_BATCH, "mask": jnp.ones(12, bool)})
    np.testing.assert_allclose(
        sums["sum"], train.apply(Stock(nnx.Rngs(0)), STOCK_BATCH["image"], train=False).sum(), rtol=1e-5
    )
    assert modes == [(False, False)] * 4 + [(True, True)]


def test_apply_switches_stock_models_and_draws_from_the_key():
    model, x = Stock(nnx.Rngs(0)), STOCK_BATCH["image"]
    plain = train.apply(model, x, train=False)
    np.testing.assert_array_equal(train.apply(model, x, train=False), plain)
    first = train.apply(model, x, train=True, key=jax.random.key(1))
    np.testing.assert_array_equal(train.apply(model, x, train=True, key=jax.random.key(1)), first)
    assert not np.array_equal(train.apply(model, x, train=True, key=jax.random.key(2)), first)
    with pytest.raises(ValueError, match="apply: a model with random streams needs a key in training, got None"):
        train.apply(model, x, train=True)


def test_apply_passes_on_what_our_models_take():
    class Echo(nnx.Module):
        def __call__(self, x, *, train=False, key=None):
            return train, key

    class Modal(nnx.Module):
        def __call__(self, x, train):
            return train

    assert train.apply(Echo(), 0, train=True, key="key") == (True, "key")  # pyright: ignore[reportArgumentType]
    assert train.apply(Modal(), 0, train=False) is False  # pyright: ignore[reportArgumentType]


def test_a_layer_norm_with_an_axis_name_is_left_alone():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(2, rngs=rngs)

        def __call__(self, x, *, train=False, key=None):
            assert self.norm.axis_name is None
            return self.norm(x)

    tx = optax.sgd(0.1)
    graphdef, state = train.create(Net(nnx.Rngs(0)), tx)
    run = train.parallel.pmap(
        train.make_train_step(graphdef, tx, lambda m, b, key: (m(b["x"]).sum(1), {})), devices=jax.local_devices()[:2]
    )
    run(state, {"x": jnp.arange(8.0).reshape(4, 2)}, jax.random.key(0))


def test_fit_starts_where_the_state_is_and_returns_every_step():
    seen = []

    def batches(step):
        seen.append(step)
        return LINE_BATCH

    tx = optax.sgd(0.01)
    graphdef, state = train.create(Line(), tx)
    run = train.parallel.jit(train.make_train_step(graphdef, tx, square_loss))
    state, first = train.fit(run, state, batches, jax.random.key(0), steps=3)
    state, second = train.fit(run, state, batches, jax.random.key(0), steps=7)
    assert seen == list(range(10))
    assert (len(first["loss"]), len(second["loss"]), len(second["error"])) == (3, 7, 7)
    assert np.all(np.diff(np.concatenate([first["loss"], second["loss"]])) < 0)


def test_fit_shows_progress_when_asked(capsys):
    tx = optax.sgd(0.01)
    graphdef, state = train.create(Line(), tx)
    run = train.parallel.jit(train.make_train_step(graphdef, tx, square_loss))
    train.fit(run, state, lambda step: LINE_BATCH, jax.random.key(0), steps=20)
    assert capsys.readouterr().err == ""
    train.fit(run, state, lambda step: LINE_BATCH, jax.random.key(0), steps=20, progress="training")
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "20/20" in shown
    assert "loss=" in shown
    assert "examples/s=" in shown


def test_fit_stops_at_a_loss_that_is_not_finite():
    tx = optax.sgd(1e30)
    graphdef, state = train.create(Line(), tx)
    run = train.parallel.jit(train.make_train_step(graphdef, tx, square_loss))
    with pytest.raises(FloatingPointError, match=r"fit: the loss must stay finite, got inf in step 1\."):
        train.fit(run, state, lambda step: LINE_BATCH, jax.random.key(0), steps=50)


def test_fit_hands_out_no_state_with_parameters_that_are_not_finite():
    graphdef, state = train.create(Line(), tx := optax.scale(jnp.inf))
    run = train.parallel.jit(train.make_train_step(graphdef, tx, square_loss))
    said = r"fit: the parameters must stay finite, got some that are not, after a loss of \d\S*, in step 0\."
    with pytest.raises(train.Diverged, match=said) as error:
        train.fit(run, state, lambda step: LINE_BATCH, jax.random.key(0), steps=1)
    assert error.value.step == 0
    assert np.isfinite(error.value.loss)


def test_predict_equals_the_models_softmax_whatever_the_batch_size():
    model = models.MLP(shape=(4,), hidden=(5,), rngs=nnx.Rngs(0))
    graphdef, state = train.create(model, optax.sgd(0.1))
    x = np.asarray(jax.random.normal(jax.random.key(0), (7, 4)))
    expected = jax.nn.softmax(model(jnp.asarray(x)))
    for size in (1, 3, 7, 100):
        np.testing.assert_allclose(train.predict(graphdef, state, x, batch_size=size), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="predict: needs examples and a batch size, got 7 examples and size 0"):
        train.predict(graphdef, state, x, batch_size=0)


def test_metrics_may_be_bools():
    tx = optax.sgd(0.1)
    graphdef, state = train.create(Line(), tx)
    step = train.make_train_step(graphdef, tx, lambda m, b, key: (m(b["x"]), {"large": b["x"] > 1.5}))
    _, metrics = step(state, LINE_BATCH, jax.random.key(0))
    assert float(metrics["large"]) == 0.5


def test_ops_are_enough_for_a_model():
    class Functional(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jnp.ones((3, 3, 1, 2)))

        def __call__(self, x):
            return ops.global_avg_pool(ops.conv2d(x, self.kernel[...]))

    graphdef, state = train.create(Functional(), optax.sgd(0.1))
    assert train.predict(graphdef, state, np.ones((2, 5, 5, 1), np.float32)).tolist() == [[0.5, 0.5]] * 2
