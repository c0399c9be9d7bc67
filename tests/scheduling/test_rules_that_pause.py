"""The rules under which trials wait: rungs by hand, the paper's algorithm as a witness, any order, any restart."""

import itertools
import math
import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.scheduling import asha
from sweep.scheduling.asha import Cohort, Judgement, Place, Promotion, Rule, Synchronous, rule_of

# -- three rules in motion -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """A trial's errors at the rungs (none: it diverges there), and the rung, by number, before which it leaves."""

    errors: tuple[float | None, ...]
    audited: bool = False
    leaves_before: int | None = None

    def is_fatal(self, number: int) -> bool:
        error = self.errors[number]
        return error is None or math.isnan(error)


RUNGS = (1, 4, 16)
Scripts = dict[str, Script]


class Walk:
    """Trials of one cohort on their way through the rungs, in random order; `events` is what a rule heard of it."""

    def __init__(self, rule: Rule, scripts: Scripts, rng: random.Random):
        self.rule, self.scripts, self.rng = rule, scripts, rng
        self.next_rung = dict.fromkeys(scripts, 0)
        self.on_the_way, self.waiting = set(scripts), set()
        self.events: list[tuple] = []
        self.earned: set[Place] = set()
        self.lost: set[Place] = set()

    def step(self) -> bool:
        """One arrival or departure; False where nothing can happen any more."""
        may_leave = {name for name in self.waiting if self._leaves(name)}
        movable = sorted(self.on_the_way | may_leave)
        if not movable:
            return False
        name = self.rng.choice(movable)
        if self._leaves(name):
            self._leave(name)
        elif self.next_rung[name] == len(RUNGS):
            self.on_the_way.remove(name)
        else:
            self._arrive(name)
        return True

    def to_the_end(self) -> "Walk":
        while self.step():
            pass
        return self

    def close(self) -> set[str]:
        lost = self.rule.close()
        self.events.append(("close",))
        self.waiting -= {name for _, name in lost}
        return {name for _, name in lost}

    def _leaves(self, name: str) -> bool:
        return self.scripts[name].leaves_before == self.next_rung[name]

    def _leave(self, name: str) -> None:
        self.on_the_way.discard(name)
        self.waiting.discard(name)
        self.events.append(("leave", "c", name))
        self._heed(self.rule.leave("c", name))

    def _arrive(self, name: str) -> None:
        script, number = self.scripts[name], self.next_rung[name]
        self.next_rung[name] += 1
        self.on_the_way.remove(name)
        self.events.append(("arrive", "c", RUNGS[number], name, script.errors[number]))
        judgement = self.rule.arrive("c", RUNGS[number], name, script.errors[number])
        if script.is_fatal(number):
            self._heed(judgement)
            self._leave(name)
            return
        if script.audited or judgement.would_stop is False:
            self.on_the_way.add(name)
        elif judgement.would_stop is None:
            self.waiting.add(name)
        self._heed(judgement)

    def _heed(self, judgement: Judgement) -> None:
        assert not (self.earned | self.lost) & {*judgement.earned, *judgement.lost}, "a place was decided twice"
        self.earned.update(judgement.earned)
        self.lost.update(judgement.lost)
        promoted = {name for _, name in judgement.earned} & self.waiting
        self.waiting -= promoted | {name for _, name in judgement.lost}
        self.on_the_way |= promoted


def random_scripts(rng: random.Random, num: int, *, faults: float = 0.0, audited: float = 0.0) -> Scripts:
    """Errors are few whole numbers, so that there are ties."""
    errors = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    return {
        f"t{number:02d}": Script(
            tuple(rng.choice([math.nan, None, math.inf]) if rng.random() < faults else rng.choice(errors)
                  for _ in RUNGS),
            audited=rng.random() < audited,
            leaves_before=rng.choice([0, 1, 2, 3]) if rng.random() < faults else None,
        )
        for number in range(num)
    }  # fmt: skip


# -- asynchronous promotion ------------------------------------------------------------------------------------------


