"""Profiles: what ships is valid, wrong ones are refused, and slots follow from what the machine has."""

import socket

import pytest

from cluster import Profile, Slots, load_profile, shipped_profiles
from cluster.profile import check_answers
from cluster.session import slots


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_shipped_profiles_load(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.jobs_address or name == "laptop"


def test_each_kind_of_place_ships():
    assert {"laptop", "lan", "ray_address", "slurm", "kuberay", "aws"} <= set(shipped_profiles())


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
        ('name = "x"\njobs = "10.0.0.1:8265"', "jobs = '10.0.0.1:8265': must be http"),
        ('name = "x"\ngpus_per_trial = "all"', "gpus_per_trial"),
        ('name = "x"\n[storage]\ncheckpoints = "here"', "storage.checkpoints = 'here': must be an absolute path"),
        ('name = "x"\n[storage]\ncheckpoints = "s3:///p"', "storage.checkpoints = 's3:///p': names no bucket"),
        ('name = "x"\n[storage]\nendpoint = "minio:9000"', "storage.endpoint"),
        ('name = "x"\n[tracking]\nuri = "http://me:secret@there"', "tracking.uri"),
        ('name = "x"\n[security]\ntls = true', "security.tls = True: unknown key; did you mean 'tls_dir'"),
    ],
)
def test_wrong_profiles_are_refused(tmp_path, text, said):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_profile(path)


def test_a_password_in_a_profile_is_not_repeated(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text('name = "x"\n[tracking]\nuri = "http://me:secret@there"')
    with pytest.raises(ValueError, match=r"MLFLOW_TRACKING_PASSWORD") as refused:
        load_profile(path)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "address", "jobs_address"),
    [
        ("10.0.0.10:6379", "10.0.0.10:6379", "http://10.0.0.10:8265"),
        ("http://10.0.0.10:9000", "auto", "http://10.0.0.10:9000"),
        ("https://ray.example/", "auto", "https://ray.example"),
        ("laptop", "local", ""),
    ],
)
def test_an_address_is_a_profile(source, address, jobs_address):
    profile = load_profile(source)
    assert (profile.address, profile.jobs_address) == (address, jobs_address)


def test_what_is_neither_file_nor_address_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'lann' is neither a file, nor host:port, nor .*\blan\b"):
        load_profile("lann")


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_a_profile_travels_as_a_file(tmp_path, name):
    (tmp_path / "profile.toml").write_text(load_profile(name).to_toml(), encoding="utf-8")
    assert load_profile(tmp_path / "profile.toml") == load_profile(name)


def test_awkward_values_travel_too(tmp_path):
    profile = Profile(
        name='Müller\'s "big" one', gpus_per_trial=0.25, python="/a b/python\t3",
        storage={"checkpoints": "/mnt/müller \\ co"}, security={"token_path": "~/my token"},
    )  # fmt: skip
    (tmp_path / "profile.toml").write_text(profile.to_toml(), encoding="utf-8")
    assert load_profile(tmp_path / "profile.toml") == profile


def test_an_address_where_nothing_answers_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_answers(f"127.0.0.1:{port}", "here")
        check_answers(f"http://127.0.0.1:{port}/path", "here")
    with pytest.raises(ValueError, match=rf"here = '127.0.0.1:{port}': nothing answers there \(.*sweep cluster up"):
        check_answers(f"127.0.0.1:{port}", "here")


@pytest.mark.parametrize(
    ("settings", "hosts", "expected"),
    [
        ({}, [{"CPU": 2}], Slots(2, 1, 0)),
        ({"cpus_per_trial": 2}, [{"CPU": 5}], Slots(2, 2, 0)),
        ({}, [{"CPU": 16, "GPU": 2}], Slots(2, 1, 1)),
        ({"gpus_per_trial": 0.25}, [{"CPU": 16, "GPU": 1}], Slots(4, 1, 0.25)),
        ({"gpus_per_trial": 0.25}, [{"CPU": 3, "GPU": 1}], Slots(3, 1, 0.25)),
        ({"gpus_per_trial": 0.4}, [{"CPU": 16, "GPU": 2}], Slots(4, 1, 0.4)),  # two a card; what is left holds none
        ({"gpus_per_trial": 2}, [{"CPU": 16, "GPU": 5}], Slots(2, 1, 2)),
        ({"gpus_per_trial": 0}, [{"CPU": 4, "GPU": 1}], Slots(4, 1, 0)),
        ({}, [{"CPU": 2}, {"CPU": 3}], Slots(5, 1, 0, 2)),
        ({"cpus_per_trial": 2}, [{"CPU": 3}, {"CPU": 3}], Slots(2, 2, 0, 2)),  # no trial lies on two hosts
        ({}, [{"CPU": 2}, {"CPU": 16, "GPU": 4}], Slots(4, 1, 1, 2)),  # a head without cards
        ({}, [{}, {"CPU": 1}], Slots(1, 1, 0, 2)),
    ],
)
def test_slots_follow_from_what_the_hosts_have(settings, hosts, expected):
    assert slots(Profile(name="x", **settings), hosts) == expected


@pytest.mark.parametrize(
    ("settings", "hosts", "offered"),
    [
        ({"cpus_per_trial": 8}, [{"CPU": 2}], "2 CPUs, 0 GPUs"),
        ({"gpus_per_trial": 1}, [{"CPU": 2}], "2 CPUs, 0 GPUs"),
        ({"gpus_per_trial": 0.5}, [{"CPU": 2}], "2 CPUs, 0 GPUs"),
        ({"gpus_per_trial": 2}, [{"CPU": 2, "GPU": 1}, {"CPU": 4, "GPU": 1}], "2 CPUs, 1 GPUs; 4 CPUs, 1 GPUs"),
        ({"cpus_per_trial": 3}, [{"CPU": 2}, {"CPU": 2}], "2 CPUs, 0 GPUs; 2 CPUs, 0 GPUs"),
        ({}, [], "none"),
    ],
)
def test_a_trial_that_would_not_fit_is_refused(settings, hosts, offered):
    with pytest.raises(ValueError, match=rf"do not fit any host \({offered}\); lower them"):
        slots(Profile(name="x", **settings), hosts)
