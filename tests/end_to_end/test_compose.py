"""The team's cluster of docker/compose.yaml without containers: each service on a host of its own, by its settings.

`command`, `environment`, secrets, folders and health checks are compose.yaml's, with the passwords that init.sh draws;
programs run without any capability, as there. Stand-ins: Debian's PostgreSQL and Prometheus, moto for the store, and
a list of the workers for the DNS server that Docker brings. The hosts share one network, Grafana is left out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hosts import ROOT, Host, hosts
from needs import needs

from cluster.profile import shipped_profiles

pytestmark = pytest.mark.slow

SERVICES = ("postgres", "store", "mlflow", "ray-head", "ray-worker", "prometheus")
WORKERS = ("ray-worker", "ray-worker-2")
SETTINGS = [
    "trials_per_space=2", 'spaces=["anynet_c", "anynet_d"]', "data.num_train=512", "data.num_validation=250",
    "stopping.max_epochs=2", "stopping.grace_epochs=1", "stopping.reduction_factor=2", "judging.num_bootstrap=500",
]  # fmt: skip
OPTIONS = [word for setting in SETTINGS for word in ("--set", setting)]
NUM_TRIALS = 4
HOME = "/home/sweep"
PROGRAMS = {
    "sweep": [sys.executable, "-m", "sweep"],
    "healthy": [sys.executable, ROOT / "docker" / "healthy.py"],
    "make-bucket": [sys.executable, ROOT / "docker" / "make_bucket.py"],
}
# As `cap_drop` and `no-new-privileges` have it.
CONFINED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


class Service:
    """One service of compose.yaml on a host. `places`: what is mounted in its container -> where it lies here."""

    def __init__(self, name: str, host: Host, compose: dict[str, Any], folder: Path, log: Path):
        self.host, self.settings, self.log = host, compose["services"][name], log
        self.places = {HOME: host.home}
        for secret in self.settings.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            target = f"/run/secrets/{source}" if isinstance(secret, str) else secret["target"]
            self._mount(folder / compose["secrets"][source]["file"], target)
        for volume in self.settings.get("volumes", []):
            source, target = volume.split(":")[:2]
            self._mount(folder / source, target)
        self.process: subprocess.Popen[str] | None = None

    def _mount(self, source: Path, target: str) -> None:
        inside_home = target.startswith(f"{HOME}/")
        place = self.host.home / (target.removeprefix(f"{HOME}/") if inside_home else f"root{target}")
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, place)
        self.places[target] = place

    def here(self, text: str) -> str:
        """The same text with the container's paths as they are on this host."""
        paths = "|".join(map(re.escape, sorted(self.places, key=len, reverse=True)))
        return re.sub(rf"(?<![\w/])({paths})(?![\w-])", lambda found: str(self.places[found[1]]), text)

    @property
    def environment(self) -> dict[str, str]:
        return {name: self.here(str(value)) for name, value in self.settings.get("environment", {}).items()}

    def start(self, *stand_in: object) -> None:
        command = stand_in or [*CONFINED, *self.words(self.settings["command"])]
        with open(self.log, "w") as output:
            self.process = self.host.popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)

    def wait_until(self, ask: Callable[[], bool]) -> None:
        wait_for(lambda: self.process.poll() is not None or ask(), self.log.read_text, 90)
        assert self.process.poll() is None, f"{self.host.name} has ended:\n{self.log.read_text()}"

    def words(self, words: list[str]) -> list[object]:
        """Of a command; where the first is an option, the image names the program, and its name is the service's."""
        program = [self.host.name] if words[0].startswith("-") else PROGRAMS.get(words[0], words[:1])
        return [*program, *(self.here(word) for word in words if word.startswith("-") or word is not words[0])]

    def is_well(self) -> bool:
        """What its own health check says; `wget --spider URL` is asked by `healthy URL`."""
        check, *words = self.settings["healthcheck"]["test"]
        assert check == "CMD"
        if words[0] == "wget":
            words = ["healthy", words[-1]]
        return self.host.run(self.words(words), env={"PGHOST": self.host.address}, check=False).returncode == 0


def wait_for(ask: Callable[[], Any], complaint: Callable[[], str], timeout_s: float = 60) -> Any:
    """The first answer of `ask` that is something."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.3)
    return answer


def read_compose(folder: Path) -> dict[str, Any]:
    """compose.yaml as compose reads it beside the .env of init.sh."""
    lines = (folder / ".env").read_text(encoding="utf-8").splitlines()
    known = dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        assert name in known or kind == "-", f"{name}: {rest}"
        return known.get(name) or rest

    text = (folder / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text))


@pytest.fixture(scope="module")
def net() -> Iterator[dict[str, Host]]:
    needs("initdb", "postgres", "pg_isready", "prometheus", "curl", "setpriv")
    with hosts((*SERVICES, "ray-worker-2", "laptop")) as found:
        yield found


def list_workers(path: Path) -> None:
    """Prometheus asks a DNS server for the workers' addresses; here is none."""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    (asked,) = (found for found in settings["scrape_configs"] if "dns_sd_configs" in found)
    (names,) = asked.pop("dns_sd_configs")
    asked["static_configs"] = [{"targets": [f"{worker}:{names['port']}" for worker in WORKERS]}]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.fixture(scope="module")