class Paper:
    """Algorithm 2 of Li et al. 2020, word for word and slow: what a worker that is free gets to train."""

    def __init__(self, eta: int):
        self.eta = eta
        self.arrived: dict[int, list[tuple[float, int, str]]] = {rung: [] for rung in RUNGS}
        self.promoted: set[Place] = set()

    def arrive(self, rung: int, name: str, error: float | None) -> None:
        rank = math.inf if error is None or math.isnan(error) else error
        self.arrived[rung].append((rank, sum(map(len, self.arrived.values())), name))

    def get_job(self) -> Place | None:
        """The place that is promoted, None for a new configuration at the bottom."""
        for rung in reversed(RUNGS):
            ranked = sorted(self.arrived[rung])
            candidates = [(error, name) for error, _, name in ranked[: len(ranked) // self.eta]]
            promotable = [name for error, name in candidates if (rung, name) not in self.promoted and error < math.inf]
            if promotable:
                self.promoted.add((rung, promotable[0]))
                return rung, promotable[0]
        return None


@pytest.mark.parametrize("num_workers", [1, 2, 7, 25])
@pytest.mark.parametrize("eta", [2, 3, 4])
def test_promotes_as_the_paper_does(eta, num_workers):
    for seed in range(10):
        rng = random.Random(seed)
        scripts = random_scripts(rng, 60, faults=0.1)
        paper, rule = Paper(eta), Promotion(eta)
        new = iter(scripts)
        at_work = {name: 0 for name in itertools.islice(new, num_workers)}  # and the number of its next rung
        by_paper, by_rule = [], []
        while at_work:
            name = rng.choice(sorted(at_work))
            number = at_work.pop(name)
            if number < len(RUNGS):
                error = scripts[name].errors[number]
                paper.arrive(RUNGS[number], name, error)
                by_rule += rule.arrive("c", RUNGS[number], name, error).earned
            # The worker that is free asks now. Nothing may be left for one that is idle.
            job = paper.get_job()
            if job is not None:
                by_paper.append(job)
                at_work[job[1]] = RUNGS.index(job[0]) + 1
                assert paper.get_job() is None
            elif (name := next(new, None)) is not None:
                at_work[name] = 0
            assert by_rule == by_paper
        assert len(by_rule) > 5


def test_promotion_by_hand():
    # eta 2: n // 2 places. 10 waits; of 10 and 20 the first has earned its place; 5 takes the place of three at once;
    # of four the best two are 5 and 10, which have theirs; five and six arrivals: 7 is among the best three.
    rule = Promotion(2)
    judged = [rule.arrive("c", 1, name, error) for name, error in zip("abcdef", [10, 20, 5, 30, 40, 7])]
    assert [judgement.would_stop for judgement in judged] == [None, None, False, None, None, False]
    assert [judgement.earned for judgement in judged] == [(), ((1, "a"),), ((1, "c"),), (), (), ((1, "f"),)]
    assert set(rule.close()) == {(1, "b"), (1, "d"), (1, "e")}


def test_of_a_tie_the_first_to_arrive_is_promoted():
    rule = Promotion(2)
    assert rule.arrive("c", 1, "z", 10).earned == ()
    assert rule.arrive("c", 1, "a", 10).earned == ((1, "z"),)


@pytest.mark.parametrize("worst", [None, math.nan, math.inf])
def test_what_is_not_finite_is_counted_and_never_promoted(worst):
    rule = Promotion(2)
    judged = [rule.arrive("c", 1, name, worst) for name in "abcd"]
    assert [(judgement.would_stop, judgement.earned) for judgement in judged] == [(True, ())] * 4
    assert rule.arrive("c", 1, "e", 50).earned == ((1, "e"),)


def test_an_audited_trial_takes_a_place_without_waiting_for_it():
    walk = Walk(Promotion(2), {"a": Script((1, 1, 1), audited=True), "b": Script((2, 2, 2))}, random.Random(0))
    walk.to_the_end()
    assert walk.next_rung == {"a": 3, "b": 1}
    assert {place for place in walk.earned if place[0] == 1} == {(1, "a")}


@pytest.mark.parametrize("seed", range(20))
def test_a_closed_rule_gives_the_same_places_as_the_paper_to_those_who_come_later(seed):
    """After `sweep extend`: whoever waited has ended, and holds its rank against the newcomers."""
    rng = random.Random(seed)
    scripts = random_scripts(rng, 30, faults=0.1)
    paper, rule = Paper(3), Promotion(3)
    for number, (name, script) in enumerate(scripts.items()):
        paper.arrive(1, name, script.errors[0])
        earned = rule.arrive("c", 1, name, script.errors[0]).earned
        job = paper.get_job()
        assert earned == (() if job is None else (job,))
        if number in (9, 10, 19):
            waiting = {place for *_, name in paper.arrived[1] if (place := (1, name)) not in paper.promoted}
            assert set(rule.close()) == waiting
            paper.promoted |= waiting


def test_promotion_keeps_cohorts_and_rungs_apart():
    rule = Promotion(2)
    for cohort, rung, name in (("easy", 1, "a"), ("hard", 1, "b"), ("easy", 4, "a")):
        assert rule.arrive(cohort, rung, name, 1).earned == ()
    assert rule.arrive("hard", 1, "c", 2).earned == ((1, "b"),)


# -- synchronous halving ---------------------------------------------------------------------------------------------


def cohorts(scripts: Scripts) -> dict[str, Cohort]:
    return {"c": Cohort(RUNGS, scripts)}


def synchronous(scripts: Scripts, eta: int) -> Synchronous:
    return Synchronous(eta, cohorts(scripts))


def halved(scripts: Scripts, eta: int) -> tuple[set[Place], set[Place]]:
    """Each rung at once, from all that ever arrive there: who has earned the next one, and who has not."""
    earned: set[Place] = set()
    lost: set[Place] = set()
    coming, unranked = set(scripts), set[str]()
    for number, rung in enumerate(RUNGS):
        arrive = {name for name in coming if scripts[name].leaves_before != number}
        unranked = {name for name in unranked if scripts[name].leaves_before != number}
        ranks = {name: scripts[name].errors[number] for name in arrive}
        good = sorted((error, name) for name, error in ranks.items() if error is not None and math.isfinite(error))
        best = {name for _, name in good[: max(1, len(arrive) // eta)]}
        earned |= {(rung, name) for name in best}
        lost |= {(rung, name) for name in (arrive - best) | unranked}
        unranked = {name for name in (arrive - best) | unranked if scripts[name].audited}
        unranked = {name for name in unranked if not scripts[name].is_fatal(number)}
        coming = best
    return earned, lost


def test_synchronous_rungs_by_hand():
    # Six trials, eta 3: two go on; of two, none of a third, so one.
    errors = {"a": (6, 2), "b": (5, 1), "c": (4, 9), "d": (3, 3), "e": (2, 2), "f": (1, 4)}
    rule = Synchronous(3, {"c": Cohort((1, 4), errors)})
    for name in "abcde":
        assert rule.arrive("c", 1, name, errors[name][0]) == Judgement(None)
    last = rule.arrive("c", 1, "f", 1)
    assert last == Judgement(False, earned=((1, "e"), (1, "f")), lost=tuple((1, name) for name in "abcd"))
    assert rule.arrive("c", 4, "f", 4) == Judgement(None)
    assert rule.arrive("c", 4, "e", 2) == Judgement(False, earned=((4, "e"),), lost=((4, "f"),))


def test_of_a_tie_the_first_by_name_goes_on():
    rule = Synchronous(2, {"c": Cohort((1,), "ab")})
    rule.arrive("c", 1, "b", 10)
    assert rule.arrive("c", 1, "a", 10).earned == ((1, "a"),)


def test_nobody_waits_for_an_exempt_trial_that_has_lost_its_place():
    rule = Synchronous(2, {"c": Cohort((1, 4), ("a", "b", "exempt"))})
    assert rule.arrive("c", 1, "exempt", 50).would_stop is None  # its scheduler lets it go on all the same
    assert rule.arrive("c", 4, "exempt", 5) == Judgement(None)
    assert rule.arrive("c", 1, "a", 10) == Judgement(None)
    assert rule.arrive("c", 1, "b", 20) == Judgement(True, earned=((1, "a"),), lost=((1, "b"), (1, "exempt")))
    assert rule.arrive("c", 4, "a", 10) == Judgement(False, earned=((4, "a"),), lost=((4, "exempt"),))

    rule = Synchronous(2, {"c": Cohort((1, 4), ("a", "b", "exempt"))})
    for name, error in (("a", 10), ("b", 20), ("exempt", 50)):
        rule.arrive("c", 1, name, error)
    assert rule.arrive("c", 4, "a", 10) == Judgement(False, earned=((4, "a"),))
    assert rule.arrive("c", 4, "exempt", 5) == Judgement(True, lost=((4, "exempt"),))


def test_an_exempt_trial_that_has_earned_its_place_is_awaited():
    rule = Synchronous(2, {"c": Cohort((1, 4), ("a", "b", "c", "exempt"))})
    for name, error in (("exempt", 10), ("a", 15), ("b", 20), ("c", 30)):
        rule.arrive("c", 1, name, error)
    assert rule.arrive("c", 4, "a", 15) == Judgement(None)
    assert rule.arrive("c", 4, "exempt", 10).earned == ((4, "exempt"),)


def test_one_departure_can_decide_several_rungs():
    rule = Synchronous(2, {"c": Cohort((1, 4, 16), ("a", "b", "late"))})
    for rung in (1, 4, 16):
        assert rule.arrive("c", rung, "a", 10) == Judgement(None)
    assert rule.arrive("c", 1, "b", 20) == Judgement(None)
    left = rule.leave("c", "late")
    assert left.earned == ((1, "a"), (4, "a"), (16, "a"))
    assert left.lost == ((1, "b"),)


def test_a_cohort_that_all_have_left_is_decided_and_others_are_not_touched():
    rule = Synchronous(2, {"gone": Cohort((1, 4), "ab"), "c": Cohort((1, 4), "d")})
    assert rule.leave("gone", "a") == rule.leave("gone", "b") == Judgement(None)
    assert rule.arrive("c", 1, "d", 50).earned == ((1, "d"),)


def test_each_cohort_has_rungs_of_its_own():
    rule = Synchronous(2, {"small": Cohort((1, 2), "ab"), "large": Cohort((4,), "c")})
    assert rule.arrive("large", 4, "c", 50).earned == ((4, "c"),)
    assert rule.arrive("small", 1, "a", 20) == Judgement(None)
    assert rule.arrive("small", 1, "b", 10).earned == ((1, "b"),)
    assert rule.arrive("small", 2, "b", 10).earned == ((2, "b"),)


numbers = st.integers(0, 2**32 - 1)


@given(seed=numbers, order=numbers, eta=st.integers(2, 4), num=st.integers(1, 14))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_synchronous_decides_the_same_in_any_order(seed, order, eta, num):
    scripts = random_scripts(random.Random(seed), num, faults=0.25, audited=0.25)
    walk = Walk(synchronous(scripts, eta), scripts, random.Random(order)).to_the_end()
    assert walk.waiting == set(), "a rung stays undecided"
    assert (walk.earned, walk.lost) == halved(scripts, eta)


# -- the lottery -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous"])
@given(seed=numbers, eta=st.integers(2, 4), num=st.integers(1, 20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_lottery_changes_nothing_for_the_others(method, seed, eta, num):
    scripts = random_scripts(random.Random(seed), num, audited=0.4)
    with_nobody_exempt = {name: replace(script, audited=False) for name, script in scripts.items()}
    found = one_after_another(rule_of(method, eta, cohorts(scripts)), scripts)
    assert found == one_after_another(rule_of(method, eta, cohorts(scripts)), with_nobody_exempt)


def one_after_another(rule: Rule, scripts: Scripts) -> set[Place]:
    """The places that are earned where each trial goes as far as it may before the next one begins."""
    earned: set[Place] = set()
    for newcomer in scripts:
        ready = [(newcomer, 0)]
        while ready:
            name, number = ready.pop()
            if number == len(RUNGS):
                continue
            judgement = rule.arrive("c", RUNGS[number], name, scripts[name].errors[number])
            own = {(RUNGS[number], name)} if judgement.would_stop is False else set()
            earned |= own | {*judgement.earned}
            if own or scripts[name].audited:
                ready.append((name, number + 1))
            others = [place for place in judgement.earned if place not in own and not scripts[place[1]].audited]
            ready += [(other, RUNGS.index(rung) + 1) for rung, other in others]
    return earned


# -- a fresh rule after a restart ------------------------------------------------------------------------------------


def apply(rule: Rule, event: tuple) -> object:
    kind, *values = event
    return getattr(rule, kind)(*values)


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous"])
@given(seed=numbers, eta=st.integers(2, 4), share=st.floats(0, 1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_replay_brings_a_fresh_rule_to_the_same_state(method, seed, eta, share):
    rng = random.Random(seed)
    scripts = random_scripts(rng, 14, faults=0.2, audited=0.2)
    walk = Walk(rule_of(method, eta, cohorts(scripts)), scripts, rng)
    while walk.step():
        if method == "asha_promotion" and rng.random() < 0.1:
            walk.close()
    cut = round(share * len(walk.events))
    live, fresh = rule_of(method, eta, cohorts(scripts)), rule_of(method, eta, cohorts(scripts))
    closed_after, arrivals = [], []
    for event in walk.events[:cut]:
        apply(live, event)
        if event[0] == "arrive":
            arrivals.append(event[1:])
        elif event[0] == "close":
            closed_after.append(len(arrivals))
    asha.replay(fresh, arrivals, closed_after, [event[1:] for event in walk.events[:cut] if event[0] == "leave"])
    for event in [*walk.events[cut:], ("close",)]:
        assert apply(fresh, event) == apply(live, event)
