"""The hosts that tests of a cluster run on: apart from one another, and gone without a trace."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest
from hosts import ROOT, hosts
from needs import needs
from processes import running

_LISTEN = """
import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7000), timeout=1)"


def _names_of_links() -> list[str]:
    return sorted(line.partition(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:])


def _namespaces(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid", "uts")}


def _anywhere() -> set[str]:
    """The namespaces of all processes: one that is in none of them is gone."""
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found |= _namespaces(pid)
    return found


def test_hosts_are_apart_and_reach_one_another():
    with hosts(("one", "two")) as net:
        one, two = net["one"], net["two"]
        server = one.popen([sys.executable, "-c", _LISTEN], stdout=PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        two.python(_CONNECT, one.address)
        two.python(_CONNECT, "one")
        assert two.python(_CONNECT, two.address, check=False).returncode == 1, "its ports are its own"

        one.cut()
        assert two.python(_CONNECT, one.address, check=False).returncode == 1
        one.python(_CONNECT, one.address)  # the host itself goes on
        one.heal()
        two.python(_CONNECT, one.address)

        for folder in ("~", "/tmp", "/dev/shm"):
            one.run(["sh", "-c", f"echo mine > {folder}/note"])
            assert two.run(["sh", "-c", f"cat {folder}/note"], check=False).returncode != 0
        assert (one.home / "note").read_text() == (one.tmp / "note").read_text() == "mine\n"
        assert one.run(["cat", "/proc/sys/kernel/hostname"]).stdout == "one\n"
        one.python("import sweep, pathlib, sys; assert pathlib.Path(sys.argv[1]).is_dir()", ROOT, cwd=ROOT)

        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == -signal.SIGTERM
        assert two.python(_CONNECT, one.address, check=False).returncode == 1


def test_a_killed_host_is_silent_and_the_others_go_on():
    with hosts(("one", "two")) as net:
        asleep = net["one"].popen(["sh", "-c", "echo ready; exec sleep 600"], stdout=PIPE)
        assert asleep.stdout is not None
        assert asleep.stdout.readline() == "ready\n"
        net["one"].kill()
        assert asleep.wait(10) == -signal.SIGKILL
        assert net["two"].run(["echo", "here"]).stdout == "here\n"


def test_nothing_of_the_outer_environment_gets_in(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI", "AWS_ACCESS_KEY_ID", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, "leaked")
    with hosts(("one",)) as net:
        assert "leaked" not in net["one"].run(["env"]).stdout


def _children_with_sleeper(seconds: int) -> set[psutil.Process]:
    """All processes below this one, once the sleeper is among them: it says `ready` a moment before it is."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = set(psutil.Process().children(recursive=True))
        with contextlib.suppress(psutil.NoSuchProcess):
            if sum(process.cmdline() == ["sleep", str(seconds)] for process in found) == 1:
                return found
        time.sleep(0.02)
    raise AssertionError(f"no `sleep {seconds}` was started")


@pytest.mark.parametrize("how", ["done", "failed", "hung"])
def test_nothing_is_left(how):
    links, children = _names_of_links(), set(psutil.Process().children(recursive=True))
    seen: dict[str, Any] = {}

    def work() -> None:
        with hosts(("one", "two")) as net:
            assert _names_of_links() == links, "the machine's own network is as it was"
            server = net["one"].popen(["sh", "-c", "trap '' TERM; setsid sleep 601 & echo ready; wait"], stdout=PIPE)
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            started = _children_with_sleeper(601) - children
            seen["namespaces"] = set().union(*(_namespaces(process.pid) for process in started)) - _namespaces(
                os.getpid()
            )
            seen["processes"], seen["folder"] = started, net["one"].home.parents[1]
            if how == "hung":
                net["two"].run(["sleep", "600"], timeout=0.2)
            if how == "failed":
                raise LookupError

    if how == "done":
        work()
    else:
        with pytest.raises(LookupError if how == "failed" else pytest.fail.Exception):
            work()
    assert not running(seen["processes"])
    assert len(seen["namespaces"]) == 9  # the switch's network, and four of each host
    assert not seen["namespaces"] & _anywhere()
    assert not seen["folder"].exists()
    assert _names_of_links() == links


def test_nothing_runs_on_after_tests_that_were_killed(tmp_path):
    needs("ip", "unshare", "nsenter", root=True)
    script = tmp_path / "killed.py"
    script.write_text(
        "import time\n"
        "from hosts import hosts\n"
        "with hosts(('one',)) as net:\n"
        "    net['one'].popen(['sleep', '602'])\n"
        "    print(net['one'].home.parents[1], flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": path}, stdout=PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = process.stdout.readline().strip()
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert len(gone) >= 4, "the switch, the host, its first process and what runs there"
    assert not alive
    assert folder.startswith("/tmp/hosts-")
    shutil.rmtree(folder)
