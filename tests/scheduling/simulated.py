"""A sweep without Ray: simulated workers around a real conductor and a real journal (import as `scheduling.simulated`).

In: a run directory, a seed, what is to go wrong. Out: a journal, as a session leaves it that came to its end or was
killed at some commit. A trial's curve depends on its name and the epoch alone, as that of a real one on its seed.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from records.rows import ARCHITECTURE, ask, trial_row

from sweep.records import Journal, TrialRow
from sweep.scheduling.conductor import MACHINE, MEMORY, USER, Conductor, Nothing, Stretch
from sweep.studies import Study, study_from_dict

STALL_AFTER_S = 60.0


class KilledError(Exception):
    """The process is gone, whatever it was about to do."""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def study_of(method: str, *, settings: dict[str, Any] | None = None, **stopping: Any) -> Study:
    defaults = {"max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3}
    return study_from_dict(
        {
            "name": "simulated",
            "spaces": ["anynet_c", "anynet_d"],
            "scale": [{"name": "small", "flops_min": 4e5, "flops_max": 8e5}],
            "stopping": {**defaults, "method": method, **stopping},
            **(settings or {}),
        }
    )


def draw(study: Study, first: int, num: int, *, cohort: str = "{space}/{scale}") -> list[TrialRow]:
    """`num` trials of each space at each scale; every fifth is audited, and all of a repeat."""
    rows: list[TrialRow] = []
    places = [(space, scale.name) for space in study.spaces for scale in study.scale]
    for number in range(first, first + num):
        for space, scale in places:
            rows.append(
                trial_row(
                    number, trial_id=f"{space}-{scale}-{number:04d}", space=space, scale=scale,
                    cohort=cohort.format(space=space, scale=scale), launch_order=first * len(places) + len(rows),
                    audited=number % 5 == 0 or study.is_repeat(scale),
                )
            )  # fmt: skip
    return rows


def make_sweep(run_dir: Path, study: Study, num: int = 12) -> Path:
    run_dir.mkdir(exist_ok=True)
    meta = {"study": study.to_dict(), "study_hash": study.hash, "git_commit": None}
    Journal.create(run_dir, meta, draw(study, 0, num)).close()
    return run_dir


def error_pct(trial_id: str, epoch: int) -> float:
    """Some trials diverge, in their first epoch or later, and some errors are equal."""
    rng = random.Random(trial_id)
    quality, diverges_in = rng.randrange(10, 60), rng.choice([*[math.inf] * 10, 1, 3, 3])
    return math.nan if epoch >= diverges_in else float(quality + 30 // epoch)


def fault_of(trial_id: str) -> str | None:
    """Some trials fail whatever is done: their code raises in the second epoch, or they find no memory."""
    return {"07": USER, "09": MEMORY}.get(trial_id[-2:])


def epoch_report(stretch: Stretch, epoch: int) -> dict[str, Any]:
    error = error_pct(stretch.trial_id, epoch)
    return {
        "kind": "epoch", "attempt": stretch.attempt, "epoch": epoch, "train_loss": error / 30, "val_loss": error / 25,
        "val_error_pct": error, "learning_rate": 0.1, "train_time_s": 2.0, "eval_time_s": 0.5,
        "diverged": math.isnan(error), "checkpoint": f"{stretch.trial_id} {epoch} {stretch.attempt}",
    }  # fmt: skip


def begun_report(stretch: Stretch, resumed_epoch: int, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "kind": "begun", "attempt": stretch.attempt, "host": f"host-{stretch.attempt}", "pid": 1, "node_id": "n",
        "oom_kills": 0, "resumed_epoch": resumed_epoch, "resumed_step": 0, "notes": notes,
    }  # fmt: skip


def reports(stretch: Stretch, rng: random.Random) -> Iterator[dict[str, Any]]:
    """What a worker says of a stretch. It resumes where the trial stood, or earlier where a state was damaged."""
    known = [epoch for epoch in stretch.known if epoch <= stretch.last_epoch]
    assert sorted(known) == list(range(1, stretch.last_epoch + 1)), "the digest of a committed state is lost"
    resumed = rng.choice([stretch.last_epoch] * 4 + [0, *known])
    damaged = tuple(f"epoch {epoch} is damaged" for epoch in known if epoch > resumed)
    yield begun_report(stretch, resumed, damaged)
    for epoch in range(resumed + 1, 100):
        fault = fault_of(stretch.trial_id)
        if (fault == USER and epoch == 2) or (fault == MEMORY and stretch.batch_size is None):
            text = f"Traceback\nRuntimeError: {fault} of {stretch.trial_id}"
            yield {"kind": "failed", "attempt": stretch.attempt, "failure_kind": fault, "traceback": text}
            raise RuntimeError(text)
        for _ in range(rng.randrange(2)):
            yield {"kind": "tick", "attempt": stretch.attempt, "epoch": epoch, "step": 1}
        if rng.random() < 0.05:
            yield {"kind": "waiting", "attempt": stretch.attempt, "message": "no room"}
        yield epoch_report(stretch, epoch)


class Session:
    """One life of a driver. Another one on the same journal is the sweep resumed.

    `faults`: the chance that a worker's next word is its death or its silence; `dies_after`: the commit, counted from
    now, before or after which the driver is killed.
    """

    def __init__(
        self, run_dir: Path, *, seed: int, num_workers: int = 4, faults: float = 0.0, dies_after: int | None = None
    ):
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.journal = Journal.open(run_dir)
        self.journal._db.execute("PRAGMA synchronous = OFF")  # no power is cut here
        if dies_after is not None:
            _kill_after(self.journal, dies_after, self.rng)
        self.ended: list[tuple[str, str]] = []
        self.conductor = Conductor(
            self.journal,
            study_from_dict(self.journal.get("study")),
            stall_after_s=STALL_AFTER_S,
            ended=lambda trial_id, outcome, error: self.ended.append((trial_id, outcome)),
            clock=self.clock,
        )
        self._num_workers, self._faults = num_workers, faults
        self._at_work: dict[str, tuple[Stretch, Iterator[dict[str, Any]]]] = {}

    def run(self) -> bool:
        """Until nothing is left; False where it was killed."""
        try:
            while self.step():
                pass
        except KilledError:
            return False
        finally:
            self.journal.close()
        return True

    def step(self) -> bool:
        """Something happens: a worker begins, says something or ends. False where there is nothing left to do."""
        self.clock.now_s += self.rng.choice([0.0, 0.1, 1.0])
        if len(self._at_work) < self._num_workers and (not self._at_work or self.rng.random() < 0.7):
            stretch = self.conductor.next_stretch()
            if isinstance(stretch, Stretch):
                assert stretch.trial_id not in self._at_work, "a trial was handed out twice at once"
                self.conductor.started(stretch.trial_id)
                self._at_work[stretch.trial_id] = stretch, reports(stretch, self.rng)
            elif not self._at_work:
                self.clock.now_s += 5
                return stretch is Nothing.LATER
        if self._at_work:
            trial_id = self.rng.choice(sorted(self._at_work))
            if self.rng.random() < self._faults:
                self._hurt(trial_id)
            else:
                self._hear(trial_id)
        return True

    def _hear(self, trial_id: str) -> None:
        _, words = self._at_work[trial_id]
        try:
            goes_on = self.conductor.report(trial_id, next(words))
        except RuntimeError:
            self.conductor.failed(trial_id, MACHINE, "the worker died without an error")
            goes_on = False
        if not goes_on:
            del self._at_work[trial_id]

    def _hurt(self, trial_id: str) -> None:
        del self._at_work[trial_id]
        if self.rng.random() < 0.5:
            self.conductor.failed(trial_id, MACHINE, "Traceback\nActorDiedError: its node is gone")
            return
        self.clock.now_s += 20 * STALL_AFTER_S
        for other, (stretch, _) in list(self._at_work.items()):  # all but this one say something
            if not self.conductor.report(other, {"kind": "tick", "attempt": stretch.attempt, "epoch": 1, "step": 1}):
                del self._at_work[other]
        assert [silent for silent, _ in self.conductor.silent()] == [trial_id]
        self.conductor.failed(trial_id, MACHINE, "the worker was ended")


def _kill_after(journal: Journal, num_commits: int, rng: random.Random) -> None:
    write, left, just_after = journal._write, num_commits, rng.random() < 0.5

    def counted(body: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            if left == 0 and just_after:
                write(body)
            raise KilledError
        return write(body)

    journal._write = counted  # type: ignore[method-assign]


def run_to_the_end(run_dir: Path, *, seed: int, kills: int = 0, **session: Any) -> None:
    """As many sessions as it takes; the first `kills` of them are killed."""
    rng = random.Random(seed)
    for number in range(kills):
        if Session(run_dir, seed=seed + number, dies_after=rng.randrange(1, 60), **session).run():
            break
    assert Session(run_dir, seed=seed + kills, **session).run()


# -- the journal, asked from outside -----------------------------------------------------------------------------------


def table(run_dir: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What a sweep found out, whatever happened on the way: nothing of times, hosts, attempts and order."""
    return {
        "trials": ask(run_dir, "SELECT trial_id, outcome, failure_kind, failure, batch_size, user_failures"
                               " FROM trials ORDER BY 1"),
        "epochs": ask(run_dir, "SELECT trial_id, epoch, val_error_pct, train_loss FROM epochs ORDER BY 1, 2"),
        "decisions": ask(run_dir, "SELECT trial_id, rung_epochs, error_pct, would_stop FROM decisions ORDER BY 1, 2"),
        "promotions": ask(run_dir, "SELECT trial_id, rung_epochs FROM promotions ORDER BY 1, 2"),
    }  # fmt: skip


