"""What becomes of each trial: the part of the scheduling that knows neither Ray nor the wall clock.

In: what workers report and how they end, in the order in which it is heard; the journal. Out: stretches to train, one
after another, and for each report whether the stretch goes on. Everything is committed to the journal before it is
answered.

A *stretch* is a trial from where it stands until it ends, waits at a rung, fails, or the sweep stops. A trial that is
tried again, has earned its place, or was added by `sweep extend` is one more stretch, and a resumed sweep is no
special case. A trial fails by its own doing (`max_failures` more tries), by its machine's (`max_machine_failures`), or
for want of memory (one more try with half the batch where the study allows it).

A sweep that may end early is looked at while it runs (looks.py). Where a look has left nothing undecided, trials that
have not begun are cancelled here, and those that have go on as usual.
"""

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sweep.records import DecisionRow, EpochRow, Journal
from sweep.records.journal import (
    CANCELLED,
    COMPLETED,
    DECIDED,
    DIVERGED,
    FAILED,
    LOOKS,
    PAUSED,
    PENDING,
    RUNNING,
    STOPPED,
)
from sweep.scheduling.asha import CONTINUE, PAUSE, STOP, Cohort, Judgement, Synchronous, next_rung, replay, rule_of
from sweep.scheduling.population import cohorts_of
from sweep.studies import Study

# How an attempt fails; `training.failures` tells the first three apart, the others are told by its silence.
USER, MEMORY, DATA, MACHINE, STALLED = "user", "out_of_memory", "data", "machine", "stalled"

_SETUP_PATIENCE = 10  # times as long as between two reports: images may travel, and torch is slow to import
_MAX_DELAY_S = 60.0
_POLL_S = 0.5


class Nothing(Enum):
    """No stretch now. `LATER`: one that runs can fail or earn a place for another, or a look is to be taken first.
    `LEFT`: this session is over."""

    LATER = "later"
    LEFT = "left"


@dataclass(frozen=True)
class Stretch:
    """What a worker needs to know. `known`: the digest of the state after each epoch that is committed."""

    trial_id: str
    attempt: int
    architecture: str
    seed: int
    scale: str
    batch_size: int | None
    last_epoch: int
    known: dict[int, str]


@dataclass
class _Live:
    """A stretch that was handed out. `failure`: kind and traceback, told by the worker before it ends of it."""

    stretch: Stretch
    cohort: str
    audited: bool
    audited_if_worst: bool
    last_epoch: int
    heard_s: float
    where: dict[str, Any] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    waits: bool = False


