"""Hosts on one machine: `with hosts() as net: net["w1"].run(["curl", net["head"].address])`.

In: names. Out: for each a `Host`, which has processes, a network address, a host name, a home, /tmp and /dev/shm of its
own, as Linux namespaces keep them apart; the rest of the disk is shared, so this Python and this project are found
in each. The hosts see one another, by address and by name, through a switch that leads nowhere else: the network of
the machine is neither used nor changed, and any number of such nets may stand side by side. When the `with` ends, or
this process, however it ends, all their processes are ended; then the kernel takes their network away.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from needs import needs

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("head", "w1", "w2", "laptop")
_KEPT = (
    "LANG", "LC_ALL", "TERM", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "MPLBACKEND", "SWEEP_DATA_DIR", "SWEEP_TEST_SESSION",
)  # fmt: skip
"""Of this process's environment; by the last one conftest.py finds what a test has left behind."""
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

_SWITCH = "ip link add switch type bridge && ip link set switch up && echo ready && exec sleep infinity"
# The first process of a host: what is at home under /tmp is mounted there again, then it reaps whatever loses its
# parent, as an init does: a process that waits for such a one to be gone would wait in vain.
_INIT = """
set -eu
mount --make-rprivate /
echo "$1" > /proc/sys/kernel/hostname
ip link set lo up
mount -t tmpfs -o size=2g tmpfs /dev/shm
own_tmp=$2/tmp; mount --bind "$2/etc-hosts" /etc/hosts
[ ! -e /etc/resolv.conf ] || mount --bind "$2/etc-resolv" /etc/resolv.conf
shift 2
for folder; do mkdir -p "$own_tmp/${folder#/tmp/}"; mount --rbind "$folder" "$own_tmp/${folder#/tmp/}"; done
mount --rbind "$own_tmp" /tmp
sleep infinity &
echo ready
while :; do wait || :; done
"""


class _Inside(subprocess.Popen[str]):
    """A command in a host. Signals go to the command, not to the `nsenter` that waits for it and ends as it does."""

    def send_signal(self, sig: int) -> None:
        deadline = time.monotonic() + 10
        while self.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                for command in psutil.Process(self.pid).children():
                    command.send_signal(sig)
                    return
            time.sleep(0.01)


