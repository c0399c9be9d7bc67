"""Factors: what varies, grouped and by stage, of every family; columns that say the same; what is refused."""

import math

import numpy as np
import pytest

from sweep.spaces import Architecture, Mlp, Stage, Vit
from sweep.statistics.factors.factors import MAX_LEVELS, Factors, factors_from_columns, factors_of


def columns(factors: Factors) -> dict[str, list[str]]:
    return {factor.name: [column.name for column in factor.columns] for factor in factors.factors}


def anynet(*stages: tuple[int, int, int, float], **parts) -> Architecture:
    return Architecture(tuple(Stage(*stage) for stage in stages), **parts)


ANYNETS = [
    anynet((1, 16, 8, 1), (2, 32, 8, 1), activation="relu"),
    anynet((2, 24, 4, 2), (3, 16, 4, 2), activation="gelu"),
    anynet((3, 8, 4, 1), (3, 64, 8, 2), activation="relu"),
    anynet((1, 40, 8, 1), (4, 48, 8, 1), activation="silu"),
]


def test_anynet_by_factor_groups_depths_and_widths_with_what_sums_them_up():
    found = columns(factors_of(ANYNETS))
    assert found["d"] == ["depth", "d growth", "d1", "d2"]
    assert found["w"] == ["w mean", "w growth", "w1", "w2"]
    assert set(found) == {"d", "w", "g", "b", "activation"}


def test_growth_and_mean_are_those_of_logarithms():
    factors = factors_of(ANYNETS)
    by_name = {column.name: column for column in factors.columns}
    growth = np.array(by_name["w growth"].levels)[by_name["w growth"].codes]
    np.testing.assert_allclose(growth, [1, math.log2(16 / 24), 3, math.log2(48 / 40)], atol=1e-8)
    mean = np.array(by_name["w mean"].levels)[by_name["w mean"].codes]
    np.testing.assert_allclose(mean, [4.5, math.log2(24 * 16) / 2, 4.5, math.log2(40 * 48) / 2])


def test_anynet_by_stage_has_a_factor_for_each_number():
    found = columns(factors_of(ANYNETS, by="stage"))
    assert list(found)[:4] == ["d1", "d2", "w1", "w2"]
    assert all(len(names) == 1 for names in found.values())


def test_what_all_stages_share_is_one_number():
    shared = [anynet((1, 16, g, b), (depth, 32, g, b)) for g, b, depth in ((8, 1, 1), (4, 1, 2), (4, 2, 3), (8, 2, 5))]
    for by in ("factor", "stage"):
        found = columns(factors_of(shared, by=by))
        assert (found["g"], found["b"]) == (["g"], ["b"])


def test_networks_in_one_group_have_no_group_width_of_their_own():
    plain = [anynet((1, width, width, 1), (2, 2 * width, 2 * width, 1)) for width in (16, 32, 48)]
    assert "g" not in columns(factors_of(plain))


def test_perceptrons_of_different_depths_are_summed_up():
    networks = [Mlp((64, 32)), Mlp((128,), skip=True), Mlp((32, 32, 32), norm="batch"), Mlp((16, 8), norm="layer")]
    found = columns(factors_of(networks))
    assert found == {"d": ["depth"], "w": ["w mean", "w growth"], "skip": ["skip"], "norm": ["norm"]}


def test_transformers_have_depth_and_width():
    networks = [Vit(4, 16, 2, 1), Vit(4, 48, 5, 3), Vit(4, 32, 3, 2), Vit(8, 32, 2, 2)]
    assert columns(factors_of(networks)) == {"d": ["depth"], "w": ["width"], "patch": ["patch"]}


def test_constant_columns_are_told_and_left_out():
    factors = factors_from_columns({"a": [1, 2, 3], "b": [5, 5, 5], "c": ["x", "x", "x"]})
    assert (factors.names, factors.constant) == (("a",), ("b", "c"))
    assert factors_from_columns({"b": [5, 5]}).factors == ()


def test_two_factors_that_say_the_same_are_one():
    width = np.array([16, 32, 64, 16, 128])
    factors = factors_from_columns(
        {"width": width, "heads": width / 16, "narrowness": -width, "other": [1, 2, 1, 1, 2]}
    )
    assert factors.names == ("width = heads = narrowness", "other")


def test_the_same_partition_says_the_same_for_categories_only():
    letters, numbers = ["x", "y", "z", "y"], [3, 1, 2, 1]
    assert factors_from_columns({"a": letters, "b": numbers}).names == ("a = b",)
    assert factors_from_columns({"a": [0, 1, 2, 1], "b": numbers}).names == ("a", "b")
    assert factors_from_columns({"a": [0, 1, 2, 1], "b": numbers}, categorical=["b"]).names == ("a = b",)


def test_many_numbers_are_cut_at_their_quantiles():
    values = np.random.default_rng(1).lognormal(size=1000)
    (column,) = factors_from_columns({"a": values}).columns
    assert len(column.levels) == MAX_LEVELS
    assert np.ptp(np.bincount(column.codes)) <= 2
    assert np.all(np.diff(column.levels) > 0)
    assert np.sum(np.array(column.levels)[column.codes]) == pytest.approx(values.sum())
    tied = np.where(values < np.median(values), 0.0, values)
    (column,) = factors_from_columns({"a": tied}).columns
    assert column.levels[0] == 0
    assert np.count_nonzero(column.codes == 0) == 500


def test_numbers_may_be_categories_and_flags_numbers():
    factors = factors_from_columns({"a": [2, 0, 1, 2], "b": [True, False, True, True]}, categorical=["a"])
    assert [column.is_category for column in factors.columns] == [True, False]
    assert factors.factors[0].encoded.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": {"a": [1.0, math.nan]}}, "a: 1 of 2 networks lack a finite value"),
        ({"columns": {"a": ["x", None]}}, "a: 1 of 2 networks lack"),
        ({"columns": {"a": [1, 2], "b": [1, 2, 3]}}, "columns: their lengths differ"),
        ({"columns": {"a": [[1, 2]]}}, "a: shape"),
        ({"columns": {"a": []}}, "a: shape"),
        ({"columns": {"a": [1, 2]}, "groups": {"w": ["b"]}}, "groups: there is no column 'b'"),
        ({"columns": {"a": [1, 2]}, "categorical": ["c"]}, "categorical: there is no column 'c'"),
        ({"columns": {"a": [1, 2]}, "groups": {"w": ["a"], "d": ["a"]}}, "groups: column 'a' is in two"),
    ],
)
def test_what_columns_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        factors_from_columns(**arguments)


def test_what_networks_are_refused():
    with pytest.raises(ValueError, match="networks: none"):
        factors_of([])
    with pytest.raises(ValueError, match=r"Architecture.*Mlp.*one family"):
        factors_of([ANYNETS[0], Mlp((8,))])
    with pytest.raises(ValueError, match="by: 'layer' is no resolution; choose one of factor, stage"):
        factors_of(ANYNETS, by="layer")
