"""Checkpoints: bit for bit, the newest wins, another model is named."""

import gc
import shutil
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnjax import models, train


def make(hidden=(5,), tx=None, **options):
    model = models.MLP(shape=(4,), hidden=hidden, rngs=nnx.Rngs(0))
    return train.create(model, tx or optax.adamw(optax.schedules.cosine_decay_schedule(0.1, 9)), **options)[1]


def leaves(state):
    raw = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(state)
    ]
    return [np.asarray(x) for x in raw]


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("options", [{}, {"ema": True}])
def test_a_state_comes_back_bit_for_bit(tmp_path, options):
    state = jax.tree.map(lambda x: x + 3 if jnp.issubdtype(x.dtype, jnp.integer) else x * jnp.pi, make(**options))
    train.checkpoint.save(tmp_path / "c", state, {"name": "mlp", "seconds": 1.5})
    restored, meta = train.checkpoint.restore(tmp_path / "c", make(**options))
    assert_same(restored, state)
    assert meta == train.checkpoint.read_meta(tmp_path / "c") == {"name": "mlp", "seconds": 1.5}


def test_random_streams_of_stock_models_come_back(tmp_path):
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    _, state = train.create(model, optax.sgd(0.1))
    train.checkpoint.save(tmp_path, state, {})
    assert_same(train.checkpoint.restore(tmp_path, state)[0], state)


def test_the_newest_wins_and_older_ones_go(tmp_path):
    state = make()
    for step in (1, 2, 9, 10):
        state = train.TrainState(jnp.int32(step), state.params, state.model_state, state.opt_state)
        train.checkpoint.save(tmp_path, state, {"step": step}, keep=2)
    restored, meta = train.checkpoint.restore(tmp_path, make())
    assert (int(restored.step), meta["step"]) == (10, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "9"]


def test_another_model_is_named_with_both_shapes(tmp_path):
    train.checkpoint.save(tmp_path, make(), {})
    with pytest.raises(
        ValueError,
        match=r"another model or optimiser: params/hidden/0/bias is float32\[5\] there and float32\[6\] here",
    ):
        train.checkpoint.restore(tmp_path, make(hidden=(6,)))
    with pytest.raises(ValueError, match=r"opt_state/\S+ is \S+ there and absent here"):
        train.checkpoint.restore(tmp_path, make(tx=optax.sgd(0.1)))


def test_no_checkpoint_is_said(tmp_path):
    assert train.checkpoint.read_meta(tmp_path / "none") is None
    assert train.checkpoint.read_meta(tmp_path) is None
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"restore: there must be a checkpoint, but .* Train first"):
            train.checkpoint.restore(folder, make())


def test_another_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train.checkpoint, "_FORMAT", 99)
        train.checkpoint.save(tmp_path, make(), {})
    with pytest.raises(ValueError, match=r"must be of checkpoint format 2, got 99\. Read it with the version"):
        train.checkpoint.restore(tmp_path, make())


def at(state, step):
    return train.TrainState(jnp.int32(step), state.params, state.model_state, state.opt_state)


def test_the_best_stays_with_the_newest(tmp_path):
    state = make()
    with train.checkpoint.saving(tmp_path, keep=2) as write:
        for step, score in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None), (5, 0.8)):
            write(at(state, step), {"step": step}, score)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]
    assert int(train.checkpoint.restore(tmp_path, state)[0].step) == 5
    restored, meta = train.checkpoint.restore(tmp_path, state, best=True)
    assert (int(restored.step), meta) == (2, {"step": 2})


