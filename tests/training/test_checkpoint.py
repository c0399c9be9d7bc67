"""Checkpoints: whole or not at all, refused when a bit is off, and reading one never runs code."""

import hashlib
import pickle

import pytest

from sweep.studies import Recipe
from sweep.training import checkpoint
from sweep.training.store import FolderStore
from sweep.training.trial import Trial


@pytest.fixture
def saved(network, noise, tmp_path):
    trial = Trial(network, Recipe(batch_size=64), noise, num_epochs=4, seed=1)
    for result in trial.run():
        checkpoint.save(FolderStore(tmp_path), trial, result)
    return tmp_path


def fresh(network, noise):
    return Trial(network, Recipe(batch_size=64), noise, num_epochs=4, seed=1)


def test_the_last_two_are_kept(saved):
    assert sorted(path.name.split(".")[0] for path in saved.iterdir()) == ["epoch-0003", "epoch-0004"]


def test_the_newest_is_loaded(saved, network, noise):
    trial = fresh(network, noise)
    assert checkpoint.load_newest(FolderStore(saved), trial).epoch == 4
    assert trial.epoch == 4


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b[:100] + b"\0" + b[101:], lambda b: b""])
def test_a_damaged_one_gives_way_to_the_one_before(saved, network, noise, damage):
    newest = max(saved.iterdir())
    content = damage(newest.read_bytes())
    assert content != newest.read_bytes()
    newest.write_bytes(content)
    trial = fresh(network, noise)
    assert checkpoint.load_newest(FolderStore(saved), trial).epoch == 3
    assert trial.epoch == 3


def test_what_a_journal_does_not_know_of_is_forgotten(saved, network, noise):
    checkpoint.forget_after(FolderStore(saved), 3)
    assert checkpoint.load_newest(FolderStore(saved), fresh(network, noise)).epoch == 3
    checkpoint.forget_after(FolderStore(saved), 2)
    assert checkpoint.load_newest(FolderStore(saved), fresh(network, noise)) is None


def test_none_is_a_fresh_start(network, noise, tmp_path):
    trial = fresh(network, noise)
    assert checkpoint.load_newest(FolderStore(tmp_path / "nothing"), trial) is None
    assert trial.epoch == 0


def test_a_pickle_that_would_run_code_does_not(network, noise, tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return open, (str(canary), "w")

    content = pickle.dumps(Bomb(), protocol=2)
    digest = hashlib.sha256(content).hexdigest()[:16]
    (tmp_path / f"epoch-0001.{digest}.pt").write_bytes(content)
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_newest(FolderStore(tmp_path), fresh(network, noise))
    assert not canary.exists()
