"""The answer in sentences, and numbers as people read them."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic
from synthetic import only

from dashboards import words
from sweep.statistics import Verdict, judge, judge_study, looks_taken, study_of


@pytest.fixture(scope="module")
def tables():
    return synthetic.tables(rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def verdicts(tables):
    return judge(tables, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)


def as_if(seen: Verdict, **changes) -> Verdict:
    known = {"effect_pct": -2.0, "ci_low_pct": -3.0, "ci_high_pct": -1.0, "trials_to_decide": None}
    return replace(seen, **(known | changes))


def test_decided_rules_come_with_interval_n_and_budget(tables, verdicts):
    helps, free, hurts = (as_if(v, verdict=d) for v, d in zip(verdicts, ("helps", "free", "hurts")))
    (answer,) = words.answers(tables, only([helps, free, hurts]))
    numbers = "−2.00 points of error, 95 % interval −3.00 to −1.00, n = 20 + 20"
    assert answer == (
        f"After 2 epochs, the rule “widths up” helps ({numbers}); the rule “depths up” costs and gains nothing within "
        f"±0.5 points ({numbers}); and the rule “quantised widths” hurts ({numbers})."
    )


def test_undecided_rules_are_said_to_be(tables, verdicts):
    helps = as_if(verdicts[0], verdict="helps")
    open_ = as_if(verdicts[1], verdict="undecided", trials_to_decide=1234)
    (answer,) = words.answers(tables, only([helps, open_]))
    assert "Undecided: “depths up” (" in answer
    assert answer.endswith("needs about 1,234 more networks in each space).")
    (answer,) = words.answers(tables, only([open_]))
    assert answer.startswith("After 2 epochs, this sweep cannot decide its one rule: “depths up”")
    (answer,) = words.answers(tables, only([open_, open_]))
    assert "cannot decide any of its 2 rules" in answer


def test_a_rule_that_several_spaces_test_is_told_apart(tables, verdicts):
    falls, equals = (
        as_if(verdicts[0], verdict="helps", rule="widths_up", space_without=space)
        for space in ("vionet_widths_down", "vionet_widths_equal")
    )
    (answer,) = words.answers(tables, only([falls, equals]))
    assert "“widths up” against VioNet, widths fall helps" in answer
    assert "“widths up” against VioNet, widths equal helps" in answer


def test_matched_verdicts_say_on_what_and_how_many(tables, verdicts):
    sizes = {"matched_on": "flops", "num_matched_without": 17, "num_matched_with": 15}
    (answer,) = words.answers(tables, only([as_if(verdicts[0], verdict="helps", **sizes)]))
    assert answer.endswith("interval −3.00 to −1.00, n = 17 + 15 of 20 + 20, matched on flops).")
    none = {"num_matched_without": 0, "num_matched_with": 0, "effect_pct": None}
    (answer,) = words.answers(tables, only([as_if(verdicts[0], verdict="undecided", **(sizes | none))]))
    assert "(no networks to compare, n = 0 + 0 of 20 + 20, matched on flops)" in answer


def test_a_sweep_without_results_claims_nothing():
    nothing = synthetic.tables(rng=np.random.default_rng(0), num_unfinished=10)
    verdicts = judge(nothing, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)
    (answer,) = words.answers(nothing, only(verdicts))
    assert "cannot decide any of its 3 rules" in answer
    assert "no networks to compare, n = 0 + 0" in answer


def test_each_scale_has_its_sentence():
    two = synthetic.tables(rng=np.random.default_rng(0), scales=("small", "large"))
    verdicts = judge(two, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)
    first, second = words.answers(two, only(verdicts))
    assert first.startswith("After 2 epochs at scale small, ")
    assert second.startswith("After 2 epochs at scale large, ")


def test_a_repeat_of_a_scale_has_no_sentence():
    two = synthetic.tables(rng=np.random.default_rng(0), scales=("small", "again"))
    again = synthetic.with_scale(two, 1, of="small")
    verdicts = judge(again, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)
    (answer,) = words.answers(again, only(verdicts))
    assert answer.startswith("After 2 epochs, ")
    assert words.repeats_text(study_of(again)).startswith("Of each space, networks were trained once more")
    assert words.repeats_text(study_of(two)) == ""


def test_one_space_is_no_question(tables):
    (answer,) = words.answers(tables, only([]))
    assert answer == "No two spaces of this study differ by a rule, so there is nothing to judge."


def at_full(seen: Verdict, **changes) -> Verdict:
    return as_if(seen, **({"rung_epochs": 4, "num_known_without": 11, "num_known_with": 13} | changes))


def test_the_answer_says_what_is_otherwise_at_the_full_budget(tables, verdicts):
    first, second = (as_if(v, verdict="helps") for v in verdicts[:2])
    same, other = at_full(first, verdict="helps"), at_full(second, verdict="undecided")
    _, answer = words.answers(tables, only([first, second, same, other]))
    numbers = "−2.00 points of error, 95 % interval −3.00 to −1.00, n = 20 + 20, 11 + 13 of them known"
    assert answer == (
        f"Estimated at the full budget, 4 epochs, the rule “depths up” is undecided ({numbers}); the others stay."
    )
    _, answer = words.answers(tables, only([first, same]))
    assert answer == "Estimated at the full budget, 4 epochs, the verdict is the same."
    _, answer = words.answers(tables, only([first, at_full(first, verdict="free")]))
    assert "the rule “widths up” costs and gains nothing within ±0.5 points (" in answer
    assert answer.endswith("of them known).")


def test_each_scale_tells_its_own_full_budget():
    two = synthetic.tables(rng=np.random.default_rng(0), scales=("small", "large"))
    verdicts = judge(two, margin_pct=0.5, confidence=0.95, num_bootstrap=999, seed=1)
    small, large = ([as_if(v, verdict="helps") for v in verdicts if v.scale == scale] for scale in ("small", "large"))
    told = words.answers(two, only([*small, *large, *(at_full(v, verdict="helps") for v in large)]))
    assert [text.split(",")[0] for text in told] == [
        "After 2 epochs at scale small", "After 2 epochs at scale large", "Estimated at the full budget"
    ]  # fmt: skip
    assert told[-1].endswith("each of the 3 verdicts is the same.")


def with_measures(verdict: Verdict, *decisions: str | None) -> Verdict:
    others = tuple(replace(other, verdict=decision) for other, decision in zip(verdict.others, decisions))
    return replace(verdict, others=others)


def test_other_measures_are_told_where_they_decide_otherwise(verdicts):
    seen = as_if(verdicts[0], verdict="undecided")
    median, best, wins = seen.others
    text = words.measures_text([with_measures(seen, "undecided", "hurts", "helps")])
    in_points = f"{words.signed(best.effect)}, 95 % interval {words.signed(best.low)} to {words.signed(best.high)}"
    shares = (100 * wins.with_, 100 * (0.5 - wins.high), 100 * (0.5 - wins.low))
    assert text == (
        f"Decided otherwise than by the mean: the rule “widths up” hurts by the best tenth ({in_points}) and the rule "
        "“widths up” helps by how often it wins ({:.0f} %, 95 % interval {:.0f} to {:.0f} %).".format(*shares)
    )
    assert words.measures_text([with_measures(seen, *["undecided"] * 3)]).startswith("No rule is decided otherwise")
    assert words.measures_text([with_measures(seen, None, None, None)]).startswith("Looks decide on the mean alone")
    nothing = replace(median, effect=None, low=None, high=None)
    assert words.measures_text([replace(seen, others=(nothing,) * 3)]) == ""
    assert (words.measure_value(nothing), words.measure_ends(nothing)) == ("–", "no interval")


def test_numbers():
    assert [words.signed(x) for x in (-2.306, 0.004, -0.004, 1.0)] == ["−2.31", "+0.00", "+0.00", "+1.00"]
    assert [words.si(x) for x in (950, 412_345, 999_999, 4e9, 0.5)] == ["950", "412 k", "1 M", "4 G", "0.5"]
    assert [words.duration(x) for x in (0, 41.2, 60, 3725, 100_000)] == ["0 s", "41 s", "1 min", "1 h 2 min", "1 d 3 h"]
    assert [words.percent(x) for x in (None, 12.345)] == ["–", "12.3 %"]
    assert [words.epochs_text(x) for x in (1, 2)] == ["1 epoch", "2 epochs"]


def test_what_was_not_recorded_is_said(tables):
    bare = replace(tables, metadata={"study": tables.metadata["study"]})
    assert words.machine_text(bare) == "machine not recorded"
    assert "no commit recorded" in words.provenance_text(bare)


def test_several_hosts_are_named_as_such(tables):
    hosts = ["one", "two"] * tables.epochs.num_rows
    column = tables.epochs.schema.get_field_index("host")
    spread = tables.epochs.set_column(column, "host", [hosts[: tables.epochs.num_rows]])
    assert words.machine_text(replace(tables, epochs=spread)) == "Example CPU @ 2.00GHz, 2 CPUs; trained on 2 hosts"


def test_a_sweep_that_was_judged_at_its_end_says_nothing_of_looks(tables):
    assert words.looks_text(tables) == ""


def test_looks_are_told_before_the_first_between_them_and_at_the_end():
    sweep = synthetic.looked_at(dict.fromkeys(("anynet_c", "anynet_d"), 22.0))
    assert "its first look is to come" in words.looks_text(synthetic.at_moment(sweep, 7))
    between = synthetic.at_moment(sweep, 20)
    assert "look 2 of 4, at 16 trials, is the last so far, and 0 of 1 rules are decided" in words.looks_text(between)
    assert "look 4 of 4, at 32 trials" in words.looks_text(sweep)
    [answer] = words.answers(sweep, only(judge_study(synthetic.at_moment(sweep, 7))))
    assert "no interval before the first look" in answer


def test_an_early_end_is_told():
    sweep = synthetic.looked_at({"anynet_c": 60.0, "anynet_d": 20.0}, trials_per_space=32)
    num = looks_taken(sweep)[-1].num_trials
    some = synthetic.at_moment(sweep, num + 3)
    ended = synthetic.with_outcome(some, set(range(num + 3, 64)), "cancelled", attempts=0)
    told = words.looks_text(ended)
    assert told.startswith(f"Ended early after look {num // 16} of 4 ({num} of 64 trials), as the study wanted")
    assert f"{num + 3} trials had begun by then" in told
