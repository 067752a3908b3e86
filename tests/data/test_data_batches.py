import time

import chex
import numpy as np
import pytest

from cnnjax.data import Batches, padded


def numbered(n):
    return {"image": np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), "label": np.arange(n, dtype=np.int32)}


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (10, 10), (3, 8), (1, 4), (12, 4)])
def test_every_epoch_holds_every_example_once(size, batch):
    batches = Batches(numbered(size), batch, seed=1)
    stream = np.concatenate([batches(step)["label"] for step in range(4 * size)])
    for epoch in range(len(stream) // size):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_batches_are_full_and_images_keep_their_labels():
    for step in range(20):
        batch = Batches(numbered(10), 7, seed=3)(step)
        assert batch["image"].shape == (7, 1, 1, 1)
        np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])
        assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)


def test_a_batch_depends_on_seed_and_step_alone():
    one, other = Batches(numbered(50), 8, seed=0), Batches(numbered(50), 8, seed=0)
    for step in range(30):
        one(step)
    np.testing.assert_array_equal(one(17)["label"], other(17)["label"])
    assert one(17)["label"].tolist() != Batches(numbered(50), 8, seed=1)(17)["label"].tolist()


def test_epochs_are_permuted_differently_and_none_is_in_order():
    batches = Batches(numbered(100), 100, seed=0)
    orders = [batches(step)["label"].tolist() for step in range(5)]
    assert len({tuple(order) for order in [*orders, list(range(100))]}) == 6


def test_the_batch_size_does_not_change_the_stream():
    small, large = Batches(numbered(11), 2, seed=5), Batches(numbered(11), 6, seed=5)
    np.testing.assert_array_equal(
        np.concatenate([small(step)["label"] for step in range(9)]),
        np.concatenate([large(step)["label"] for step in range(3)]),
    )


def test_positions_count_through_the_stream_and_wrap_at_32_bits():
    batches = Batches(numbered(10), 4, seed=0)
    assert batches(3)["position"].tolist() == [12, 13, 14, 15]
    assert batches(3)["position"].dtype == np.uint32
    assert batches(2**30)["position"].tolist() == [0, 1, 2, 3]


def test_first_places_are_uniform():
    batches = Batches(numbered(4), 4, seed=0)
    counts = np.bincount([batches(step)["label"][0] for step in range(2000)])
    assert abs(counts - 500).max() < 100


def test_a_batch_of_mnists_size_takes_well_under_a_millisecond():
    examples = {"image": np.zeros((60000, 28, 28, 1), np.uint8), "label": np.zeros(60000, np.int32)}
    batches = Batches(examples, 128, seed=0)
    batches(0)
    times = []
    for step in range(200):
        start = time.perf_counter()
        batches(step)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1e-3


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**70, np.int64(3)])
def test_any_integer_is_a_seed(seed):
    assert Batches(numbered(5), 5, seed=seed)(0)["label"].sum() == 10


def test_large_seeds_differ():
    orders = {tuple(Batches(numbered(20), 20, seed=2**63 + i)(0)["label"].tolist()) for i in range(5)}
    assert len(orders) == 5


def test_a_32_bit_step_does_not_overflow():
    batches = Batches(numbered(7), 128, seed=0)
    np.testing.assert_array_equal(batches(np.int32(2**25))["label"], batches(2**25)["label"])


def test_the_permutation_cannot_be_damaged_through_a_batch():
    batches = Batches(numbered(5), 5, seed=0)
    before = batches(0)["label"].copy()
    batches(0)["label"][:] = 0
    np.testing.assert_array_equal(batches(0)["label"], before)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Batches(numbered(5), 0, seed=0), "Batches: batch_size must be at least 1, got 0"),
        (lambda: Batches(numbered(5), -2, seed=0), "Batches: batch_size must be at least 1, got -2"),
        (lambda: Batches(numbered(0), 2, seed=0), "Batches: examples must not be empty, got 0"),
        (lambda: Batches({}, 2, seed=0), r"Batches: examples must hold arrays, .* got \[\]"),
        (lambda: Batches({"position": np.zeros(3)}, 2, seed=0), "none called 'position'"),
        (lambda: Batches(numbered(5) | {"x": np.zeros(4)}, 2, seed=0), "arrays must have one length, got .*'x': 4"),
        (lambda: Batches(numbered(5), 2, seed=0)(-1), "Batches: step must be at least 0, got -1"),
        (lambda: padded(numbered(5), 0), "padded: batch_size must be at least 1, got 0"),
        (lambda: padded({"mask": np.zeros(3)}, 2), "padded: examples must hold arrays, none called 'mask'"),
        (lambda: padded(numbered(5) | {"x": np.zeros(4)}, 2), "padded: arrays must have one length"),
        (lambda: Batches(numbered(5), 4, seed=0, share=(0, 3)), r"Batches: share must be .* got \(0, 3\) for 4 exampl"),
        (lambda: Batches(numbered(5), 4, seed=0, share=(2, 2)), r"Batches: share must be .* got \(2, 2\) for 4 exampl"),
        (lambda: padded(numbered(5), 4, share=(-1, 2)), r"padded: share must be .* got \(-1, 2\) for 4 examples"),
    ],
)
def test_bad_arguments_are_named_at_once(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(("size", "batch", "count"), [(10, 4, 3), (8, 4, 2), (3, 8, 1), (0, 4, 0)])
def test_padded_batches_hold_every_example_once(size, batch, count):
    got = list(padded(numbered(size), batch))
    assert len(got) == count
    assert all(b["image"].shape == (batch, 1, 1, 1) and b["mask"].dtype == bool for b in got)
    seen = [n for b in got for n in b["label"][b["mask"]].tolist()]
    assert seen == list(range(size))
    assert all((b["image"][~b["mask"]] == 0).all() for b in got)


def test_padded_takes_images_alone():
    batches = list(padded({"image": np.ones((5, 2, 2, 1), np.uint8)}, 4))
    assert [set(b) for b in batches] == [{"image", "mask"}] * 2
    assert batches[1]["mask"].tolist() == [True, False, False, False]


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_shares_make_up_the_batch():
    whole = Batches(numbered(7), 6, seed=0)
    for n in (1, 2, 3, 6):
        shares = [Batches(numbered(7), 6, seed=0, share=(i, n)) for i in range(n)]
        for step in range(4):
            chex.assert_trees_all_equal(joined([share(step) for share in shares]), whole(step))


def test_padded_shares_make_up_the_batches():
    for n in (1, 2, 4):
        for size in (0, 1, 3, 8, 9):
            parts = zip(*(padded(numbered(size), 4, share=(i, n)) for i in range(n)), strict=True)
            chex.assert_trees_all_equal([joined(part) for part in parts], list(padded(numbered(size), 4)))
