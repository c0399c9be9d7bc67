"""Bad input (18), by hypothesis: whatever stands in a study, it is taken or refused by field, value and remedy."""

import copy
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.studies import Study, load_study, study_from_dict

QUICKSTART = tomllib.loads((Path(__file__).parents[2] / "sweep/studies/quickstart.toml").read_text())

scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=30)
    | st.sampled_from(["../x", "\x00", "a" * 10_000, "anynet_c", "1e-3", -1, 0, 10**9, float("nan"), float("inf")])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(table: object, at: tuple = ()) -> list[tuple]:
    """Where something stands in a study: its tables and their fields, by keys and positions."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    return [place for key, value in items for place in ((*at, key), *places(value, (*at, key)))]


def put(table: dict, place: tuple, value: object) -> dict:
    table = copy.deepcopy(table)
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return table


def check_refusal(error: ValueError, place: tuple) -> None:
    text = str(error)
    assert text.strip()
    assert "pydantic" not in text
    assert "Traceback" not in text
    named = {str(key) for key in place if isinstance(key, str)}
    # A rule over several fields names those that it is about; every other refusal names the one that is wrong.
    assert any(name in text for name in named) or any(f in text for f in Study.model_fields), (place, text)


@settings(max_examples=400, deadline=None)
@given(place=st.sampled_from(places(QUICKSTART)), value=values)
def test_any_value_at_any_place_is_taken_or_refused_by_name(place, value):
    try:
        study = study_from_dict(put(QUICKSTART, place, value))
    except ValueError as error:
        check_refusal(error, place)
    else:
        assert study_from_dict(study.to_dict()).hash == study.hash


@settings(max_examples=200, deadline=None)
@given(key=st.text(min_size=1, max_size=20), value=scalars)
def test_unknown_keys_are_refused_wherever_they_stand(key, value):
    for place in ((), ("data",), ("recipe",), ("stopping",), ("scale", 0)):
        inner = QUICKSTART
        for step in place:
            inner = inner[step]
        if key in inner or (not place and key in Study.model_fields):
            continue
        with pytest.raises(ValueError) as caught:
            study_from_dict(put(QUICKSTART, (*place, key), value))
        assert "unknown key" in str(caught.value) or key in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_file_is_a_study_or_refused_by_name(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "study.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_study(path)
    assert "study" in str(caught.value) or "is missing" in str(caught.value) or "unknown key" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(override=st.text(max_size=40))
def test_any_override_is_taken_or_refused_by_name(override):
    try:
        load_study("quickstart", [override])
    except ValueError as error:
        check_refusal(error, ("--set", "study"))
