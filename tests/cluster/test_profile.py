"""Profiles: what ships is valid, wrong ones are refused, and slots follow from what the machine has."""

import pytest

from cluster import Profile, load_profile, shipped_profiles
from sweep.scheduling.driver import Slots, _slots


def test_shipped_profiles_load():
    assert "laptop" in shipped_profiles()
    for name in shipped_profiles():
        assert load_profile(name).name == name


def test_a_profile_of_ones_own(tmp_path):
    path = tmp_path / "my machine.toml"
    path.write_text('name = "mine"\nnum_cpus = 3\ngpus_per_trial = 0.25\n')
    assert load_profile(path) == Profile(name="mine", num_cpus=3, gpus_per_trial=0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\ncpus_per_trail = 1', "cpus_per_trail"),
        ('name = "x"\ncpus_per_trial = 0', "cpus_per_trial"),
        ('name = "x"\naddress = "10.0.0.1"', "address"),
        ("name = ", "not valid TOML"),
        ("cpus_per_trial = 1", "name"),
    ],
)
def test_wrong_profiles_are_refused(tmp_path, text, said):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_profile(path)


@pytest.mark.parametrize(
    ("settings", "resources", "expected"),
    [
        ({}, {"CPU": 2}, Slots(2, 1, 0)),
        ({"cpus_per_trial": 2}, {"CPU": 5}, Slots(2, 2, 0)),
        ({}, {"CPU": 16, "GPU": 2}, Slots(2, 1, 1)),
        ({"gpus_per_trial": 0.25}, {"CPU": 16, "GPU": 1}, Slots(4, 1, 0.25)),
        ({"gpus_per_trial": 0.25}, {"CPU": 3, "GPU": 1}, Slots(3, 1, 0.25)),
        ({"gpus_per_trial": 0}, {"CPU": 4, "GPU": 1}, Slots(4, 1, 0)),
    ],
)
def test_slots_follow_from_the_machine(settings, resources, expected):
    assert _slots(Profile(name="x", **settings), resources) == expected


@pytest.mark.parametrize("settings", [{"cpus_per_trial": 8}, {"gpus_per_trial": 1}])
def test_a_trial_that_would_not_fit_is_refused(settings):
    with pytest.raises(ValueError, match="do not fit this machine"):
        _slots(Profile(name="x", **settings), {"CPU": 2})
