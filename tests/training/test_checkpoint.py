"""Checkpoints: which states are kept, which one is trusted; what is damaged is refused, and reading never runs code."""

import errno
import hashlib
import io
import math
import pickle
import random
import re

import numpy as np
import pytest
import torch

from sweep.studies import Recipe
from sweep.training import checkpoint, states
from sweep.training.checkpoint import Resumed
from sweep.training.store import FolderStore
from sweep.training.trial import EpochResult, Trial

STEPS = 10


class Counter:
    """Stands in for a trial: `value` is the number of all its steps, so that any state can be told from another."""

    def __init__(self, epoch: int = 0, step: int = 0):
        self.epoch, self.step = epoch, step
        self.value = torch.tensor(epoch * STEPS + step)

    def advance(self, steps: int) -> "Counter":
        self.value += steps
        self.epoch, self.step = divmod(int(self.value), STEPS)
        return self

    def state_dict(self):
        return {"epoch": self.epoch, "value": self.value} | ({"so_far": {"step": self.step}} if self.step else {})

    def load_state_dict(self, state):
        self.epoch, self.step, self.value = state["epoch"], state.get("so_far", {}).get("step", 0), state["value"]


class Writer:
    """A store, and the digests of what was written to it by (epoch, step, attempt)."""

    def __init__(self, folder):
        self.store, self.digests = FolderStore(folder), {}

    def save(self, epoch, attempt=1):
        digest = checkpoint.save(self.store, Counter(epoch), result_of(epoch, attempt), attempt)
        self.digests[epoch, attempt] = digest
        return digest

    def save_partial(self, epoch, step, attempt=1, parent=None):
        """In the middle of `epoch`."""
        digest = checkpoint.save_partial(self.store, Counter(epoch - 1, step), attempt, parent)
        self.digests[epoch, step, attempt] = digest
        return digest

    def load(self, last_epoch, known):
        trial = Counter()
        resumed = checkpoint.load(self.store, trial, last_epoch=last_epoch, known=known)
        assert (trial.epoch, trial.step) == (resumed.epoch, resumed.step)
        assert int(trial.value) == resumed.epoch * STEPS + resumed.step
        return resumed

    def names(self):
        """Without the digests."""
        return [re.sub(r"\.[0-9a-f]{16}\.pt$", "", name) for name in self.store.names()]

    def path(self, beginning):
        (found,) = self.store.folder.glob(f"{beginning}*")
        return found


def result_of(epoch, attempt=1):
    """Its times differ from attempt to attempt, and so do the digests."""
    return EpochResult(epoch, 1.0, 1.0, 10.0, 0.1, float(attempt), math.nan)


@pytest.fixture
def writer(tmp_path):
    return Writer(tmp_path / "trial")


# -- names and retention ---------------------------------------------------------------------------------------


def test_names_say_what_blobs_hold(writer):
    first = writer.save(2, attempt=3)
    second = writer.save_partial(3, 7, attempt=3, parent=first)
    assert writer.store.names() == [
        f"epoch-0002.attempt-003.{first}.pt",
        f"epoch-0003.step-000007.attempt-003.{second}.pt",
    ]
    for name in writer.store.names():
        assert hashlib.sha256(writer.store.read(name)).hexdigest()[:16] == name.split(".")[-2]
        torch.load(io.BytesIO(writer.store.read(name)), weights_only=True)


def test_an_attempt_keeps_its_last_two_epochs_and_the_last_state_of_the_next(writer):
    for epoch in (1, 2, 3):
        writer.save(epoch)
        for step in (3, 6):
            writer.save_partial(epoch + 1, step)
    last_two = ["epoch-0002.attempt-001", "epoch-0003.attempt-001"]
    assert writer.names() == [*last_two, "epoch-0004.step-000006.attempt-001"]
    writer.save(4)
    assert writer.names() == ["epoch-0003.attempt-001", "epoch-0004.attempt-001"]


def test_of_older_attempts_the_epochs_that_are_still_among_the_last_two_stay(writer):
    writer.save(1, attempt=1)
    writer.save(2, attempt=1)
    writer.save(2, attempt=2)
    assert writer.names() == ["epoch-0001.attempt-001", "epoch-0002.attempt-002"]
    writer.save_partial(3, 5, attempt=2)
    writer.save_partial(3, 2, attempt=3)
    last_two = ["epoch-0001.attempt-001", "epoch-0002.attempt-002"]
    assert writer.names() == [*last_two, "epoch-0003.step-000002.attempt-003"]
    writer.save(3, attempt=3)
    assert writer.names() == ["epoch-0002.attempt-002", "epoch-0003.attempt-003"]
    writer.save_partial(3, 1, attempt=4)  # the result of epoch 3 was lost
    writer.save(3, attempt=5)
    assert writer.names() == ["epoch-0002.attempt-002", "epoch-0003.attempt-005"]
    writer.save(4, attempt=5)
    assert writer.names() == ["epoch-0003.attempt-005", "epoch-0004.attempt-005"]