def team(net: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Every service, well; a way to ask PostgreSQL and the bucket; what must not be known everywhere."""
    tmp_path = tmp_path_factory.mktemp("compose")
    folder, prometheus = tmp_path / "docker", tmp_path / "dashboards" / "prometheus"
    shutil.copytree(ROOT / "docker", folder)
    shutil.copytree(ROOT / "dashboards" / "prometheus", prometheus)
    list_workers(prometheus / "prometheus.yml")
    own = {"SWEEP_UID": str(os.getuid()), "SWEEP_GID": str(os.getgid())}
    subprocess.run(["bash", folder / "init.sh"], env=os.environ | own, check=True, capture_output=True)
    settings = (folder / ".env").read_text(encoding="utf-8")
    assert "SWEEP_WORKER_CPUS=2\n" in settings
    (folder / ".env").write_text(settings.replace("SWEEP_WORKER_CPUS=2", "SWEEP_WORKER_CPUS=1"), encoding="utf-8")
    compose = read_compose(folder)
    assert compose["services"]["ray-worker"]["deploy"]["replicas"] == str(len(WORKERS))

    def service(name: str, host: str) -> Service:
        return Service(name, net[host], compose, folder, tmp_path / f"{host}.log")

    services = {name: service(name, name) for name in SERVICES} | {WORKERS[1]: service(WORKERS[0], WORKERS[1])}
    bucket = service("bucket", "mlflow")
    start(services, bucket)

    def query(sql: str) -> list[Any]:
        code = "import json, sys, psycopg2; c = psycopg2.connect(sys.argv[1]).cursor(); c.execute(sys.argv[2]);"
        mlflow = services["mlflow"]
        uri = mlflow.environment["SWEEP_MLFLOW_BACKEND"]
        return json.loads(
            mlflow.host.python(f"{code} print(json.dumps(c.fetchall()))", uri, sql, env=mlflow.environment).stdout
        )

    def keys() -> list[str]:
        code = (
            "import json, os, boto3; s = boto3.client('s3', endpoint_url=os.environ['MLFLOW_S3_ENDPOINT_URL']);"
            "print(json.dumps([o['Key'] for o in s.list_objects_v2(Bucket='artifacts').get('Contents', [])]))"
        )
        return json.loads(bucket.host.python(code, env=bucket.environment).stdout)

    return SimpleNamespace(services=services, secrets=folder / "secrets", query=query, keys=keys)


def start(services: dict[str, Service], bucket: Service) -> None:
    """In the order of `depends_on`; the head alone does not wait for MLflow, which it wants for studies only."""
    postgres, store, mlflow, head, prometheus = (services[name] for name in SERVICES if name != "ray-worker")
    prometheus.start()
    head.start()
    store.start(*CONFINED, sys.executable, "-m", "moto.server", "--host", store.host.address, "--port", "8333")
    postgres.start(sys.executable, ROOT / "tests" / "postgres.py", postgres.host.home, postgres.host.address, "5432")
    postgres.wait_until(lambda: "ready" in postgres.log.read_text())
    answers = ["curl", "--silent", "--output", "/dev/null", bucket.environment["MLFLOW_S3_ENDPOINT_URL"]]
    store.wait_until(lambda: bucket.host.run(answers, check=False).returncode == 0)
    bucket.host.run(bucket.words(bucket.settings["command"]), env=bucket.environment)
    mlflow.start()
    head.wait_until(head.is_well)
    for name in WORKERS:
        services[name].start()
    for service in services.values():
        if service is not store:  # its check is SeaweedFS's own
            service.wait_until(service.is_well)


def status_of(host: Host, url: str, *options: str) -> str:
    asked = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *options, url]
    return host.run(asked).stdout


def test_nobody_gets_in_without_a_password(net: dict[str, Host], team: SimpleNamespace):
    laptop = net["laptop"]
    jobs = "http://ray-head:8265/api/jobs/"
    search = "http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1"
    assert [status_of(laptop, url) for url in (jobs, search)] == ["401", "401"]
    token, password = ((team.secrets / name).read_text() for name in ("ray_token", "mlflow_password"))
    assert status_of(laptop, jobs, "--header", f"Authorization: Bearer {token}") == "200"
    assert status_of(laptop, search, "--user", f"admin:{password}") == "200"
    assert status_of(laptop, search, "--user", f"admin:{password}x") == "401"


def test_head_knows_itself_by_its_name(net: dict[str, Host], team: SimpleNamespace):
    head = team.services["ray-head"]
    status = json.loads(head.host.sweep("cluster", "status", "--json", env=head.environment).stdout)
    assert [(node["kind"], node["host"]) for node in status["here"]] == [("head", "ray-head")]
    cores = {node["address"]: node["resources"].get("CPU", 0) for node in status["members"] if node["alive"]}
    assert cores == {"ray-head": 0} | {net[worker].address: 1 for worker in WORKERS}


def test_a_study_is_submitted_and_recorded(net: dict[str, Host], team: SimpleNamespace):
    laptop, head = net["laptop"], team.services["ray-head"]
    shutil.copy2(team.secrets / "ray_token", laptop.home / "compose_token")
    profile = laptop.home / "compose.toml"
    shipped = shipped_profiles()["compose"].read_text(encoding="utf-8")
    profile.write_text(head.here(shipped.replace("http://127.0.0.1:8265", "http://ray-head:8265")), encoding="utf-8")
    token = {"RAY_AUTH_TOKEN_PATH": str(laptop.home / "compose_token")}
    done = laptop.sweep("submit", "quickstart", "--on", profile, *OPTIONS, env=token, timeout=200)
    assert f"{NUM_TRIALS}/{NUM_TRIALS} trials ended" in done.stdout

    ((sweep_run, status),) = team.query(
        "SELECT r.run_uuid, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
        "AND t.key = 'kind' AND t.value = 'sweep'"
    )
    assert status == "FINISHED"
    trials = team.query(
        "SELECT t.value, count(*) FROM tags t JOIN tags p ON p.run_uuid = t.run_uuid AND p.key = 'mlflow.parentRunId' "
        f"AND p.value = '{sweep_run}' WHERE t.key = 'sweep.trial_id' GROUP BY 1"
    )
    assert [count for _, count in trials] == [1] * NUM_TRIALS
    keys = team.keys()
    (report,) = (key for key in keys if key.endswith(f"/{sweep_run}/artifacts/report.html"))
    assert report.startswith("mlflow/")
    assert (head.places["/data"] / "quickstart" / "report.html").is_file()


_ENVIRONMENTS = """
import json, pathlib
found = []
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    try:
        found.append(path.read_bytes().decode(errors="replace"))
    except OSError:
        pass  # it has ended meanwhile
print(json.dumps(found))
"""
# Ray overwrites what /proc tells of its own workers' environment, so that a task must say.
_OF_TASKS = """
import json
from cluster.keys import in_environment, ray_environment, token_file
with in_environment(ray_environment(token_file())):
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    @ray.remote
    def known():
        import os
        return dict(os.environ)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    print(json.dumps(ray.get([known.options(scheduling_strategy=On(node, False)).remote() for node in nodes])))
"""


def test_workers_know_the_token_and_nothing_else(net: dict[str, Host], team: SimpleNamespace):
    head = team.services["ray-head"]
    of_tasks = json.loads(head.host.python(_OF_TASKS, env=head.environment | {"PYTHONPATH": str(ROOT)}).stdout)
    assert len(of_tasks) == len(WORKERS)
    credentials = (team.secrets / "store_credentials").read_text().split()
    private = [(team.secrets / name).read_text() for name in ("mlflow_password", "postgres_password")]
    private += [credentials[3], credentials[-1]]
    for environment in of_tasks:
        assert not [name for name in environment if name.startswith(("AWS_", "MLFLOW_TRACKING_", "MLFLOW_S3_", "PG"))]
    for worker in (net[name] for name in WORKERS):
        environments = json.loads(worker.python(_ENVIRONMENTS).stdout)
        assert any("RAY_AUTH_TOKEN_PATH=" in one for one in environments)  # they can be read
        text = json.dumps([of_tasks, environments])
        assert [secret for secret in private if secret in text] == []
        # Ray writes what a job's tasks are to have in their environment into its log.
        assert holders((team.secrets / "ray_token").read_text(), worker) == [worker.home / "root/run/secrets/ray_token"]
        assert [holders(secret, worker) for secret in private] == [[]] * len(private)


def holders(secret: str, host: Host) -> list[Path]:
    """The files of a host that hold it."""
    files = [path for folder in (host.home, host.tmp) for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_prometheus_hears_of_every_node(net: dict[str, Host], team: SimpleNamespace):
    def ask(query: str) -> dict[str, str]:
        url = f"http://prometheus:9090/api/v1/query?query={query}"
        answer = json.loads(net["laptop"].run(["curl", "--silent", "--fail", "--globoff", url]).stdout)
        return {found["metric"].get("instance", ""): found["value"][1] for found in answer["data"]["result"]}

    nodes = dict.fromkeys(("ray-head:8080", "ray-worker:8080", "ray-worker-2:8080"), "1")
    wait_for(lambda: ask("up") == nodes, lambda: str(ask("up")))
    wait_for(lambda: set(ask("ray_node_mem_total")) == set(nodes), lambda: str(ask("ray_node_mem_total")))


def test_services_end_when_they_are_told(team: SimpleNamespace):
    """Within the time that compose gives them, and as ones that ended well."""
    ours = [team.services[name] for name in ("mlflow", "ray-head", *WORKERS, "prometheus")]
    for service in reversed(ours):
        service.process.terminate()
    assert [service.process.wait(timeout=60) for service in ours] == [0] * len(ours)
