"""What the experiments share: the steps at which epochs end, and what a folder holds that is not a run's."""

import pytest

from experiments import run, workdir


def ends(examples, epochs, **options):
    return run.ends(run.Options(**options), examples=examples, epochs=epochs)


def test_epochs_end_where_all_examples_were_seen():
    assert ends(10, 3, batch_size=4) == (3, 5, 8)
    assert ends(10, 3, batch_size=5) == (2, 4, 6)


def test_an_epoch_is_a_step_where_a_batch_is_larger_than_the_data():
    assert ends(10, 3, batch_size=32) == (1, 2, 3)


@pytest.mark.parametrize(("steps", "expected"), [(1, (1,)), (3, (3,)), (4, (3, 4)), (8, (3, 5, 8)), (99, (3, 5, 8))])
def test_steps_stop_early_and_never_late(steps, expected):
    assert ends(10, 3, batch_size=4, steps=steps) == expected


def test_what_is_not_of_a_run_stays(tmp_path):
    mine = [tmp_path / "holiday.png", tmp_path / "notes.txt"]
    for file in [*mine, tmp_path / "mistakes.png", tmp_path / workdir.RESULT]:
        file.write_bytes(b"mine")
    workdir.clear(tmp_path)
    assert sorted(tmp_path.iterdir()) == mine
