"""Real heads and workers on this host, on loopback: who gets in, what is refused, what `down` ends."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests
from processes import running

from cluster import node
from cluster.keys import make_certs, token_file
from cluster.node import Node, Resources

SMALL = Resources(num_cpus=1, object_store_memory=80_000_000)


@contextmanager
def _user(home: Path) -> Iterator[pytest.MonkeyPatch]:
    """Be a user with a home of their own: token and notes are theirs."""
    with pytest.MonkeyPatch.context() as patch:
        home.mkdir(exist_ok=True)
        patch.setenv("HOME", str(home))
        for name in ("XDG_STATE_HOME", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        yield patch


@pytest.fixture
def user(tmp_path) -> Iterator[pytest.MonkeyPatch]:
    with _user(tmp_path / "home") as patch:
        yield patch


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    yield path
    with _user(path):
        node.down()


@pytest.fixture(scope="module")
def head(home) -> Node:
    """The head of the user whose home is `home`; tests below also use its port and token."""
    with _user(home):
        return node.up(port=_free_port(), dashboard_port=_free_port(), resources=SMALL)


@pytest.fixture
def unrelated() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no one may end but this fixture."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _port(head: Node) -> int:
    return int(head.gcs_address.rpartition(":")[2])


def _family(one: Node) -> list[psutil.Process]:
    assert one.process is not None
    return [one.process, *one.process.children(recursive=True)]


def _ask_jobs(head: Node, method: str, token: str | None) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"entrypoint": "echo ran"} if method == "POST" else None
    return requests.request(method, f"{head.dashboard}/api/jobs/", headers=headers, json=body, timeout=60)


def _runs_a_job(head: Node, token: str) -> bool:
    """Whether a job gets to its end there."""
    job = _ask_jobs(head, "POST", token).json()["submission_id"]
    for _ in range(120):
        answer = requests.get(
            f"{head.dashboard}/api/jobs/{job}", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ).json()
        if answer["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
            return answer["status"] == "SUCCEEDED"
        time.sleep(0.5)
    return False


# -- a head that stands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_jobs_want_the_token(head, home, method):
    token = (home / ".ray" / "auth_token").read_text()
    assert _ask_jobs(head, method, None).status_code == 401
    assert _ask_jobs(head, method, "0" * 64).status_code == 403
    assert _ask_jobs(head, method, token).status_code == 200


def test_the_token_is_on_no_command_line_and_in_no_note(head, home):
    token = (home / ".ray" / "auth_token").read_text()
    assert not [process for process in _family(head) if token in " ".join(process.cmdline())]
    written = [path for path in (home / ".local").rglob("*") if path.is_file()]
    assert len(written) == 2  # a note, and what `ray start` printed
    assert not [path for path in written if token in path.read_text(errors="replace")]
    assert Path(head.log).stat().st_mode & 0o077 == 0


def test_a_head_is_remembered(head, home):
    with _user(home):
        assert node.nodes_here() == [head]
        (member,) = node.members(head)
    assert member["alive"]
    assert member["resources"]["CPU"] == member["available"]["CPU"] == 1
    with _user(home.parent / "someone else"):
        assert node.nodes_here() == []
        assert node.down() == []
    assert head.process is not None


def test_a_port_in_use_is_refused(head, home):
    with _user(home):
        with pytest.raises(ValueError, match=rf"--port {_port(head)}: cannot be used on 127.0.0.1 \(.*in use\)"):
            node.up(port=_port(head), dashboard_port=_free_port(), resources=SMALL)
        taken = int(head.dashboard.rpartition(":")[2])
        with pytest.raises(ValueError, match=rf"--dashboard-port {taken}: cannot be used on 127.0.0.1"):
            node.up(port=_free_port(), dashboard_port=taken, resources=SMALL)
        assert node.nodes_here() == [head]


def test_a_worker_joins_and_is_ended_alone(head, home):
    with _user(home):
        worker = node.join(head.gcs_address, resources=SMALL)
        assert {one.kind for one in node.nodes_here()} == {"head", "worker"}
        assert [member["alive"] for member in node.members(head)] == [True, True]
        family = _family(worker)
        node.stop(worker)
        assert not running(family)
        assert node.nodes_here() == [head]
        assert head.process is not None


def test_a_worker_with_another_token_does_not_get_in(head, home, tmp_path):
    with _user(home) as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "another"))
        (tmp_path / "another").write_text("1" * 64)
        with pytest.raises(ValueError, match=rf"token: .*another' is not the one of the cluster at {head.gcs_address}"):
            node.join(head.gcs_address, resources=SMALL)
        with pytest.raises(RuntimeError, match="does not answer"):
            node.members(head)
    with _user(home):
        assert node.nodes_here() == [head], "nothing is left of it"
        assert len([member for member in node.members(head) if member["alive"]]) == 1


@pytest.mark.slow
def test_down_ends_what_this_user_started_and_nothing_else(head, home, tmp_path, unrelated):
    with _user(tmp_path / "another user"):
        other = node.up(port=_free_port(), dashboard_port=_free_port(), resources=SMALL)
        other_token = token_file().read_text()
    with _user(home):
        assert _runs_a_job(head, token_file().read_text())
        family = _family(head)
        assert len(family) > 5
        assert node.down() == [head]
        assert not running(family)
        assert node.nodes_here() == node.down() == []
        assert unrelated.poll() is None
    with _user(tmp_path / "another user"):
        assert _runs_a_job(other, other_token), "two heads on one host do not get in each other's way"
        family = _family(other)
        assert node.down() == [other]
    assert not running(family)


# -- refused before anything is started -------------------------------------------------------------------------


def test_no_head_is_open_to_others_without_a_token(user):
    user.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ValueError, match=r"--host 10\.0\.0\.10: RAY_AUTH_MODE=disabled would let anyone"):
        node.up("10.0.0.10")
    assert node.nodes_here() == []


def test_an_address_of_another_host_is_refused(user):
    with pytest.raises(ValueError, match=r"--port 6379: cannot be used on 192\.0\.2\.77 .*an address of this host"):
        node.up("192.0.2.77")


@pytest.mark.parametrize("address", ["10.0.0.10", "head", ":6379", "10.0.0.10:ray"])
def test_what_is_no_address_is_refused(user, address):
    with pytest.raises(ValueError, match=rf"ADDRESS '{address}': must be host:port"):
        node.join(address)


def test_a_head_that_does_not_answer_is_refused(user):
    port = _free_port()
    with pytest.raises(ValueError, match=rf"ADDRESS 127\.0\.0\.1:{port}: nothing answers there"):
        node.join(f"127.0.0.1:{port}")


def test_a_worker_without_a_token_is_refused(user):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ValueError, match=r"token: .* is missing; copy it from the head"),
    ):
        node.join(f"127.0.0.1:{server.getsockname()[1]}")


def test_certificates_that_are_not_there_are_refused(user, tmp_path):
    with pytest.raises(ValueError, match=r"tls_dir = .*: ca.crt is missing"):
        node.up(port=_free_port(), dashboard_port=_free_port(), resources=replace(SMALL, tls_dir=str(tmp_path)))


def test_tls_wants_the_hosts_own_address(user, tmp_path):
    (certificates,) = make_certs(tmp_path, ["127.0.0.1"])
    with pytest.raises(ValueError, match=r"--host 127\.0\.0\.1: with TLS name this host's own address"):
        node.up(port=_free_port(), dashboard_port=_free_port(), resources=replace(SMALL, tls_dir=str(certificates)))


@pytest.mark.parametrize("port", [10_002, 19_999])
def test_ports_of_rays_workers_are_refused(user, port):
    with pytest.raises(ValueError, match=rf"--port {port}: Ray's workers take 10002 to 19999"):
        node.up(port=port, dashboard_port=_free_port(), resources=SMALL)


def test_what_ray_itself_refuses_is_told_in_its_words(user):
    wanted = replace(SMALL, object_store_memory=1)
    with pytest.raises(RuntimeError, match=r"(?s)ray start ended with code \d+.*The end of .*object store"):
        node.up(port=_free_port(), dashboard_port=_free_port(), resources=wanted)
    assert node.nodes_here() == []


# -- notes ------------------------------------------------------------------------------------------------------


def _note(host: str, pid: int, started_at_s: float) -> Path:
    one = Node("worker", host, "10.0.0.10:6379", "", pid, started_at_s, "")
    path = Path.home() / ".local" / "state" / "designspace-sweep" / "nodes" / f"worker-{host}-{pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(vars(one)))
    return path


def test_a_process_that_merely_has_the_number_of_a_node_is_let_be(user, unrelated):
    stale = _note("127.0.0.1", unrelated.pid, psutil.Process(unrelated.pid).create_time() - 100)
    assert node.nodes_here() == node.down() == []
    assert unrelated.poll() is None
    assert not stale.exists()


def test_a_note_of_another_host_is_kept_for_it(user):
    """Home directories are often shared between hosts."""
    note = _note("192.0.2.77", os.getpid(), psutil.Process().create_time())
    assert node.nodes_here() == node.down() == []
    assert note.exists()


def test_a_node_that_ends_by_itself_while_it_is_ended_is_no_error(user):
    """A worker that has lost its head ends at any moment: here just before it is told to."""

    class Ending(psutil.Process):
        def send_signal(self, sig):
            process.kill()
            process.wait()
            super().send_signal(sig)

    with subprocess.Popen(["sleep", "600"]) as process:
        note = _note("127.0.0.1", process.pid, psutil.Process(process.pid).create_time())
        user.setattr(psutil, "Process", Ending)
        (ended,) = node.down()
    assert ended.pid == process.pid
    assert not note.exists()