def test_what_is_saved_is_what_was_given_though_its_memory_is_used_again(tmp_path):
    step = train.parallel.jit(lambda state, axis_name=None: jax.tree.map(lambda x: x * 0 - 1, state), donate=True)
    state = make(hidden=(500,))
    given = [np.array(leaf) for leaf in jax.tree.leaves(state)]
    with train.checkpoint.saving(tmp_path) as write:
        write(state, {})
        jax.block_until_ready(step(state))
    for leaf, before in zip(
        jax.tree.leaves(train.checkpoint.restore(tmp_path, make(hidden=(500,)))[0]), given, strict=True
    ):
        np.testing.assert_array_equal(leaf, before)


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGE = {
    "gone": lambda content: None,
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "its last byte gone": lambda content: content[:-1],
    "its first byte wrong": lambda content: flip(content, 0),
    "a byte wrong": lambda content: flip(content, len(content) // 2),
    "another byte wrong": lambda content: flip(content, len(content) // 4),
    "its last byte wrong": lambda content: flip(content, len(content) - 1),
}


def damage(how, *damaged):
    for file in damaged:
        content = DAMAGE[how](file.read_bytes())
        file.unlink() if content is None else file.write_bytes(content)


def files(folder):
    """Its files, the largest, which holds arrays, first."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    return sorted(found, key=lambda file: file.stat().st_size, reverse=True)


@pytest.fixture
def _unfinished():
    yield
    # Orbax gives reading up where tensorstore still does it: it is to complain here, and not in another test.
    gc.collect()


def unfinished_reads(test):
    ignored = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    return pytest.mark.usefixtures("_unfinished")(ignored(test))


@unfinished_reads
@pytest.mark.parametrize(
    ("how", "count"), [("gone", None), ("cut short", None), ("cut short", 1), ("a byte wrong", 1), ("gone", 1)]
)
def test_a_damaged_checkpoint_is_passed_over_and_kept_aside(how, count, tmp_path):
    state = make(hidden=(256,))
    for step in (3, 4):
        train.checkpoint.save(tmp_path, at(state, step), {"step": step})
    damage(how, *files(tmp_path / "4")[:count])
    with pytest.warns(UserWarning, match=r"restore: .*4 is damaged, reading the one before: "):
        restored, meta = train.checkpoint.restore(tmp_path, state)
    assert_same(restored, at(state, 3))
    assert meta == {"step": 3}
    for content in (40, 41):
        train.checkpoint.save(tmp_path, at(state, 4), {"step": content})
        assert train.checkpoint.restore(tmp_path, state)[1] == {"step": content}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "4.replaced"]


@pytest.mark.slow
@unfinished_reads
@pytest.mark.parametrize("how", DAMAGE)
def test_damage_to_any_one_file_is_harmless_or_told(how, tmp_path):
    state = make(hidden=(256,), ema=True)
    for step in (3, 4):
        train.checkpoint.save(tmp_path / "c", replace(state, step=jnp.int32(step)), {"step": step})
    told = 0
    for file in files(tmp_path / "c" / "4"):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "c", copy)
        damage(how, copy / file.relative_to(tmp_path / "c"))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            restored, meta = train.checkpoint.restore(copy, state)
        told += len(said)
        assert_same(restored, replace(state, step=jnp.int32(3 if said else 4)))
        assert meta == {"step": int(restored.step)}
        with train.checkpoint.saving(copy) as write:
            write(replace(state, step=jnp.int32(5)), {}, 0.5)
        shutil.rmtree(copy)
    assert told >= 5


def test_damage_that_no_reader_notices_is_found_on_split_arrays_too(tmp_path, monkeypatch):
    spread = train.parallel.sharded(lambda state, batch, axis_name: state)
    state = spread(make(hidden=(256,)), np.zeros(8))
    kernel = state.params["hidden"][0]["kernel"]
    assert jax.device_count() == 1 or not kernel.is_fully_replicated
    train.checkpoint.save(tmp_path, state, {})
    assert_same(train.checkpoint.restore(tmp_path, state)[0], state)
    read = train.checkpoint._item

    def wrong(manager, step, name, args):
        item = read(manager, step, name, args)
        if name == "state":
            item.params["hidden"][0]["kernel"] = kernel.at[3, 255].add(1e-3)
        return item

    monkeypatch.setattr(train.checkpoint, "_item", wrong)
    with pytest.raises(ValueError, match=r"the values of params/hidden/0/kernel are not those that were saved"):
        train.checkpoint.restore(tmp_path, state)


@unfinished_reads
def test_when_all_are_damaged_it_is_said(tmp_path):
    train.checkpoint.save(tmp_path, make(), {})
    damage("cut short", *files(tmp_path / "0"))
    with pytest.raises(ValueError, match=r"restore: .* must hold a whole checkpoint, got .* Train anew"):
        train.checkpoint.restore(tmp_path, make())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"save: .*file.* must be a folder with room that can be written, got"):
        train.checkpoint.save(tmp_path / "file" / "checkpoints", make(), {})
