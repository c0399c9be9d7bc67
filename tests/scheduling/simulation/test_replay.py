"""The virtual clock: by hand, and against a real conductor that is told of every single epoch."""

import heapq
import math

import numpy as np
import pytest
from records.rows import ask
from scheduling.curves import of_curves
from scheduling.simulated import begun_report, draw, epoch_report, error_pct, study_of

from sweep.records import Journal
from sweep.scheduling.asha import Asha, Cohort, Promotion, Synchronous, rule_of
from sweep.scheduling.conductor import Conductor, Stretch
from sweep.scheduling.simulation.replay import Trials, names, play


def trials_of(errors, rungs=(1, 2), *, audited=(), if_worst=(), epoch_s=None, num_epochs=4) -> Trials:
    """One cohort; an error for each trial, or a curve for each."""
    curves = np.array(errors, dtype=float)
    curves = np.broadcast_to(curves[:, np.newaxis], (len(curves), num_epochs)) if curves.ndim == 1 else curves
    return of_curves(
        curves,
        cohorts=["c"] * len(curves),
        rungs={"c": rungs},
        audited=[trial in audited for trial in range(len(curves))],
        audited_if_worst=[trial in (*audited, *if_worst) for trial in range(len(curves))],
        epoch_s=np.ones(len(curves)) if epoch_s is None else np.array(epoch_s, dtype=float),
    )


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_asha_by_hand():
    """Eta 2, rungs 1 and 2 of 4: above the median of those before, a trial stops. Two workers, b twice as slow."""
    course = play(Asha(2), trials_of([3, 2, 4, 1], epoch_s=[1, 2, 1, 1]), [0, 1, 2, 3], num_workers=2)
    # 0 is the first at each rung and ends at 4 s; 1 is better, arrives at 2 s and at 4 s, and ends at 8 s. The worker
    # of 0 takes 2 at 4 s, which stops at 5 s; then 3, which is the best and ends at 9 s.
    assert course.epochs.tolist() == [4, 4, 1, 4]
    assert course.would_stop_at.tolist() == [0, 0, 1, 0]
    assert course.finished.tolist() == [True, True, False, True]
    assert (course.wall_s, course.busy_s) == (9, 4 + 8 + 1 + 4)


def test_promotion_by_hand():
    """The best of two goes on from rung 1, whichever arrived first; at rung 2 the second to arrive earns a place for
    the better one of both. Who waits stays where it is, and has lost in the end."""
    course = play(Promotion(2), trials_of([0.4, 0.3, 0.1, 0.2]), [0, 1, 2, 3])
    # 0 waits; 1 is the better of two: on to 2, waits there; 2 is the best, but of three only one has a place, and it is
    # 2's by rank: on to 2, and as the better of two there to the end; 3 is second of four, but 1 and 2 have gone on.
    assert course.epochs.tolist() == [1, 2, 4, 2]
    assert course.would_stop_at.tolist() == [1, 2, 0, 2]


def test_what_has_earned_its_place_goes_before_new_trials():
    class Heard(Promotion):
        def arrive(self, cohort, rung_epochs, trial_id, error_pct):
            heard.append((int(trial_id), rung_epochs))
            return super().arrive(cohort, rung_epochs, trial_id, error_pct)

    heard: list[tuple[int, int]] = []
    course = play(Heard(2), trials_of([1, 2, 9, 9]), [0, 1, 2, 3])
    assert heard == [(0, 1), (1, 1), (0, 2), (2, 1), (3, 1), (1, 2)]
    assert course.epochs.tolist() == [4, 2, 1, 1]
    assert course.would_stop_at.tolist() == [0, 2, 1, 1]


def test_the_lottery_does_not_wait_nor_is_it_called_twice():
    course = play(Promotion(2), trials_of([0.1, 0.2, 0.3], audited=[0]), [0, 1, 2])
    assert course.epochs.tolist() == [4, 1, 1]  # the place of two is the exempt one's, who had gone on anyway
    assert course.would_stop_at.tolist() == [2, 1, 1]  # at rung 2 it is one of one, and no place is earned