def test_what_was_thought_dead_touches_nothing_of_its_successor(writer):
    for epoch in (1, 2):
        writer.save(epoch, attempt=2)
    writer.save_partial(3, 1, attempt=2)
    successors = set(writer.names())
    for epoch in (1, 2, 3, 4):
        writer.save(epoch, attempt=1)
        writer.save_partial(epoch + 1, 9, attempt=1)
    assert successors < set(writer.names())


def test_an_epoch_written_again_by_the_same_attempt_replaces_itself_alone(writer):
    writer.save(1)
    writer.save(2)
    checkpoint.save(writer.store, Counter(2), result_of(2, attempt=9), 1)
    assert writer.names() == ["epoch-0001.attempt-001", "epoch-0002.attempt-001"]
    assert writer.load(1, {1: writer.digests[1, 1]}).epoch == 1


def test_a_blob_that_is_gone_as_soon_as_it_is_written_is_no_error(writer):
    class Tidied(FolderStore):
        def names(self):
            return []

    checkpoint.save(Tidied(writer.store.folder), Counter(1), result_of(1), 1)


def test_of_a_trial_that_ended_the_last_epoch_stays(writer):
    assert states.keep_last(writer.store) is None
    writer.save(3, attempt=1)
    writer.save(3, attempt=2)
    writer.save_partial(4, 2, attempt=2)
    writer.store.write("other", b"no state")
    assert states.keep_last(writer.store) == writer.path("epoch-0003.attempt-002").stat().st_size
    assert writer.names() == ["epoch-0003.attempt-002", "other"]


# -- which state is trusted ------------------------------------------------------------------------------------


def test_nothing_is_a_beginning(writer):
    assert writer.load(0, {}) == Resumed(0, 0, None, ())
    assert writer.load(3, {3: "0" * 16}) == Resumed(0, 0, None, ())


def test_the_state_that_the_journal_names_is_restored(writer):
    writer.save(1)
    writer.save(2)
    known = {1: writer.digests[1, 1], 2: writer.digests[2, 1]}
    assert writer.load(2, known) == Resumed(2, 0, known[2], ())


def test_a_state_whose_result_was_lost_is_passed_over(writer):
    writer.save(1)
    writer.save(2)
    assert writer.load(1, {1: writer.digests[1, 1]}).epoch == 1
    assert writer.load(0, {}).epoch == 0


def test_a_state_that_the_journal_does_not_name_is_passed_over(writer):
    writer.save(1, attempt=2)
    writer.save(1, attempt=1)
    for attempt in (1, 2):
        known = {1: writer.digests[1, attempt]}
        assert writer.load(1, known) == Resumed(1, 0, known[1], ())
    assert writer.load(1, {1: "0" * 16}) == Resumed(0, 0, None, ())


def test_where_the_journal_names_none_the_newest_attempt_counts(writer):
    for attempt in (10, 3, 2):
        writer.save(1, attempt=attempt)
    assert writer.load(1, {}) == Resumed(1, 0, writer.digests[1, 10], ())


def test_an_epoch_begun_goes_on_at_its_last_step_of_the_newest_attempt(writer):
    parent = writer.save(1, attempt=1)
    writer.save_partial(2, 5, attempt=2, parent=parent)
    writer.save_partial(2, 8, attempt=1, parent=parent)
    assert len(writer.names()) == 3
    assert writer.load(1, {1: parent}) == Resumed(1, 5, parent, ())


def test_an_epoch_begun_from_another_state_is_passed_over(writer):
    writer.save_partial(2, 8, attempt=3, parent=None)
    other = writer.save(1, attempt=2)
    writer.save_partial(2, 8, attempt=2, parent=other)
    parent = writer.save(1, attempt=1)
    assert len(writer.names()) == 4
    assert writer.load(1, {1: parent}) == Resumed(1, 0, parent, ())
    assert writer.load(1, {1: other}) == Resumed(1, 8, other, ())
    assert writer.load(0, {}) == Resumed(0, 0, None, ())