class Host:
    """`home` is the same path inside and outside, and no other host sees it; `tmp` is the host's /tmp from outside."""

    def __init__(self, name: str, address: str, folder: Path, init: psutil.Process, switch_pid: int):
        self.name, self.address = name, address
        self.home, self.tmp = folder / "home", folder / "tmp"
        self._init, self._switch_pid = init, switch_pid
        self._commands: list[subprocess.Popen[str]] = []

    def environment(self) -> dict[str, str]:
        """What a fresh login would find: nothing of Ray's or MLflow's but that nothing is to be sent anywhere."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return kept | quiet | {"HOME": str(self.home), "PATH": _PATH}

    def popen(
        self,
        command: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a command here, in `cwd` (the home); `env` is laid over the host's own; `options` as Popen's."""
        enter = ["nsenter", f"--target={self._init.pid}", "--mount", "--net", "--pid", "--uts", "--"]
        process = _Inside(
            [*enter, "env", f"--chdir={cwd or self.home}", *map(str, command)],
            env={**self.environment(), **(env or {})},
            **{"text": True, "encoding": "utf-8", "stdin": subprocess.DEVNULL, **options},
        )
        self._commands.append(process)
        return process

    def run(
        self,
        command: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end. With `check` another exit code than 0 fails the test, as a timeout does."""
        process = self.popen(command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = [str(word)[:200] for word in command]
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            printed = [(text or b"").decode(errors="replace") for text in (error.stdout, error.stderr)]
            pytest.fail(f"{self.name}: {said} ran longer than {timeout} s\n" + "\n".join(printed))
        if check and process.returncode:
            pytest.fail(f"{self.name}: {said} ended with code {process.returncode}\n{stdout}\n{stderr}")
        return subprocess.CompletedProcess(said, process.returncode, stdout, stderr)

    def python(self, code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Python code here, with `arguments` in sys.argv[1:]."""
        return self.run([sys.executable, "-c", code, *arguments], **options)

    def sweep(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `sweep ARGUMENTS…` here."""
        return self.run([sys.executable, "-m", "sweep", *arguments], **options)

    def share_token(self, *others: "Host") -> str:
        """Copy the token of a cluster from here to other hosts, as its users would, and answer it."""
        token = self.sweep("cluster", "token").stdout.strip()
        for other in others:
            folder = other.home / ".ray"
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "auth_token").touch(mode=0o600)
            (folder / "auth_token").write_text(token)
        return token

    def cut(self) -> None:
        """Pull the cable; the host's own processes go on."""
        self._link("down")

    def heal(self) -> None:
        """Plug it in again."""
        self._link("up")

    def _link(self, state: str) -> None:
        _in_net(self._switch_pid, "ip", "link", "set", self.name, state)

    def kill(self) -> None:
        """Pull the plug: every process of the host is gone at once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._init.kill()
        psutil.wait_procs([self._init], timeout=10)

    def close(self) -> None:
        """As `kill`; also reap what `popen` started."""
        self.kill()
        for process in self._commands:
            process.wait(timeout=10)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@contextlib.contextmanager
def hosts(names: Sequence[str] = NAMES) -> Iterator[dict[str, Host]]:
    """Hosts by name, at 10.77.0.10, .11, …; skips the test where they cannot be had (this needs root)."""
    needs("ip", "unshare", "nsenter", root=True)
    base = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))
    started: list[subprocess.Popen[str]] = []
    found: dict[str, Host] = {}
    try:
        addresses = {name: f"10.77.0.{10 + number}" for number, name in enumerate(names)}
        started.append(_first_process(["--net", "bash", "-c", _SWITCH]))
        switch_pid = started[0].pid
        for name, address in addresses.items():
            folder = _folder(base / name, addresses)
            namespaces = ["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
            started.append(
                _first_process(
                    [*namespaces, "bash", "-c", _INIT, "init", name, str(folder), *map(str, _under_tmp(folder))]
                )
            )
            (init,) = psutil.Process(started[-1].pid).children()
            _plug_in(name, address, init.pid, switch_pid)
            found[name] = Host(name, address, folder, init, switch_pid)
        yield found
    finally:
        for host in found.values():
            host.close()
        for process in started:
            process.kill()  # of a host: with it goes its first process, and with that every other
        for process in started:
            process.wait()
        _await_end_of_all_in(base)
        shutil.rmtree(base)


def _first_process(unshare: list[str]) -> subprocess.Popen[str]:
    """In namespaces of its own by the time this returns, and ended with this process."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "unshare", *unshare],
        env={**os.environ, "PATH": _PATH}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        if process.stdout.readline() == "ready\n":
            return process
        process.kill()
        process.wait()
        raise RuntimeError(f"a host of the test does not start: {process.stderr.read().strip()}")


def _folder(folder: Path, addresses: Mapping[str, str]) -> Path:
    (folder / "home").mkdir(parents=True)
    (folder / "tmp").mkdir()
    known = "".join(f"{address} {name}\n" for name, address in addresses.items())
    (folder / "etc-hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{known}")
    (folder / "etc-resolv").write_text("")  # a question for another name fails at once
    return folder


def _under_tmp(folder: Path) -> list[Path]:
    """What must be seen in the host although its /tmp is its own."""
    needed = {ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), folder / "home"}
    return sorted(path for path in needed if path.is_relative_to("/tmp"))


def _plug_in(name: str, address: str, init_pid: int, switch_pid: int) -> None:
    _in_net(switch_pid, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(init_pid))
    _in_net(switch_pid, "ip", "link", "set", name, "master", "switch", "up")
    _in_net(init_pid, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    _in_net(init_pid, "ip", "link", "set", "eth0", "up")


def _in_net(pid: int, *command: str) -> None:
    enter = ["nsenter", f"--target={pid}", "--net", "--"]
    subprocess.run([*enter, *command], env={**os.environ, "PATH": _PATH}, check=True)


def _await_end_of_all_in(base: Path) -> None:
    """Processes of a host hold its mounts for a moment after its first process has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(base.name in mounts for mounts in map(_mounts_of, psutil.pids())):
        time.sleep(0.05)


def _mounts_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return ""