class Conductor:
    """One session of a sweep.

    `ended(trial_id, outcome, error_pct)` is called for a trial that has ended or waits; `log(trial_id, text)` with
    what belongs into its log; `clock` answers seconds and is never set back.
    """

    def __init__(
        self,
        journal: Journal,
        study: Study,
        *,
        stall_after_s: float = 60,
        ended: Callable[[str, str, float | None], None] = lambda *_: None,
        log: Callable[[str, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.draining = False
        self.damaged_data: str | None = None
        self._journal, self._study, self._clock = journal, study, clock
        self._stall_after_s, self._ended, self._log = stall_after_s, ended, log
        self._stopping = {scale.name: study.stopping_at(scale.name) for scale in study.scale}
        self._live: dict[str, _Live] = {}
        self._cancelled: set[str] = set()
        self._next_poll_s = 0.0
        # The rungs as the journal remembers them. A recovered journal can know a decision whose epoch it lacks: that
        # trial trains the epoch again, and what was decided then holds, for later arrivals were held against it.
        decisions = journal.decisions()
        self._recorded: dict[tuple[str, int], bool | None] = {
            (row["trial_id"], row["rung_epochs"]): row["would_stop"] for row in decisions
        }
        self._rule = rule_of(study.stopping.method, study.stopping.reduction_factor, self._cohorts())
        replay(
            self._rule,
            [(row["cohort"], row["rung_epochs"], row["trial_id"], row["error_pct"]) for row in decisions],
            journal.closings(),
            [
                (row["cohort"], row["trial_id"])
                for row in journal.trials("outcome IN ('failed','cancelled','diverged')")
            ],
        )
        # (not before, -rung that was earned, launch order, trial): what had begun or has earned its place goes first.
        self._again: list[tuple[float, int, int, str]] = []
        self._offered: set[str] = set()  # the trials in it: one that is to wait before its next try is not put in anew
        for row in journal.trials("outcome = 'running'"):
            self._offer(row["trial_id"], rung=journal.last_epoch(row["trial_id"]))
        self._last_launched = -1
        self._look_sizes = study.judging.look_sizes(study.num_trials)
        self._num_decided = 0  # of the trials in launch order: of those none begins any more
        self._awaits_look = False

    def _cohorts(self) -> dict[str, Cohort]:
        waits = self._study.stopping.method == "synchronous"
        return cohorts_of(self._study, self._journal.trials()) if waits else {}

    # -- what to train ---------------------------------------------------------------------------------------

    def next_stretch(self) -> Stretch | Nothing:
        self.poll()
        if self.draining:
            return Nothing.LEFT
        trial_id = self._pop()
        if trial_id is None:
            if self._live or self._again or self._awaits_look:
                return Nothing.LATER
            if lost := self._rule.close():
                self._journal.close_waiting(lost)
                self._settle(Judgement(None, lost=lost))
            return Nothing.LEFT
        row = self._journal.trial(trial_id)
        assert row is not None
        self._know(row["cohort"])
        stretch = Stretch(
            trial_id=trial_id,
            attempt=row["attempts"] + 1,
            architecture=row["architecture"],
            seed=row["seed"],
            scale=row["scale"],
            batch_size=row["batch_size"],
            last_epoch=self._journal.last_epoch(trial_id),
            known=self._journal.checkpoints(trial_id),
        )
        self._live[trial_id] = _Live(
            stretch,
            row["cohort"],
            audited=self._journal.is_audited(trial_id),
            audited_if_worst=bool(row["audited_if_worst"]),
            last_epoch=stretch.last_epoch,
            heard_s=self._clock(),
        )
        return stretch

    def _pop(self) -> str | None:
        while self._again and self._again[0][0] <= self._clock():
            trial_id = heapq.heappop(self._again)[-1]
            self._offered.remove(trial_id)
            row = self._journal.trial(trial_id)
            if row is not None and row["outcome"] in (PENDING, RUNNING) and trial_id not in self._live:
                return trial_id
        self._heed_decision()
        row = self._journal.next_pending(self._last_launched)
        self._awaits_look = row is not None and row["launch_order"] >= self._first_to_wait()
        if row is None or self._awaits_look:
            return None
        self._last_launched = row["launch_order"]
        return row["trial_id"]

    def _offer(self, trial_id: str, *, rung: int = 0, delay_s: float = 0.0) -> None:
        row = self._journal.trial(trial_id)
        assert row is not None
        not_before = self._clock() + delay_s if delay_s else 0.0
        self._offered.add(trial_id)
        heapq.heappush(self._again, (not_before, -rung, row["launch_order"], trial_id))

    def poll(self) -> None:
        """Heed what others have asked for in the journal: to stop, to cancel trials, to train more of them."""
        if self._clock() < self._next_poll_s:
            return
        self._next_poll_s = self._clock() + _POLL_S
        self.draining = self.draining or bool(self._journal.get("stop_requested", False))
        for row in self._journal.to_cancel():
            self._cancelled.add(row["trial_id"])
            if row["trial_id"] not in self._live:
                self._leave(row["trial_id"], row["cohort"], CANCELLED)
        self._heed_decision()

    def _heed_decision(self) -> None:
        """Where a look has left nothing undecided, no further trial begins of those that there were then."""
        decided = self._journal.get(DECIDED) if self._look_sizes else None
        if decided is None or decided["num_trials"] <= self._num_decided:
            return
        self._num_decided = decided["num_trials"]
        pending = self._journal.trials(f"outcome = 'pending' AND launch_order < {self._num_decided}")
        gone = {row["trial_id"]: row["cohort"] for row in pending if row["trial_id"] not in self._live}
        if not gone:
            return
        judgements = [self._left(trial_id, cohort) for trial_id, cohort in gone.items()]
        left = Judgement(
            None,
            earned=tuple(place for judgement in judgements for place in judgement.earned),
            lost=tuple(place for judgement in judgements for place in judgement.lost),
        )
        message = f"{len(gone)} trials that had not begun: look {decided['look']} has left nothing undecided"
        self._journal.cancel_pending(gone, message, earned=left.earned, lost=left.lost)
        self._settle(left)

    def _first_to_wait(self) -> float:
        """In synchronous mode nothing may depend on the timing, nor may who has begun when a look decides: trials that
        are not in the next look begin after it. Infinite where none waits."""
        if self._study.stopping.method != "synchronous" or self._num_decided:
            return math.inf
        num_taken = len(self._journal.get(LOOKS, [])) if self._look_sizes else 0
        return self._look_sizes[num_taken] if num_taken < len(self._look_sizes) else math.inf

    def _know(self, cohort: str) -> None:
        """Trials that were added meanwhile form cohorts of their own where a rung waits for all its trials."""
        if isinstance(self._rule, Synchronous) and cohort not in self._rule.cohorts:
            self._rule.cohorts = self._cohorts()

    # -- what is heard of a stretch ------------------------------------------------------------------------------

    def started(self, trial_id: str) -> None:
        """A worker has it."""
        live = self._live[trial_id]
        live.heard_s = self._clock()
        self._journal.start_attempt(trial_id, live.stretch.attempt)

    def report(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take a worker's report (sweep/scheduling/worker.py); answers whether the stretch goes on."""
        live = self._live.get(trial_id)
        if live is None or result["attempt"] != live.stretch.attempt:
            return False
        live.heard_s = self._clock()
        if text := result.get("log"):
            self._log(trial_id, text)
        goes_on = True
        match result["kind"]:
            case "begun":
                self._begun(live, result)
            case "waiting":
                self._waiting(live, result["message"])
            case "failed":  # the worker ends of it next
                live.failure = result["failure_kind"], result["traceback"]
                return True
            case "epoch":
                live.waits = False
                goes_on = self._epoch(live, result)
        if goes_on and trial_id in self._cancelled:
            self._leave(trial_id, live.cohort, CANCELLED)
            goes_on = False
        if goes_on and not self.draining:
            return True
        self._live.pop(trial_id, None)
        return False

    def _begun(self, live: _Live, report: dict[str, Any]) -> None:
        trial_id, live.where = live.stretch.trial_id, report
        place = f"{report['host']} (process {report['pid']})"
        origin = f"from epoch {report['resumed_epoch']}" if report["resumed_epoch"] else "from the beginning"
        step = f", step {report['resumed_step']} of the next" if report["resumed_step"] else ""
        self._log(trial_id, f"attempt {report['attempt']} on {place}, {origin}{step}\n")
        for note in report["notes"]:
            self._journal.note("checkpoint_refused", note, trial_id)
            self._log(trial_id, f"{note}\n")

    def _waiting(self, live: _Live, message: str) -> None:
        if not live.waits:
            live.waits = True
            self._journal.note("waiting", message, live.stretch.trial_id)
            self._log(live.stretch.trial_id, f"{message}\n")

    def _epoch(self, live: _Live, result: dict[str, Any]) -> bool:
        trial_id, epoch = live.stretch.trial_id, result["epoch"]
        if epoch <= live.last_epoch:  # an older state had to do: what is known is trained again
            self._journal.set_checkpoint(trial_id, epoch, result["checkpoint"])
            return True
        if epoch > live.last_epoch + 1:
            raise RuntimeError(f"{trial_id} reports epoch {epoch} after {live.last_epoch}: one is lost")
        decision, action, judgement = self._judge(live, result)
        outcome = self._outcome(live, result, action)
        row = self._epoch_row(live, result)
        self._journal.record(row, decision, outcome, earned=judgement.earned, lost=judgement.lost)
        live.last_epoch = epoch
        error = "diverged" if result["diverged"] else f"validation error {result['val_error_pct']:.2f} %"
        self._log(trial_id, f"epoch {epoch}: {error}, {result['train_time_s']:.1f} s\n")
        self._settle(judgement)
        if outcome != RUNNING:
            self._ended(trial_id, outcome, result["val_error_pct"])
        return outcome == RUNNING

    def _judge(self, live: _Live, result: dict[str, Any]) -> tuple[DecisionRow | None, str, Judgement]:
        """The decision to record, if there is one to take, what is done with the trial, and whose places it decided."""
        trial_id, rung = live.stretch.trial_id, self._rung(live, result)
        decision, action, judgement = None, CONTINUE, Judgement(None)
        if rung is not None and (trial_id, rung) in self._recorded:
            action = self._action(live, self._recorded[trial_id, rung])
        elif rung is not None:
            error_pct = None if result["diverged"] else result["val_error_pct"]
            judgement = self._rule.arrive(live.cohort, rung, trial_id, error_pct)
            live.audited = live.audited or (judgement.among_worst and live.audited_if_worst)
            action = self._action(live, judgement.would_stop)
            decision = DecisionRow(
                trial_id=trial_id,
                cohort=live.cohort,
                rung_epochs=rung,
                error_pct=error_pct,
                cutoff_pct=judgement.cutoff_pct,
                would_stop=judgement.would_stop,
                among_worst=judgement.among_worst,
                audited=live.audited,
                decision=action,
            )
            self._recorded[trial_id, rung] = judgement.would_stop
        if result["diverged"]:
            left = self._rule.leave(live.cohort, trial_id)
            judgement = Judgement(None, earned=judgement.earned + left.earned, lost=judgement.lost + left.lost)
        return decision, action, judgement

    @staticmethod
    def _action(live: _Live, would_stop: bool | None) -> str:
        if live.audited:
            return CONTINUE
        return PAUSE if would_stop is None else STOP if would_stop else CONTINUE

    def _rung(self, live: _Live, result: dict[str, Any]) -> int | None:
        """The rung at which this result arrives, None between two."""
        rungs = self._stopping[live.stretch.scale].rungs
        if result["diverged"]:
            return next_rung(rungs, result["epoch"])
        return result["epoch"] if result["epoch"] in rungs else None

    def _outcome(self, live: _Live, result: dict[str, Any], action: str) -> str:
        if result["diverged"]:
            return DIVERGED
        if result["epoch"] >= self._stopping[live.stretch.scale].max_epochs:
            return COMPLETED
        return {CONTINUE: RUNNING, PAUSE: PAUSED, STOP: STOPPED}[action]

    @staticmethod
    def _epoch_row(live: _Live, result: dict[str, Any]) -> EpochRow:
        known = {key: result[key] for key in EpochRow.__dataclass_fields__ if key in result}
        return EpochRow(**{**known, "trial_id": live.stretch.trial_id, "host": live.where["host"]})

    def _settle(self, judgement: Judgement) -> None:
        """What the journal now says of other trials: those that have earned their place go on, others have ended."""
        for rung, trial_id in judgement.earned:
            self._recorded[trial_id, rung] = False
            if trial_id not in self._live and trial_id not in self._offered:
                self._offer(trial_id, rung=rung)
        for rung, trial_id in judgement.lost:
            self._recorded[trial_id, rung] = True
            row = self._journal.trial(trial_id)
            if row is not None and row["outcome"] == STOPPED and trial_id not in self._live:
                self._ended(trial_id, STOPPED, None)

    # -- how a stretch fails -------------------------------------------------------------------------------------

    def silent(self) -> list[tuple[str, dict[str, Any]]]:
        """Trials that have said nothing for too long, each with where it runs; the caller ends their workers."""
        now, found = self._clock(), []
        for trial_id, live in self._live.items():
            patience_s = self._stall_after_s * (1 if live.where else _SETUP_PATIENCE)
            if now - live.heard_s > patience_s:
                live.heard_s = now
                live.failure = STALLED, f"said nothing for {patience_s:g} s, so its worker was ended"
                found.append((trial_id, live.where))
        return found

    def where(self, trial_id: str) -> dict[str, Any]:
        """What its worker said when it began; nothing if it has not."""
        live = self._live.get(trial_id)
        return live.where if live else {}

    def failed(self, trial_id: str, kind: str, text: str) -> None:
        """The stretch ended by itself: its worker had told why, or it is of this `kind`, with `text` to explain it."""
        live = self._live.pop(trial_id, None)
        if live is None:
            return
        kind, text = live.failure or (kind, text)
        row = self._journal.trial(trial_id)
        assert row is not None
        by_user = kind in (USER, MEMORY)
        failures = row["user_failures" if by_user else "machine_failures"] + 1
        batch_size = self._smaller_batch(row) if kind == MEMORY else None
        limit = self._study.max_failures if by_user else self._study.max_machine_failures
        again = batch_size is not None if kind == MEMORY else failures <= limit
        left = Judgement(None) if again else self._rule.leave(live.cohort, trial_id)
        self._journal.fail(
            trial_id,
            kind,
            text,
            by_user=by_user,
            again=again,
            batch_size=batch_size,
            earned=left.earned,
            lost=left.lost,
        )
        last_line = text.strip().rpartition("\n")[2][:300]
        then = f"tried again with batch size {batch_size}" if batch_size else "tried again" if again else "given up"
        self._journal.note("retried" if again else "failed", f"{kind}: {last_line}; {then}", trial_id)
        self._log(trial_id, f"attempt {live.stretch.attempt} failed ({kind}), {then}:\n{text}\n")
        if kind == DATA:  # no trial can use the file: the session ends, so that it is made again
            self.damaged_data, self.draining = last_line, True
        self._settle(left)
        if again:
            delay_s = 0.0 if by_user else min(_MAX_DELAY_S, 2.0 ** min(failures, 9) - 2)
            self._offer(trial_id, rung=live.last_epoch, delay_s=delay_s)
        else:
            self._ended(trial_id, FAILED, None)

    def _smaller_batch(self, row: Any) -> int | None:
        """Half the batch, once, where the study allows it."""
        half = self._study.recipe.batch_size // 2
        allowed = self._study.out_of_memory == "smaller_batch" and row["batch_size"] is None
        return half if allowed and half >= 1 else None

    def _leave(self, trial_id: str, cohort: str, outcome: str) -> None:
        left = self._left(trial_id, cohort)
        self._journal.leave(trial_id, outcome, earned=left.earned, lost=left.lost)
        self._journal.note(outcome, "ended by `sweep stop --trial`", trial_id)
        self._settle(left)
        self._ended(trial_id, outcome, None)

    def _left(self, trial_id: str, cohort: str) -> Judgement:
        self._know(cohort)
        return self._rule.leave(cohort, trial_id)
