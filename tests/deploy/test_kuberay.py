"""cluster/kuberay: the manifests fit KubeRay's schemas, grant nothing that they need not, and agree with each other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster import load_profile
from cluster.node import _NODE_ENVIRONMENT, QUIET

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "kuberay"
(SCHEMAS,) = Path(__file__).parent.glob("kuberay-*.json")
KINDS = json.loads(SCHEMAS.read_text(encoding="utf-8"))["kinds"]
IN_IMAGE = {"RAY_USAGE_STATS_ENABLED"}


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def pod_specs() -> dict[str, dict[str, Any]]:
    cluster, job = manifest("raycluster")["spec"], manifest("rayjob")["spec"]
    return {
        "head": cluster["headGroupSpec"]["template"]["spec"],
        "worker": cluster["workerGroupSpecs"][0]["template"]["spec"],
        "submitter": job["submitterPodTemplate"]["spec"],
    }


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_manifests_fit_kuberays_schema(name: str):
    document = manifest(name)
    schema = KINDS[document["kind"]]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)] == []


def spoilt() -> Iterator[tuple[str, dict[str, Any]]]:
    wrong = manifest("raycluster")
    wrong["spec"]["authOptions"]["mode"] = "tokens"
    yield "an unknown mode", wrong
    wrong = manifest("raycluster")
    wrong["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    yield "a number where KubeRay wants a string", wrong
    wrong = manifest("raycluster")
    wrong["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["securityContexts"] = {}
    yield "a field that does not exist", wrong
    wrong = manifest("raycluster")
    del wrong["spec"]["workerGroupSpecs"][0]["groupName"]
    yield "a missing name", wrong


@pytest.mark.parametrize("document", [pytest.param(document, id=name) for name, document in spoilt()])
def test_the_schema_refuses_what_is_wrong(document: dict[str, Any]):
    assert not jsonschema.Draft202012Validator(KINDS["RayCluster"]).is_valid(document)


def test_the_job_brings_the_cluster_that_the_other_manifest_describes():
    assert manifest("rayjob")["spec"]["rayClusterSpec"] == manifest("raycluster")["spec"]


@pytest.mark.parametrize("pod", ["head", "worker", "submitter"])
def test_pods_run_without_privileges(pod: str):
    spec = pod_specs()[pod]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert {"/tmp", "/home/sweep"} <= writable <= {"/tmp", "/home/sweep", "/data"}


@pytest.mark.parametrize("pod", ["head", "worker"])
def test_ray_wants_the_token_of_a_secret(pod: str):
    options = manifest("raycluster")["spec"]["authOptions"]
    assert options["mode"] == "token"
    spec = pod_specs()[pod]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "ray-token"]
    assert volume["secret"]["secretName"] == options["secretName"]
    assert volume["secret"]["defaultMode"] == 0o400
    (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "ray-token"]
    assert environment(spec)["RAY_AUTH_TOKEN_PATH"] == f"{mount['mountPath']}/auth_token"


def environment(spec: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}


def test_nodes_have_the_settings_of_sweep_cluster_up():
    quiet = {name: value for name, value in QUIET.items() if name not in IN_IMAGE}
    token = {"RAY_AUTH_TOKEN_PATH": environment(pod_specs()["head"])["RAY_AUTH_TOKEN_PATH"]}
    assert environment(pod_specs()["head"]) == quiet | _NODE_ENVIRONMENT | token
    assert environment(pod_specs()["worker"]) == quiet | token
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert [name for name in IN_IMAGE if f"{name}={QUIET[name]}" not in dockerfile] == []


@pytest.mark.parametrize("pod", ["head", "worker"])
def test_kubernetes_asks_rays_nodes_how_they_are(pod: str):
    (container,) = pod_specs()[pod]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}
        assert container[probe]["failureThreshold"] * container[probe]["periodSeconds"] >= 60


def test_only_the_head_holds_mlflows_password_and_it_trains_nothing():
    mounted = {
        pod: {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        for pod, spec in pod_specs().items()
    }
    assert [pod for pod, paths in mounted.items() if "/home/sweep/.mlflow" in paths] == ["head"]
    assert manifest("raycluster")["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_manifests_agree_with_profile_image_and_lock():
    profile, claim = load_profile("kuberay"), manifest("runs")
    head = pod_specs()["head"]
    (runs,) = [mount for mount in head["containers"][0]["volumeMounts"] if mount["name"] == "runs"]
    assert runs["mountPath"] == profile.runs
    (volume,) = [volume for volume in head["volumes"] if volume["name"] == "runs"]
    assert (claim["kind"], claim["metadata"]["name"]) == (
        "PersistentVolumeClaim",
        volume["persistentVolumeClaim"]["claimName"],
    )
    assert f"--run-dir {profile.runs}/" in manifest("rayjob")["spec"]["entrypoint"]
    lock = (ROOT / "docker" / "requirements.lock").read_text(encoding="utf-8")
    assert re.findall(r"^ray(?:\[.*\])?==(\S+)", lock, flags=re.MULTILINE) == [
        manifest("raycluster")["spec"]["rayVersion"]
    ]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert profile.python.removesuffix("/bin/python") + " " in dockerfile
    assert f"USER {head['securityContext']['runAsUser']}:{head['securityContext']['runAsGroup']}" in dockerfile
