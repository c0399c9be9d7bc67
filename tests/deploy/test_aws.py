"""cluster/aws/cluster.yaml by Ray's own rules, without a call to Amazon: valid, closed, in step with the lock file."""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.aws.config import _create_default_inbound_rules
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster import load_profile
from cluster.node import _NODE_ENVIRONMENT, QUIET

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "cluster" / "aws" / "cluster.yaml"


@pytest.fixture
def settings() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def prepared(settings: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` makes it before its first call to Amazon."""
    return prepare_config(settings)


def test_ray_accepts_it(settings):
    validate_config(prepared(settings))


@pytest.mark.parametrize(
    "wrong", [{"max_workerz": 2}, {"head_node_type": "none"}, {"max_workers": 1}, {"idle_timeout_minutes": "soon"}]
)
def test_ray_would_refuse_a_wrong_one(settings, wrong):
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepared(settings | wrong))


def test_no_command_of_rays_defaults_runs_on_the_machines(settings):
    given = {name: settings[name] for name in settings if name.endswith("_commands")}
    merged = prepared(settings)
    assert merged["head_setup_commands"] == merged["worker_setup_commands"] == given["setup_commands"]
    assert merged["head_start_ray_commands"] == given["head_start_ray_commands"]
    assert merged["worker_start_ray_commands"] == given["worker_start_ray_commands"]


def test_only_ssh_is_open_to_the_world(settings):
    rules = _create_default_inbound_rules(
        {"sg-own"}, settings["provider"].get("security_group", {}).get("IpPermissions", [])
    )
    outside = [rule for rule in rules if rule.get("IpRanges") or rule.get("Ipv6Ranges")]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in outside] == [(22, 22)]
    assert not any("SecurityGroupIds" in kind["node_config"] for kind in settings["available_node_types"].values())


def test_the_job_server_listens_on_loopback_and_wants_the_token(settings):
    head, worker = settings["head_start_ray_commands"][-1], settings["worker_start_ray_commands"][-1]
    (host,) = re.findall(r"--dashboard-host=(\S+)", head)
    assert ipaddress.ip_address(host).is_loopback
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in command
    assert settings["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"


def test_nodes_have_the_settings_of_sweep_cluster_up(settings):
    head, worker = (
        set(settings[f"{kind}_start_ray_commands"][-1].replace(";", "").split()) for kind in ("head", "worker")
    )
    assert {f"{name}={value}" for name, value in (QUIET | _NODE_ENVIRONMENT).items()} <= head
    assert {f"{name}={value}" for name, value in QUIET.items()} <= worker


def test_head_trains_nothing_and_workers_are_spot_machines_with_cards(settings):
    kinds = settings["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    worker = kinds["gpu-worker"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert worker["min_workers"] == worker["max_workers"] == settings["max_workers"]
    profile = load_profile("aws")
    trials_by_cores = worker["resources"]["CPU"] / profile.cpus_per_trial
    assert trials_by_cores == worker["resources"]["GPU"] / profile.gpus_per_trial


def test_what_is_copied_is_there_and_no_secret_but_the_token(settings):
    local = [path for path in settings["file_mounts"].values() if not path.startswith("~")]
    assert [path for path in local if not (ROOT / path).exists()] == []
    assert not {"docker", "."} & set(local)


def test_ray_is_the_locked_one(settings):
    (locked,) = re.findall(
        r"^ray(?:\[.*\])?==(\S+)", (ROOT / "docker/requirements.lock").read_text(), flags=re.MULTILINE
    )
    assert f"ray[default,tune]=={locked}" in settings["setup_commands"][-1]
