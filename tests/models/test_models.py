"""The models: published and hand-counted parameters, their two parts, and that a step teaches them something."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnjax import models, train

MAKERS = {"lenet": models.LeNet, "lenet5": models.LeNet5, "mlp": models.MLP}
X = jax.random.uniform(jax.random.key(0), (4, 28, 28, 1))


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize("name", MAKERS)
def test_a_classifier_is_its_head_on_its_features(name):
    model = MAKERS[name](rngs=nnx.Rngs(0))
    assert model(X).shape == (4, 10)
    np.testing.assert_array_equal(model.head(model.features(X)), model(X))


def test_features_have_the_documented_shapes():
    assert models.LeNet(rngs=nnx.Rngs(0)).features(X).shape == (4, 3, 3, 64)
    assert models.LeNet5(rngs=nnx.Rngs(0)).features(X).shape == (4, 1, 1, 120)
    assert models.MLP(rngs=nnx.Rngs(0)).features(X).shape == (4, 256)


def test_lenet5_has_the_published_parameters():
    model = models.LeNet5(rngs=nnx.Rngs(0))
    layers = [count(layer) for layer in (model.c1, model.s2, model.c3, model.s4, model.c5, model.f6)]
    assert layers == [156, 12, 1_516, 32, 48_120, 10_164]
    assert sum(layers) == 60_000
    assert count(model) == 60_000 + 84 * 10 + 10


def test_lenet5_connects_c3_as_table_one():
    model = models.LeNet5(rngs=nnx.Rngs(0))
    jacobian = jax.jacrev(lambda x: model.c3(x)[0, 0, 0])(jax.random.uniform(jax.random.key(1), (1, 5, 5, 6)))
    connected = np.any(np.asarray(jacobian)[:, 0] != 0, axis=(1, 2))
    assert connected.sum(1).tolist() == [3] * 6 + [4] * 9 + [6]
    assert connected.sum(0).tolist() == [10] * 6
    assert np.flatnonzero(connected[4]).tolist() == [0, 4, 5]
    assert np.flatnonzero(connected[14]).tolist() == [0, 2, 3, 5]


def test_lenet_and_mlp_parameters_counted_by_hand():
    convs = 9 * (1 * 16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64)
    assert count(models.LeNet(rngs=nnx.Rngs(0))) == convs + (576 * 128 + 128) + (128 * 10 + 10)
    assert count(models.MLP(rngs=nnx.Rngs(0))) == (784 * 256 + 256) + (256 * 256 + 256) + (256 * 10 + 10)


def test_other_pictures_and_classes():
    x = jnp.zeros((2, 32, 40, 3))
    assert models.LeNet(shape=(32, 40, 3), num_classes=7, rngs=nnx.Rngs(0))(x).shape == (2, 7)
    assert models.MLP(shape=(32, 40, 3), num_classes=7, hidden=(5,), rngs=nnx.Rngs(0))(x).shape == (2, 7)


@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_dropout_needs_training_and_a_key(name):
    model = MAKERS[name](rngs=nnx.Rngs(0))
    key = jax.random.key(1)
    np.testing.assert_array_equal(model(X, key=key), model(X))
    np.testing.assert_array_equal(model(X, train=True, key=key), model(X, train=True, key=key))
    assert not np.array_equal(model(X, train=True, key=key), model(X, train=True))


@pytest.mark.parametrize("name", MAKERS)
def test_ten_steps_lower_the_loss(name):
    def loss_fn(model, batch, key):
        logits = model(batch["image"], train=True, key=None)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), {}

    tx = optax.adam(2e-3)
    graphdef, state = train.create(MAKERS[name](rngs=nnx.Rngs(0)), tx)
    run = train.parallel.jit(train.make_train_step(graphdef, tx, loss_fn))
    batch = {"image": X, "label": jnp.arange(4)}
    _, history = train.fit(run, state, lambda step: batch, jax.random.key(0), steps=10)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
