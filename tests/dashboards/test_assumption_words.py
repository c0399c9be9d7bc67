"""What cheap search rests on, as sentences: the space where it holds least, each number with interval, n and budget."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from dashboards import assumption_words as words
from sweep.statistics import Assumptions
from sweep.statistics.assumptions.assume import BudgetAgreement, NearBestOfSpace, SeedNoise
from sweep.statistics.assumptions.near_best import NearBest
from sweep.statistics.assumptions.ranks import RankAgreement
from sweep.statistics.assumptions.seed_noise import Reliability
from sweep.statistics.full_budget import Bounds
from sweep.statistics.intervals import UNKNOWN, IntervalEstimate


@pytest.fixture(scope="module")
def findings():
    return synthetic.found(synthetic.scaled(np.random.default_rng(0), trials_per_space=24))


def near(space: str, share: float, *, within: float = 1.0, low: float | None = 0.09, high: float | None = 0.31):
    draws = IntervalEstimate(18, None if low is None else 9, None if low is None else 1234)
    return NearBestOfSpace(
        "small", space, 4, NearBest(60, 29, within, 0.05, 15.52, IntervalEstimate(share, low, high), draws, 0.95, 0.95)
    )


def test_good_networks_are_told_where_they_are_rarest():
    found = [near("anynet_c", 0.3), near("anynet_d", 0.155), near("anynet_e", 0.01, within=3.0)]
    assert words.near_best_text(found) == (
        "Where they are rarest, in AnyNet D, 16 % (95 % interval 9 to 31 %) of the networks come within 1 point of the "
        "border of the best 5 %, 15.5 % error after 4 epochs (n = 60, 29 of them known): 18 random draws (9 to 1,234) "
        "hold one of them with 95 % probability."
    )
    assert words.near_best_text([near("anynet_c", 0.3)]).startswith("In AnyNet C, 30 %")
    # A share that has no interval says less than one that has.
    blind = near("anynet_e", 0.01, low=None, high=None)
    assert "in AnyNet D" in words.near_best_text([blind, *found])
    assert "1 % (no interval)" in words.near_best_text([blind])
    assert "18 random draws hold" in words.near_best_text([blind])
    unknown = replace(blind, near=replace(blind.near, share=UNKNOWN, draws=UNKNOWN))
    assert words.near_best_text([unknown]) == ""


def ranks(space: str, epochs: int, value: float | None, scale: str = "small") -> BudgetAgreement:
    spearman = UNKNOWN if value is None else IntervalEstimate(value, value - 0.5, 0.99)
    return BudgetAgreement(scale, space, epochs, 9, RankAgreement(60, 29, 20.0, spearman, UNKNOWN, 0.95))


def test_ranks_are_told_at_the_first_rung_and_at_the_last():
    found = [ranks("anynet_c", 1, 0.4), ranks("anynet_c", 2, 0.1), ranks("anynet_c", 4, 0.9), ranks("anynet_d", 1, 0.6)]
    assert words.budgets_text(found) == (
        "The rank correlation with the order at the end is at least 0.40 after 1 of 9 epochs (AnyNet C, 95 % interval "
        "−0.10 to 0.99, n = 60, 29 of them known); 0.90 after 4 of 9 epochs (AnyNet C, 95 % interval 0.40 to 0.99, "
        "n = 60, 29 of them known)."
    )
    two = words.budgets_text([ranks("anynet_c", 1, 0.4), ranks("anynet_c", 3, 0.8, "large")])
    assert "0.40 after 1 of 9 epochs at small (" in two
    assert "0.80 after 3 of 9 epochs at large (" in two
    assert words.budgets_text([ranks("anynet_c", 1, None)]) == ""


def noise(space: str, sd: float | None, of_ranks: IntervalEstimate = UNKNOWN) -> SeedNoise:
    return SeedNoise("small", space, 2, Reliability(60, 12, 12, of_ranks, UNKNOWN, sd, 0.9))


def test_seed_noise_is_told_where_it_does_most():
    found = [noise("anynet_c", 0.5), noise("anynet_d", 1.234, IntervalEstimate(0.81, 0.5, 0.93))]
    assert words.seeds_text(found) == (
        "Where it does most, in AnyNet D, another seed moves a network’s error after 2 epochs by a standard deviation "
        "of 1.23 points (12 networks repeated), and two seeds rank its networks with a correlation of 0.81 (90 % "
        "interval 0.50 to 0.93)."
    )
    assert words.seeds_text([noise("anynet_c", 0.5)]).endswith("(12 networks repeated).")
    assert words.seeds_text([noise("anynet_c", None)]) == "Too few networks were trained with several seeds to tell."
    assert words.seeds_text([]) == ""


def test_scales_are_told_where_they_agree_least_with_what_chance_gives(findings):
    found = findings.assumptions.scales
    text = words.scales_text(found)
    least = min(found, key=lambda one: one.ranks.observed.value)
    observed, choice = least.ranks.observed, least.choices[-1]
    assert text.startswith("From small (2 epochs) to large (2 epochs) the 24 networks of ")
    assert f"a rank correlation of {observed.value:.2f} (95 % interval {words.ends_text(observed)})" in text
    assert f"{words.decimal(least.ranks.corrected.value)} freed of the noise of single seeds" in text
    assert "the other 3 spaces more so." in text
    assert f"Its best 10 % at small ({choice.num_chosen} of 24) hold {100 * choice.recall.value:.0f} % (95 %" in text
    assert (
        f"by chance {100 * choice.random_recall:.0f} %; their median is {choice.typical_regret_pct.value:.1f}" in text
    )
    assert "the other space more so." in words.scales_text(found[:2])
    alone = replace(found[0], ranks=replace(found[0].ranks, corrected=UNKNOWN), choices=())
    assert not any(word in words.scales_text([alone]) for word in ("freed", "other", "best 10 %"))
    assert words.scales_text([replace(alone, ranks=replace(alone.ranks, observed=UNKNOWN))]) == ""


def test_rules_are_told_by_what_they_keep(findings):
    first, second, third = findings.assumptions.rules
    change = IntervalEstimate(-0.25, -1.0, 0.5)

    def decided(one, decision):
        return replace(one, effect=replace(one.effect, decision=decision, difference=change))

    told = words.rules_text([decided(first, "undecided"), decided(second, "same size"), decided(third, "changes sign")])
    numbers = "(the effect changes by −0.25 points from small to large, 95 % interval −1.00 to +0.50)"
    assert told == (
        f"Same size within ±0.5 points: “depths up” {numbers}; changes sign: “quantised widths” {numbers}; undecided: "
        f"“widths up” {numbers}."
    )
    many = [replace(first, space_without=f"anynet_{n}") for n in "abcde"]
    assert "changes by" not in words.rules_text(many)
    assert "“widths up” against AnyNet A" in words.rules_text(many)
    assert words.rules_text([]) == ""


def test_all_that_was_measured_is_told_in_order_and_nothing_else(findings):
    told = words.assumptions_told(findings.assumptions)
    assert [one.kind for one in told] == ["near_best", "budgets", "seeds", "scales", "rules"]
    assert words.assumptions_told(Assumptions((), (), (), (), ())) == []
    assert [one.kind for one in words.assumptions_told(replace(findings.assumptions, seeds=(), scales=()))] == [
        "near_best", "budgets", "rules"
    ]  # fmt: skip


def test_the_full_budget_says_by_which_right(findings):
    estimate = findings.estimates[0]
    known = replace(estimate, num_networks=1200, num_known=300, num_wanted_to_end=1000, num_audited=100)
    assert words.full_budget_texts([known]) == [
        "Early stopping ended 900 of 1,200 networks before their full budget. Of the 1,000 that it wanted to end, a "
        "lottery kept 100, drawn before they began; these stand for the others, so that what is told here is of all "
        "networks."
    ]
    every = replace(estimate, num_known=estimate.num_networks)
    assert words.full_budget_texts([every]) == ["Every network was trained to its full budget."]
    assert words.full_budget_texts([replace(estimate, mean=None, bounds=None)]) == []
    _, bounds = words.full_budget_texts([replace(known, mean=None, num_audited=0, bounds=Bounds(8.26, 51.0, 17.0))])
    assert bounds == (
        "AnyNet C has no estimate: the lottery kept none of the 1,000 networks that early stopping wanted to end, and "
        "two are the fewest. Whatever the others would have reached, the mean error of its 1,200 networks after 4 "
        "epochs lies between 8.3 and 51.0 % (at most 17.0 % if none ends worse than it was when it was stopped)."
    )


def test_ends_that_nobody_measured_are_not_shown_as_numbers():
    assert words.error_ends(IntervalEstimate(15.0, 0.0, 16.66)) == "up to 16.7"
    assert words.error_ends(IntervalEstimate(15.0, 14.0, 100.0)) == "from 14.0"
    assert words.error_ends(IntervalEstimate(15.0, 14.0, 16.0)) == "14.0 to 16.0"
    assert words.error_ends(IntervalEstimate(15.0, None, None)) == "no interval"
    assert words.decimal(-0.001) == "0.00"
