"""`sweep cluster …` as people type it: what it prints, its exit codes, what it starts and ends."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest
from processes import running

SMALL = ("--num-cpus", "1", "--object-store-memory", "80000000")
Sweep = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cluster(sweep_cli, tmp_path) -> Iterator[Sweep]:
    """`sweep cluster ARGUMENTS…` of a user with a home of their own, in which nothing runs afterwards."""
    env = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1"}

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return sweep_cli("cluster", *arguments, env={**env, **options.pop("env", {})}, cwd=tmp_path, **options)

    yield run
    run("down")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _ports() -> tuple[object, ...]:
    return ("--port", _free_port(), "--dashboard-port", _free_port())


def _only_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_a_cluster_from_up_to_down(cluster, tmp_path):
    metrics = _free_port()
    up = cluster("up", *_ports(), *SMALL, "--metrics-port", metrics, "--json")
    assert up.returncode == 0, up.stderr
    head = json.loads(up.stdout)
    assert (head["kind"], head["host"]) == ("head", "127.0.0.1")
    assert f"sweep cluster join {head['gcs_address']}" in up.stderr
    assert f"sweep submit STUDY --on {head['dashboard']}" in up.stderr
    with socket.create_connection(("127.0.0.1", metrics), timeout=30):
        pass  # where Prometheus finds the node

    join = cluster("join", head["gcs_address"], *SMALL)
    assert join.returncode == 0, join.stderr
    assert join.stdout.startswith("worker 127.0.0.1 is up (process ")
    assert "sweep cluster down" in join.stdout

    status = cluster("status", "--json")
    assert status.returncode == 0, status.stderr
    told = json.loads(status.stdout)
    assert [node["kind"] for node in told["here"]] == ["head", "worker"]
    assert [member["alive"] for member in told["members"]] == [True, True]
    assert [member["available"]["CPU"] for member in told["members"]] == [1, 1]
    shown = cluster("status").stdout
    assert shown.startswith(f"head on this host, cluster of {head['gcs_address']}\n")
    assert shown.count("alive") == 2
    assert shown.count("1 of 1") == 2

    again = cluster("up", "--port", head["gcs_address"].rpartition(":")[2], "--dashboard-port", _free_port(), *SMALL)
    assert again.returncode == 2
    assert again.stdout == ""
    assert "cannot be used on 127.0.0.1" in again.stderr

    processes = [psutil.Process(node["pid"]) for node in told["here"]]
    down = cluster("down")
    assert down.returncode == 0
    worker_line, head_line = _only_lines(down.stdout)
    assert worker_line.startswith("worker 127.0.0.1 ")
    assert head_line.startswith("head 127.0.0.1 ")
    assert not running(processes)
    assert not list((tmp_path / "state").rglob("*.json")), "no note is left"


def test_where_nothing_runs(cluster):
    status = cluster("status")
    assert (status.returncode, status.stdout) == (1, "")
    assert "sweep cluster up" in status.stderr
    status = cluster("status", "--json")
    assert (status.returncode, json.loads(status.stdout)) == (1, {"here": [], "members": []})
    down = cluster("down")
    assert (down.returncode, down.stdout) == (0, "")
    assert "nothing to end" in down.stderr


@pytest.fixture
def in_foreground(cluster, tmp_path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """`sweep cluster up --foreground`, and the processes of its node, the first of them first."""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "sweep", "cluster", "up", *map(str, _ports()), *SMALL, "--json", "--foreground"]
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=subprocess.DEVNULL, text=True) as verb:
        try:
            assert verb.stdout is not None
            head = json.loads("".join(iter(verb.stdout.readline, "}\n")) + "}")
            process = psutil.Process(head["pid"])
            yield verb, [process, *process.children(recursive=True)]
        finally:
            verb.kill()


def test_in_the_foreground_a_node_ends_with_its_verb(cluster, in_foreground):
    verb, family = in_foreground
    assert len(json.loads(cluster("status", "--json").stdout)["here"]) == 1
    verb.send_signal(signal.SIGTERM)
    assert verb.wait(60) == 0
    assert not running(family)
    assert cluster("status").returncode == 1


def test_in_the_foreground_a_node_that_is_lost_is_a_failure(in_foreground):
    verb, family = in_foreground
    family[0].kill()
    assert verb.wait(60) == 1
    for left in running(family):
        left.kill()  # Ray's agents look for their node once in a while only; then they end by themselves


def test_the_token_alone_is_data(cluster, tmp_path):
    first = cluster("token")
    assert first.returncode == 0
    path = tmp_path / ".ray" / "auth_token"
    assert first.stdout == path.read_text().strip() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in first.stderr
    assert first.stdout.strip() not in first.stderr
    assert cluster("token").stdout == first.stdout
    named = cluster("token", env={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "elsewhere")})
    assert named.stdout == (tmp_path / "elsewhere").read_text().strip() + "\n" != first.stdout


def test_certificates(cluster, tmp_path):
    made = cluster("certs", "my certs", "--host", "10.0.0.10", "--host", "gpu-1.lan")
    assert made.returncode == 0, made.stderr
    folders = [Path(line) for line in _only_lines(made.stdout)]
    assert folders == [Path("my certs/10.0.0.10"), Path("my certs/gpu-1.lan")]
    for folder in folders:
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["ca.crt", "node.crt", "node.key"]
    assert "ca.key" in made.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "--host", "192.0.2.77"), "an address of this host"),
        (("up", "--port", "70000"), "--port"),
        (("up", "--object-store-memory", "1"), "--object-store-memory"),
        (("up", *_ports(), "--tls-dir", "nowhere"), "ca.crt is missing"),
        (("join", "10.0.0.10"), "must be host:port"),
        (("join", "127.0.0.1:1"), "nothing answers there"),
        (("join",), "ADDR:PORT"),
        (("certs", "here"), "--host"),
        (("certs", "here", "--host", "a/b"), "is neither an address nor a host's name"),
        (("upp",), "upp"),
    ],
)
def test_bad_input(cluster, tmp_path, arguments, said):
    refused = cluster(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / "state").rglob("*.json"))


def test_no_head_is_open_to_others_without_a_token(cluster):
    refused = cluster("up", "--host", "10.0.0.10", env={"RAY_AUTH_MODE": "disabled"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "RAY_AUTH_MODE=disabled would let anyone" in refused.stderr
