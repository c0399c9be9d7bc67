"""Pairs of a small and a large network, and repeats: by space and number, whole pairs alone."""

import pytest
from scaled import LARGE, scaled_study

from sweep.records import Journal, from_journal
from sweep.scheduling.population import draw_population
from sweep.statistics import repeats_of, scale_pairs


def tables_of(folder, study):
    trials, draws = draw_population(study)
    meta = {"study": study.to_dict(), "draws": [vars(draw) for draw in draws]}
    with Journal.create(folder, meta, trials) as journal:
        return from_journal(journal)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    own = {"name": "own", "flops_min": 2e5, "flops_max": 8e5}
    twice = {"name": "twice", "of": "again"}
    return tables_of(tmp_path_factory.mktemp("pairs"), scaled_study(*scaled_study().scale[1:], own, twice, num=6))


def test_pairs_have_one_space_and_one_number(tables):
    pairs = scale_pairs(tables, "small", "large")
    assert len(pairs) == len(set(pairs)) == 2 * 6
    for small, large in pairs:
        assert small.replace("-small-", "-large-") == large
    assert {small for small, _ in pairs} == {row for row in tables.trials["trial_id"].to_pylist() if "-small-" in row}
    assert scale_pairs(tables, "large", "small") == [
        (large, small)
        for large in tables.trials["trial_id"].to_pylist()
        for small, other in pairs
        if other == large
    ]  # fmt: skip


def test_of_a_part_only_whole_pairs_and_of_one_space_if_asked(tables):
    assert len(scale_pairs(tables, "small", "larger")) == 2 * 3
    [*pairs] = scale_pairs(tables, "large", "larger", space="anynet_c")
    assert len(pairs) == 3
    assert all(large.startswith("anynet_c-large-") for large, _ in pairs)


def test_repeats_are_those_of_a_scale_and_of_its_repeats(tables):
    small = repeats_of(tables, "small")
    assert len(small) == 2 * 2
    for trial_id, again in small.items():
        assert again == [trial_id.replace("small", "again"), trial_id.replace("small", "twice")]
    [*large] = repeats_of(tables, "large", space="anynet_d").items()
    assert all(again == [trial_id.replace("large", "large_again")] for trial_id, again in large)
    assert len(large) == 2
    assert repeats_of(tables, "larger") == {}
    architectures = dict(
        zip(tables.trials["trial_id"].to_pylist(), tables.trials["architecture_id"].to_pylist(), strict=True)
    )
    assert all(architectures[one] == architectures[other] for one, others in small.items() for other in others)


@pytest.mark.parametrize(
    ("small", "large", "words"),
    [
        ("small", "own", "'small' and 'own' make no pairs"),
        ("large", "large", "make no pairs"),
        ("small", "huge", "'huge' is none of the study's; name one of small, large"),
    ],
)
def test_scales_that_make_no_pairs_are_refused(tables, small, large, words):
    with pytest.raises(ValueError, match=words):
        scale_pairs(tables, small, large)


def test_a_sweep_that_was_extended_has_its_new_pairs_too(tmp_path):
    from sweep.scheduling.extend import extend

    tables_of(tmp_path, scaled_study(LARGE, num=2))
    extend(tmp_path, trials=2)
    with Journal.open(tmp_path, read_only=True) as journal:
        assert len(scale_pairs(from_journal(journal), "small", "large")) == 8