def test_where_the_exempt_would_have_stopped_is_recorded_and_does_not_stop_them():
    course = play(Asha(2), trials_of([[1, 1, 1], [2, 0, 0], [3, 3, 3]], audited=[1, 2]), [0, 1, 2])
    assert course.epochs.tolist() == [3, 3, 3]
    assert course.would_stop_at.tolist() == [0, 1, 1]  # the first rung counts, whatever a later one says


def test_among_the_worst_the_lottery_keeps_more():
    errors = [*range(1, 10), 20, 8, 30]  # the tenth is the worst of ten; the last of twelve, but is not kept
    course = play(Asha(2), trials_of(errors, if_worst=[4, 9, 10]), range(12))
    assert course.among_worst.tolist() == [trial in (9, 11) for trial in range(12)]
    assert course.epochs.tolist() == [4, *[1] * 8, 4, 1, 1]
    assert course.would_stop_at.tolist() == [0, *[1] * 11]


def test_who_diverges_arrives_at_the_next_rung_as_the_worst_and_its_fate_is_known():
    nan = math.nan
    curves = [[5, 5, nan, nan, nan, nan], [6, 6, 6, 6, 6, nan], [nan] * 6, [7, 7, 7, 7, 7, 7]]
    course = play(Asha(4), trials_of(curves, rungs=(1, 4), audited=[0, 1, 2, 3]), [0, 1, 2, 3])
    assert course.epochs.tolist() == [3, 6, 1, 6]
    assert course.finished.tolist() == [True, True, True, True]
    assert course.would_stop_at.tolist() == [4, 1, 1, 1]


def test_synchronous_halving_does_not_wait_for_who_diverged():
    nan = math.nan
    cohorts = {"c": Cohort((1, 2), ["0", "1", "2"])}
    curves = [[1, nan, nan, nan], [2, 2, 2, 2], [3, 3, 3, 3]]
    course = play(Synchronous(2, cohorts), trials_of(curves), [0, 1, 2], num_workers=3)
    assert course.epochs.tolist() == [2, 1, 1]  # it was the one of three to go on, and nobody takes its place
    assert course.finished.tolist() == [True, False, False]


def test_of_two_that_arrive_together_the_one_that_began_first_arrives_first():
    course = play(Asha(2), trials_of([1, 2], epoch_s=[1, 1]), [1, 0], num_workers=2)
    assert course.would_stop_at.tolist() == [0, 0]
    course = play(Asha(2), trials_of([1, 2], epoch_s=[1, 1]), [0, 1], num_workers=2)
    assert course.would_stop_at.tolist() == [0, 1]


def test_those_that_are_not_in_the_order_do_not_train():
    course = play(Asha(2), trials_of([1, 2, 3]), [2])
    assert course.epochs.tolist() == [0, 0, 4]
    assert course.finished.tolist() == [False, False, True]


def test_each_cohort_has_its_rungs():
    trials = of_curves(
        np.array([[1.0] * 4, [2.0] * 4, [3.0] * 4]),
        cohorts=["a", "b", "b"],
        rungs={"a": (1,), "b": (2,)},
        audited=[False] * 3,
        epoch_s=np.ones(3),
    )
    assert play(Asha(2), trials, [0, 1, 2]).epochs.tolist() == [4, 4, 2]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_are_never_idle_while_there_is_work(num_workers):
    rng = np.random.default_rng(0)
    course = play(Asha(4), trials_of(rng.random(50), epoch_s=rng.random(50) + 0.1), range(50), num_workers=num_workers)
    assert course.busy_s <= num_workers * course.wall_s + 1e-9
    assert course.wall_s <= course.busy_s / num_workers + 4 * 1.1  # but for the last trial's end


# -- against the conductor -------------------------------------------------------------------------------------------


