"""fANOVA on full factorials whose shares are known, and on inputs that say nothing."""

import json

import numpy as np
import pytest

from sweep.statistics.factors.crossfit import FEWEST_NETWORKS
from sweep.statistics.factors.factors import factors_from_columns
from sweep.statistics.factors.fanova import Fanova, fanova

LEVELS = np.array(list(np.ndindex(4, 4, 4)), dtype=float) - 1.5  # every combination of a, b and c, each −1.5 to 1.5
A, B, C = LEVELS.T


def analysed(errors: np.ndarray, **groups: list[str]) -> Fanova:
    factors = factors_from_columns({"a": A, "b": B, "c": C}, groups=groups)
    found = fanova(factors, errors, rng=np.random.default_rng(1))
    assert found is not None
    return found


def test_additive_function_is_all_main_effects():
    found = analysed(20 + A + 2 * B)
    shares = {share.factor: share for share in found.factors}
    assert found.share_main > 0.99
    assert [share.factor for share in found.factors] == ["b", "a", "c"]
    assert shares["b"].main == pytest.approx(0.8, abs=0.01)
    assert shares["a"].main == pytest.approx(0.2, abs=0.01)
    assert shares["c"].total < 0.002
    assert found.variance_pct2 == pytest.approx(5 * 1.25, rel=0.02)


def test_pure_interaction_is_all_in_its_pair():
    found = analysed(20 + A * B)
    assert found.share_main < 0.02
    assert (found.pairs[0].first, found.pairs[0].second) == ("a", "b")
    assert found.pairs[0].share > 0.95
    totals = {share.factor: share.total for share in found.factors}
    assert min(totals["a"], totals["b"]) > 0.95
    assert totals["c"] < 0.03


def test_interaction_within_a_group_is_its_main_effect():
    found = analysed(20 + A * B, w=["a", "b"])
    assert found.share_main > 0.97
    assert found.factors[0].factor == "w"


def test_mixed_function_has_the_shares_of_its_analysis_of_variance():
    found = analysed(20 + A + C + 0.8 * A * B)  # variances 1.25, 1.25 and 0.64 · 1.25²
    assert found.share_main == pytest.approx(2.5 / 3.5, abs=0.02)
    assert found.pairs[0].share == pytest.approx(1.0 / 3.5, abs=0.02)
    assert found.share_main + found.share_pairs + found.share_higher == pytest.approx(1)


def test_categories_need_no_order():
    categories = np.array(["x", "y", "z", "u"])[(A + 1.5).astype(int)]
    factors = factors_from_columns({"a": categories, "b": B})
    found = fanova(factors, 20 + 3.0 * np.isin(categories, ["x", "z"]), rng=np.random.default_rng(1))
    assert found.factors[0].factor == "a"
    assert found.factors[0].main > 0.97


def test_order_of_the_seed_repeats_and_the_result_is_json():
    first, second = analysed(20 + A * B + C), analysed(20 + A * B + C)
    assert first == second
    assert json.loads(json.dumps(first.to_dict()))["num_networks"] == 64


def test_none_where_the_data_say_nothing():
    assert analysed_or_none(A, np.full(64, 20.0)) is None
    assert analysed_or_none(np.ones(64), A) is None
    assert analysed_or_none(A[: FEWEST_NETWORKS - 1], B[: FEWEST_NETWORKS - 1]) is None


def analysed_or_none(column: np.ndarray, errors: np.ndarray) -> Fanova | None:
    return fanova(factors_from_columns({"a": column}), errors, rng=np.random.default_rng(1))


def test_errors_are_refused_that_are_missing_or_too_few():
    factors = factors_from_columns({"a": A})
    with pytest.raises(ValueError, match=r"errors: shape \(3,\) for 64 networks"):
        fanova(factors, np.ones(3), rng=np.random.default_rng(1))
    with pytest.raises(ValueError, match="errors: 2 of 64 are not finite; count a diverged network at chance level"):
        fanova(factors, np.where(np.arange(64) < 2, np.nan, 20.0), rng=np.random.default_rng(1))