def check_rows(run_dir: Path, study: Study, num_trials: int) -> None:
    """Every row that must be there stands there once, and no other."""
    trials = ask(run_dir, "SELECT trial_id, outcome, audited, attempts, scale, architecture FROM trials ORDER BY 1")
    assert len(trials) == num_trials
    assert all(architecture == ARCHITECTURE.to_json() for *_, architecture in trials)
    decided = {(name, rung): (error, would_stop) for name, rung, error, would_stop in ask(
        run_dir, "SELECT trial_id, rung_epochs, error_pct, would_stop FROM decisions")}  # fmt: skip
    promoted = set(ask(run_dir, "SELECT trial_id, rung_epochs FROM promotions"))
    for trial_id, outcome, audited, attempts, scale, _ in trials:
        rungs, most = study.stopping_at(scale).rungs, study.stopping_at(scale).max_epochs
        curve = ask(run_dir, "SELECT epoch, val_error_pct, checkpoint, attempt FROM epochs WHERE trial_id = ?"
                             " ORDER BY epoch", trial_id)  # fmt: skip
        numbers = [epoch for epoch, *_ in curve]
        assert numbers == list(range(1, len(curve) + 1)), f"{trial_id} lacks an epoch"
        errors = [error_pct(trial_id, epoch) for epoch in numbers]
        assert [error for _, error, *_ in curve] == [None if math.isnan(error) else error for error in errors]
        assert all(1 <= attempt <= attempts for *_, attempt in curve)
        for epoch, _, digest, attempt in curve:
            name, of_epoch, of_attempt = digest.rsplit(" ", 2)
            assert (name, int(of_epoch)) == (trial_id, epoch)
            assert attempt <= int(of_attempt) <= attempts
        arrived = [rung for rung in rungs if rung <= len(curve)]
        if curve and math.isnan(errors[-1]):
            assert outcome == "diverged"
            arrived = [rung for rung in rungs if rung < len(curve)]
            arrived += [rung for rung in rungs if rung >= len(curve)][:1]
        assert [rung for name, rung in sorted(decided) if name == trial_id] == arrived
        passed = [rung for rung in arrived if rung < len(curve)]
        assert all(decided[trial_id, rung][1] == 0 or audited for rung in passed), f"{trial_id} went on unearned"
        if study.stopping.method in ("asha_promotion", "synchronous"):
            assert {rung for name, rung in promoted if name == trial_id} == {
                rung for rung in arrived if decided[trial_id, rung][1] == 0
            }
        assert (outcome == "completed") == (len(curve) == most and not math.isnan(errors[-1]))
        if outcome == "stopped":
            assert decided[trial_id, len(curve)][1] == 1
            assert not audited
    arrivals = [number for (number,) in ask(run_dir, "SELECT arrival FROM decisions ORDER BY 1")]
    assert arrivals == list(range(1, len(decided) + 1))
    assert ask(run_dir, "SELECT count(*) FROM epochs WHERE trial_id NOT IN (SELECT trial_id FROM trials)") == [(0,)]