def conduct(run_dir, study, num_workers: int, epoch_s: dict[str, float]) -> float:
    """A whole sweep of the real conductor under a clock that stops at every epoch; answers when it was over."""
    events: list[tuple[float, str, Stretch, int]] = []
    now_s, free = 0.0, num_workers
    with Journal.open(run_dir) as journal:
        journal._db.execute("PRAGMA synchronous = OFF")  # no power is cut here
        conductor = Conductor(journal, study)

        def employ() -> int:
            left = free
            while left and isinstance(stretch := conductor.next_stretch(), Stretch):
                conductor.started(stretch.trial_id)
                assert conductor.report(stretch.trial_id, begun_report(stretch, stretch.last_epoch))
                first = stretch.last_epoch + 1
                heapq.heappush(events, (now_s + epoch_s[stretch.trial_id], stretch.trial_id, stretch, first))
                left -= 1
            return left

        free = employ()
        while events:
            now_s, trial_id, stretch, epoch = heapq.heappop(events)
            if conductor.report(trial_id, epoch_report(stretch, epoch)):
                heapq.heappush(events, (now_s + epoch_s[trial_id], trial_id, stretch, epoch + 1))
            else:
                free += 1
            free = employ()
    return now_s


@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous", "none"])
def test_it_is_what_the_conductor_does(memory_path, method, num_workers):
    """Curves that cross, equal errors, networks that diverge, two spaces, a lottery, trials of unequal speed: the same
    decisions for each trial, and over at the same time."""
    study = study_of(method, audit_fraction=0.2)
    rows = draw(study, 0, 20)
    run_dir = memory_path / "run"
    run_dir.mkdir()
    Journal.create(run_dir, {"study": study.to_dict(), "study_hash": study.hash, "git_commit": None}, rows).close()
    rng = np.random.default_rng(num_workers)
    epoch_s = {row.trial_id: float(rng.uniform(0.5, 2.0)) for row in rows}
    wall_s = conduct(run_dir, study, num_workers, epoch_s)

    stopping = study.stopping
    errors = [[error_pct(row.trial_id, epoch) for epoch in range(1, stopping.max_epochs + 1)] for row in rows]
    cohorts = [row.cohort for row in rows]
    members = {
        cohort: Cohort(stopping.rungs, [name for name, row in zip(names(len(rows)), rows) if row.cohort == cohort])
        for cohort in set(cohorts)
    }
    course = play(
        rule_of(stopping.method, stopping.reduction_factor, members),
        of_curves(
            np.array(errors),
            cohorts=cohorts,
            rungs=dict.fromkeys(cohorts, stopping.rungs),
            audited=[row.audited for row in rows],
            audited_if_worst=[row.audited_if_worst for row in rows],
            epoch_s=np.array([epoch_s[row.trial_id] for row in rows]),
        ),
        np.argsort([row.launch_order for row in rows]).tolist(),
        num_workers=num_workers,
    )
    trained = dict(ask(run_dir, "SELECT trial_id, count(*) FROM epochs GROUP BY 1"))
    stopped = dict(ask(run_dir, "SELECT trial_id, min(rung_epochs) FROM decisions WHERE would_stop = 1 GROUP BY 1"))
    ended = dict(ask(run_dir, "SELECT trial_id, outcome FROM trials"))
    assert course.epochs.tolist() == [trained[row.trial_id] for row in rows]
    assert course.would_stop_at.tolist() == [stopped.get(row.trial_id, 0) for row in rows]
    worst = {trial_id for (trial_id,) in ask(run_dir, "SELECT trial_id FROM decisions WHERE among_worst")}
    assert course.among_worst.tolist() == [row.trial_id in worst for row in rows]
    assert bool(worst) == (method == "asha")
    assert course.finished.tolist() == [ended[row.trial_id] in ("completed", "diverged") for row in rows]
    assert course.wall_s == pytest.approx(wall_s)