def test_the_first_epoch_begun_has_no_parent(writer):
    writer.save_partial(1, 6, attempt=2, parent="0" * 16)
    writer.save_partial(1, 4, attempt=1)
    assert writer.load(0, {}) == Resumed(0, 4, None, ())


def test_where_the_journal_names_none_an_epoch_begun_wants_its_parent_whole(writer):
    parent = writer.save(1)
    writer.save_partial(2, 4, parent=parent)
    assert writer.load(1, {}) == Resumed(1, 4, parent, ())
    writer.path("epoch-0001").write_bytes(b"damaged")
    assert writer.load(1, {}).epoch == 0
    writer.path("epoch-0001").unlink()
    assert writer.load(1, {}) == Resumed(0, 0, None, ())


def test_older_epochs_step_in_the_same_way(writer):
    for epoch in (1, 2):
        writer.save(epoch)
    known = {epoch: writer.digests[epoch, 1] for epoch in (1, 2)} | {3: "0" * 16}
    assert writer.load(3, known).epoch == 2
    writer.path("epoch-0002").unlink()
    writer.save_partial(2, 9, attempt=2, parent=known[1])
    assert writer.load(3, known) == Resumed(1, 9, known[1], ())


def test_what_vanishes_between_the_list_and_the_reading_is_no_error(writer):
    class Vanishing(FolderStore):
        def names(self):
            return [f"epoch-0002.attempt-002.{'0' * 16}.pt", *super().names()]

    writer.save(1)
    resumed = checkpoint.load(Vanishing(writer.store.folder), Counter(), last_epoch=2, known={})
    assert resumed == Resumed(1, 0, writer.digests[1, 1], ())


@pytest.mark.parametrize(("number", "is_damage"), [(errno.EIO, True), (errno.ECONNREFUSED, False), (None, False)])
def test_a_place_out_of_reach_is_no_reason_to_take_something_older(writer, number, is_damage):
    class Broken(FolderStore):
        def read(self, name):
            if name.startswith("epoch-0002"):
                raise OSError(number, "as injected") if number else OSError("as injected")
            return super().read(name)

    for epoch in (1, 2):
        writer.save(epoch)
    store, known = Broken(writer.store.folder), {epoch: writer.digests[epoch, 1] for epoch in (1, 2)}
    if is_damage:
        assert "the disk cannot read it" in checkpoint.load(store, Counter(), last_epoch=2, known=known).refused[0]
    else:
        with pytest.raises(OSError, match="as injected"):
            checkpoint.load(store, Counter(), last_epoch=2, known=known)


# -- damage ----------------------------------------------------------------------------------------------------


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damages(size):
    """Cut short at ten places, a bit off at ten, empty, and longer than it was."""
    rng = np.random.default_rng(0)
    yield from (lambda content, at=at: content[:at] for at in rng.integers(0, size, 10))
    yield from (lambda content, at=at: flipped(content, at) for at in rng.integers(0, size, 10))
    yield lambda content: b""
    yield lambda content: content + b"\0"


def test_a_damaged_state_gives_way_to_the_one_before_and_is_named(writer):
    for epoch in (1, 2):
        writer.save(epoch)
    writer.save_partial(3, 4, parent=writer.digests[2, 1])
    known = {epoch: writer.digests[epoch, 1] for epoch in (1, 2)}
    partial, second, first = (writer.path(name) for name in ("epoch-0003", "epoch-0002", "epoch-0001"))
    whole = {path: path.read_bytes() for path in (partial, second, first)}
    for damage in damages(min(map(len, whole.values()))):
        partial.write_bytes(damage(whole[partial]))
        resumed = writer.load(2, known)
        assert resumed.epoch == 2
        (sentence,) = resumed.refused
        assert sentence.startswith(f"{partial.name} is refused: its ")
        assert sentence.endswith(f"; {second.name} is used instead")
        second.write_bytes(damage(whole[second]))
        resumed = writer.load(2, known)
        assert resumed.epoch == 1
        assert [text.split()[0] for text in resumed.refused] == [partial.name, second.name]
        first.write_bytes(damage(whole[first]))
        resumed = writer.load(2, known)
        assert resumed.epoch == 0
        assert resumed.refused[2] == (
            f"{first.name} is refused: its {len(first.read_bytes())} bytes do not have the SHA-256 of its name; "
            "the trial starts anew"
        )
        for path, content in whole.items():
            path.write_bytes(content)


def put(writer, epoch, content):
    digest = hashlib.sha256(content).hexdigest()[:16]
    writer.store.write(f"epoch-{epoch:04d}.attempt-001.{digest}.pt", content)


