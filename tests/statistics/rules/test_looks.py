"""Looks at sweeps that are not over: when they come, of whom they are, and what follows from all of them together."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import synthetic

from sweep.records.tables import Tables
from sweep.statistics import Look, due_look, ended_early_by, holm, judge_study, looks_taken
from sweep.statistics.rules.looks import first_trials
from sweep.statistics.rules.sequential import nominal_p, sequential_p

RUNG = synthetic.GRACE_EPOCHS


def with_looks(tables: Tables, looks: list[Look]) -> Tables:
    """As a journal records them."""
    recorded = json.loads(json.dumps([look.to_dict() for look in looks], allow_nan=False))
    return replace(tables, metadata=tables.metadata | {"looks": recorded})


CLEAR = {"anynet_c": 60.0, "anynet_d": 20.0}
NULL = {"anynet_c": 22.0, "anynet_d": 22.0}


# ---- when ------------------------------------------------------------------------------------------------------------


def test_a_study_that_is_judged_at_its_end_has_no_looks():
    tables = synthetic.tables(NULL, rng=np.random.default_rng(0))
    assert looks_taken(tables) == []
    assert judge_study(tables)[0].looks_taken is None


def test_a_look_waits_for_its_slowest_trial():
    """Others that have arrived meanwhile neither hasten it nor are in it."""
    tables = synthetic.looked_at(NULL)
    assert looks_taken(synthetic.at_moment(tables, 7)) == []
    assert looks_taken(synthetic.at_moment(tables, 15, in_flight={3, 14})) == []
    [look] = looks_taken(synthetic.at_moment(tables, 15, in_flight={14}))
    assert (look.number, look.num_trials, look.num_begun, look.num_planned, look.num_known) == (1, 8, 8, 32, 32)
    assert look == looks_taken(synthetic.at_moment(tables, 8))[0]
    assert [look.num_trials for look in looks_taken(synthetic.at_moment(tables, 31, in_flight={30}))] == [8, 16, 24]


def test_the_networks_of_a_look_are_the_first_in_launch_order():
    tables = synthetic.at_moment(synthetic.looked_at(NULL), 15, in_flight={12})
    first = first_trials(tables, 8)
    assert set(first.trials["trial_id"].to_pylist()) == set(synthetic.launched(tables)[:8])
    [compared] = looks_taken(tables)[0].compared
    assert compared.n_without + compared.n_with == 8


def test_the_last_look_is_at_the_end():
    tables = synthetic.looked_at(NULL)
    assert len(looks_taken(synthetic.at_moment(tables, 32, in_flight={31}))) == 3
    looks = looks_taken(tables)
    assert [look.num_trials for look in looks] == [8, 16, 24, 32]
    assert [look.fraction for look in looks] == [0.25, 0.5, 0.75, 1.0]
    assert due_look(tables, looks) is None


def test_what_becomes_of_a_trial_after_the_first_rung_does_not_change_a_look():
    """It is taken again by a journal that lost its record: the same trials, the same p-values."""
    tables = synthetic.looked_at(NULL, num_diverged=2)
    early = looks_taken(synthetic.at_moment(tables, 10))
    reached = set(tables.epochs.filter(pc.field("epoch") == RUNG)["trial_id"].to_pylist())
    places = {place for place, trial_id in enumerate(synthetic.launched(tables)) if place < 8 and trial_id in reached}
    for outcome in ("failed", "cancelled", "completed", "running"):
        assert looks_taken(synthetic.at_moment(synthetic.with_outcome(tables, places, outcome), 10)) == early
    assert looks_taken(tables)[:1] == early


def test_who_diverged_before_the_rung_counts_and_who_failed_there_does_not():
    tables = synthetic.at_moment(synthetic.looked_at(NULL), 8, in_flight={0, 1})
    diverged, failed = (synthetic.with_outcome(tables, {0, 1}, outcome) for outcome in ("diverged", "failed"))
    [of_diverged], [of_failed] = (looks_taken(ended)[0].compared for ended in (diverged, failed))
    assert of_diverged.n_without + of_diverged.n_with == 8
    assert of_failed.n_without + of_failed.n_with == 6


def test_recorded_looks_are_not_taken_again():
    tables = synthetic.looked_at(NULL)
    looks = looks_taken(tables)
    [compared] = looks[0].compared
    recorded = replace(looks[0], compared=(replace(compared, p_different=0.5),))
    assert looks_taken(with_looks(tables, [recorded]))[0] == recorded
    assert looks_taken(with_looks(tables, looks)) == looks


# ---- what they decide ------------------------------------------------------------------------------------------------


def test_a_clear_effect_ends_the_sweep_early():
    tables = synthetic.looked_at(CLEAR, trials_per_space=32)
    looks = looks_taken(tables)
    assert [look.decides_all for look in looks] == [False] * (len(looks) - 1) + [True]
    assert len(looks) < 4
    [verdict] = judge_study(tables)
    assert (verdict.verdict, verdict.decided_at_look, verdict.looks_taken) == ("helps", looks[-1].number, len(looks))
    assert verdict.rung_epochs == RUNG
    assert verdict.ci_low_pct < verdict.effect_pct < verdict.ci_high_pct < 0
    assert verdict.p_holm < 0.05


def test_no_effect_is_looked_at_to_the_end_and_stays_undecided():
    looks = looks_taken(synthetic.looked_at(NULL))
    assert [look.num_decided for look in looks] == [0] * 4
    [verdict] = judge_study(synthetic.looked_at(NULL))
    assert (verdict.verdict, verdict.decided_at_look, verdict.looks_taken) == ("undecided", None, 4)
    assert verdict.trials_to_decide is None  # nothing is left to spend


def test_a_rule_that_does_nothing_is_found_free_early():
    tables = synthetic.looked_at(NULL, trials_per_space=80, margin_pct=4.0)
    look = looks_taken(tables)[-1]
    assert (look.decides_all, look.number < 4) == (True, True)
    assert [v.verdict for v in judge_study(tables)] == ["free"]
    assert judge_study(tables)[0].decided_at_look == look.number


def test_one_undecided_rule_keeps_the_sweep_going():
    tables = synthetic.looked_at(CLEAR | {"anynet_e": 20.0}, trials_per_space=32)
    looks = looks_taken(tables)
    assert [look.num_decided for look in looks] == sorted(look.num_decided for look in looks)
    assert looks[-1].num_decided == 1
    assert len(looks) == 4
    decided, undecided = judge_study(tables)
    assert (decided.verdict, undecided.verdict) == ("helps", "undecided")
    assert decided.decided_at_look < 4


def test_verdicts_are_those_of_sequential_p_values_corrected_by_holm():
    tables = synthetic.looked_at({"anynet_c": 26.0, "anynet_d": 22.0, "anynet_e": 21.0}, scales=("small", "large"))
    looks = looks_taken(tables)
    fractions = [look.fraction for look in looks]
    p_values = [[one.p_different for one in look.compared] for look in looks]
    by_hand = sequential_p(p_values, fractions)[0]
    verdicts = judge_study(tables)
    assert [v.p_value for v in verdicts] == pytest.approx(by_hand)
    assert [v.p_holm for v in verdicts] == pytest.approx(holm(by_hand.tolist()))


def test_before_the_first_look_nothing_is_said():
    [verdict] = judge_study(synthetic.at_moment(synthetic.looked_at(CLEAR), 7))
    assert (verdict.verdict, verdict.looks_taken, verdict.p_value, verdict.ci_low_pct) == ("undecided", 0, None, None)
    assert verdict.effect_pct < -30
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_the_interval_is_as_wide_as_the_looks_need():
    tables = synthetic.looked_at(NULL, trials_per_space=32)
    [verdict] = judge_study(tables)
    plain = replace(tables, metadata=tables.metadata | {"study": synthetic.study(spaces=tuple(NULL))})
    [once] = judge_study(plain)
    assert once.effect_pct == verdict.effect_pct
    wider = (verdict.ci_high_pct - verdict.ci_low_pct) / (once.ci_high_pct - once.ci_low_pct)
    assert 1.0 < wider < 1.15  # 2.014 of 1.960, as resampled


def test_trials_in_flight_at_the_end_count_for_the_effect_and_decide_nothing():
    tables = synthetic.looked_at(CLEAR, trials_per_space=32)
    look = looks_taken(tables)[-1]
    some = synthetic.at_moment(tables, look.num_trials + 3)
    rest = set(range(look.num_trials + 3, 64))
    ended = with_looks(synthetic.with_outcome(some, rest, "cancelled", attempts=0), looks_taken(some))
    assert looks_taken(ended)[-1] == replace(look, num_known=64)
    assert ended_early_by(ended) == look
    assert ended_early_by(tables) is None  # all had begun when it was decided
    [verdict] = judge_study(ended)
    assert verdict.n_without + verdict.n_with == look.num_trials + 3
    assert (verdict.verdict, verdict.looks_taken) == ("helps", look.number)


def test_a_difference_that_turns_round_after_its_look_counts_for_nothing():
    tables = synthetic.looked_at(CLEAR, trials_per_space=32)
    looks = looks_taken(tables)
    told = replace(looks[-1], compared=tuple(replace(one, effect_pct=5.0) for one in looks[-1].compared))
    [verdict] = judge_study(with_looks(tables, [*looks[:-1], told]))
    assert (verdict.verdict, verdict.decided_at_look) == ("undecided", None)


# ---- more and fewer trials than planned ------------------------------------------------------------------------------


def extended(tables: Tables, more: Tables, spaces: list[str], num: int) -> Tables:
    """`more` trials behind those that there are, as `sweep extend` adds them."""
    order = pa.array(range(tables.trials.num_rows, tables.trials.num_rows + more.trials.num_rows), pa.int32())
    drawn = synthetic.replaced(more.architectures, "launch_order", order)
    known = list(dict.fromkeys([*tables.metadata["study"]["spaces"], *spaces]))
    return replace(
        tables,
        architectures=pa.concat_tables([tables.architectures, _renamed(drawn)]),
        trials=pa.concat_tables([tables.trials, _renamed(more.trials)]),
        epochs=pa.concat_tables([tables.epochs, _renamed(more.epochs)]),
        metadata=tables.metadata
        | {
            "study": tables.metadata["study"] | {"spaces": known},
            "extensions": [{"spaces": spaces, "trials": num}],
        },
    )


def _renamed(table: pa.Table) -> pa.Table:
    return synthetic.replaced(table, "trial_id", pc.binary_join_element_wise(table["trial_id"], "x", "-"))


def more_of(means: dict[str, float], num: int) -> Tables:
    return synthetic.tables(means, rng=np.random.default_rng(9), trials_per_space=num)


def test_an_extension_while_it_runs_puts_off_the_last_look():
    tables = extended(synthetic.looked_at(NULL), more_of(NULL, 4), list(NULL), 4)
    looks = looks_taken(tables)
    assert [look.num_trials for look in looks] == [8, 16, 24, 40]
    assert [look.num_planned for look in looks] == [32] * 4
    assert looks[-1].fraction == 1.25


def test_an_extension_after_the_last_look_decides_nothing_more():
    before = synthetic.looked_at(NULL)
    looks = looks_taken(before)
    far_better = more_of({"anynet_c": 80.0, "anynet_d": 10.0}, 16)
    tables = with_looks(extended(before, far_better, list(NULL), 16), looks)
    assert [look.num_trials for look in looks_taken(tables)] == [8, 16, 24, 32, 64]
    [verdict] = judge_study(tables)
    assert verdict.verdict == "undecided"
    assert verdict.effect_pct < -20
    assert verdict.p_value == pytest.approx(judge_study(before)[0].p_value)


def test_a_space_that_joins_later_has_all_of_its_error_rate_to_spend():
    before = synthetic.looked_at(NULL)
    tables = extended(before, more_of({"anynet_e": 60.0}, 16), ["anynet_e"], 16)
    verdicts = judge_study(with_looks(tables, looks_taken(before)))
    assert [(v.space_with, v.verdict) for v in verdicts] == [("anynet_d", "undecided"), ("anynet_e", "hurts")]
    assert verdicts[1].decided_at_look == 5


def test_a_sweep_that_ended_early_and_was_extended_spends_by_what_it_has():
    tables = synthetic.looked_at(CLEAR, trials_per_space=32)
    look = looks_taken(tables)[-1]
    some = synthetic.at_moment(tables, look.num_trials)
    ended = with_looks(
        synthetic.with_outcome(some, set(range(look.num_trials, 64)), "cancelled", attempts=0), looks_taken(some)
    )
    looks = looks_taken(extended(ended, more_of({"anynet_e": 20.0}, 8), ["anynet_e"], 8))
    assert looks[-1].num_begun == look.num_trials + 8
    assert looks[-1].fraction == (look.num_trials + 8) / 64 < 1


def test_a_quarter_that_was_cancelled_by_hand_is_a_look_at_nothing_new():
    tables = synthetic.at_moment(synthetic.looked_at(NULL), 8)
    gone = synthetic.with_outcome(tables, set(range(8, 16)), "cancelled", attempts=0)
    looks = looks_taken(gone)
    assert [(look.num_trials, look.num_begun) for look in looks] == [(8, 8), (16, 8)]
    assert judge_study(gone)[0].p_value == judge_study(tables)[0].p_value


# ---- resamples -------------------------------------------------------------------------------------------------------


def test_a_boundary_far_out_is_reached_by_more_resamples():
    """Of 999 none could: with two looks, the first asks for p = 0.003, and Holm's first step of six for 0.0002."""
    means = {"anynet_a": 80.0, "anynet_b": 60.0, "anynet_c": 45.0, "anynet_d": 32.0, "anynet_e": 22.0, "regnet_x": 14.0}
    tables = synthetic.at_moment(synthetic.looked_at(means, looks=2, trials_per_space=30, spread_pct=1.0), 90)
    assert nominal_p(0.05 / 5, [0.5])[0] < 1 / 1000
    [look] = looks_taken(tables)
    assert max(one.p_different for one in look.compared) < nominal_p(0.05 / 5, [0.5])[0]
    assert look.decides_all