def test_a_pickle_that_would_run_code_does_not(writer, tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return open, (str(canary), "w")

    put(writer, 1, pickle.dumps(Bomb(), protocol=2))
    buffer = io.BytesIO()
    torch.save({"state": Bomb()}, buffer)
    put(writer, 2, buffer.getvalue())
    resumed = writer.load(2, {})
    assert resumed.epoch == 0
    assert len(resumed.refused) == 2
    assert all("read without running code" in sentence for sentence in resumed.refused)
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"no archive", {"other": 1}, {"state": 3}, [1, 2]])
def test_what_is_no_state_of_ours_is_refused(writer, content):
    buffer = io.BytesIO()
    if not isinstance(content, bytes):
        torch.save(content, buffer)
    put(writer, 1, content if isinstance(content, bytes) else buffer.getvalue())
    resumed = writer.load(1, {})
    assert resumed.epoch == 0
    assert "it is no state" in resumed.refused[0]


def test_a_state_under_the_name_of_another_is_refused(writer):
    writer.save(1)
    path = writer.path("epoch-0001")
    path.rename(path.with_name(path.name.replace("epoch-0001", "epoch-0007")))
    assert "another state than its name says" in writer.load(7, {}).refused[0]


# -- a life with many deaths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_whoever_dies_or_was_thought_dead_no_epoch_of_the_journal_is_lost(tmp_path, seed):
    """Attempts that save, die before or after their result is journaled, and sometimes save once more afterwards."""
    rng, writer = random.Random(seed), Writer(tmp_path)
    known, thought_dead = {}, []
    for attempt in range(1, 40):
        last_epoch = len(known)
        resumed = writer.load(last_epoch, known)
        assert resumed.refused == ()
        assert resumed.epoch == last_epoch
        assert resumed.digest == known.get(last_epoch)
        trial = Counter().advance(resumed.epoch * STEPS + resumed.step)
        for _ in range(rng.randrange(6)):
            trial.advance(rng.randint(1, STEPS - trial.step))
            if trial.step:
                checkpoint.save_partial(writer.store, trial, attempt, known.get(trial.epoch))
                assert len(writer.names()) <= 3
                continue
            digest = checkpoint.save(writer.store, trial, result_of(trial.epoch, attempt), attempt)
            if rng.random() < 0.4:  # its result is lost
                break
            known[trial.epoch] = digest
            assert len(writer.names()) <= 2
        else:
            thought_dead.append((attempt, trial))
        if thought_dead and rng.random() < 0.5:  # a worker speaks before it goes on: it can be one state ahead at most
            old_attempt, zombie = thought_dead.pop(rng.randrange(len(thought_dead)))
            zombie.advance(STEPS - zombie.step)
            checkpoint.save(writer.store, zombie, result_of(zombie.epoch, old_attempt + 1000), old_attempt)


# -- real trials -----------------------------------------------------------------------------------------------


def make_trial(network, noise, **changes):
    return Trial(network, Recipe(**{"batch_size": 64} | changes), noise, num_epochs=2, seed=1)


def test_a_trial_goes_on_from_its_store_in_the_middle_of_an_epoch(network, noise, tmp_path):
    expected = make_trial(network, noise)
    losses = [result.train_loss for result in expected.run()]
    store, trial, known = FolderStore(tmp_path), make_trial(network, noise), {}
    for event in trial.run(pause_s=0):
        if isinstance(event, EpochResult):
            known[event.epoch] = checkpoint.save(store, trial, event, 1)
        elif (event.epoch, event.step) == (2, 3):
            checkpoint.save_partial(store, trial, 1, known[1])
            break
    resumed = make_trial(network, noise)
    assert checkpoint.load(store, resumed, last_epoch=1, known=known) == Resumed(1, 3, known[1], ())
    assert [result.train_loss for result in resumed.run()] == losses[1:]
    for name, value in expected.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_an_epoch_begun_with_larger_batches_gives_way_to_the_state_before(network, noise, tmp_path):
    store, trial, digest = FolderStore(tmp_path), make_trial(network, noise), ""
    for event in trial.run(pause_s=0):
        if isinstance(event, EpochResult):
            digest = checkpoint.save(store, trial, event, 1)
        elif event.epoch == 2:
            checkpoint.save_partial(store, trial, 1, digest)
            break
    smaller = make_trial(network, noise, batch_size=32)
    resumed = checkpoint.load(store, smaller, last_epoch=1, known={1: digest})
    assert (resumed.epoch, resumed.step) == (1, 0)
    assert "batches of 64 on cpu and cannot go on with batches of 32" in resumed.refused[0]
