"""Ray heads and workers on this host: started by `ray start`, remembered, ended.

In: addresses. Out: a node of a Ray cluster as one child process with everything of Ray's below it, and a note of it
in this user's state folder, so that `down` ends what was started here and nothing else (`ray stop` would end every
Ray of the user, sweeps included). A node always wants the token, for Ray listens on all addresses of a host.
"""

import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.keys import ensure_token, in_environment, ray_environment, require_token, token_file
from cluster.profile import DASHBOARD_PORT

GCS_PORT = 6379
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20.0
_MARK = "designspace-sweep-node"
_WORKER_PORTS = range(10_002, 20_000)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's workers would run at nice 15, and a trial beside any other program crawl.
    "RAY_worker_niceness": "0",
    # Where memory runs out the kernel ends one process, a worker first. Ray's own monitor may end one that is not to
    # blame, and tells Tune so by an error that ends all of it.
    "RAY_memory_monitor_refresh_ms": "0",
    # Ray would start a worker for every core of a host as soon as a driver comes; a sweep's have an environment of
    # their own and are started beside those, which nobody uses.
    "RAY_prestart_worker_first_driver": "0",
}
_NODE_ENVIRONMENT = {
    # A node that is gone is noticed within a quarter of a minute (Ray's own settings: a minute); a pause of five
    # seconds is not taken for an end.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    # A job that is told to end has so long for its last epochs' delivery.
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}


_STARTED: list[subprocess.Popen[bytes]] = []
"""Nodes outlive this process, and Python complains of a child that is forgotten while it runs."""

# A host may hold several nodes, of one user or of several: only the ports that people type are fixed. With Ray's own
# fixed one for jobs, a second head comes up and takes none.
_RAY_START = [
    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
    "--dashboard-agent-listen-port=0",
]  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A node that was started on this host. `started_at_s`: the process's start, which tells it from a later one.

    `tls_dir`: the certificates that it and whoever asks its cluster need, if any.
    """

    kind: str
    host: str
    gcs_address: str
    dashboard: str
    pid: int
    started_at_s: float
    log: str
    tls_dir: str = ""

    @property
    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.started_at_s) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


@dataclass(frozen=True)
class Resources:
    """What a node offers; None takes what the host has. `tls_dir` as `sweep cluster certs` made it."""

    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_memory: int | None = None
    metrics_port: int | None = None
    tls_dir: str = ""

    def options(self) -> list[str]:
        named = {
            "--num-cpus": self.num_cpus, "--num-gpus": self.num_gpus,
            "--object-store-memory": self.object_store_memory, "--metrics-export-port": self.metrics_port,
        }  # fmt: skip
        return [f"{option}={value}" for option, value in named.items() if value is not None]


def up(
    host: str = "127.0.0.1",
    port: int = GCS_PORT,
    dashboard_port: int = DASHBOARD_PORT,
    resources: Resources = Resources(),
) -> Node:
    """Start a head on this host, at `host`; returns when its job server answers.

    Raises `ValueError` where Ray would be open to others without a token, or an address or port cannot be used,
    `RuntimeError` where it does not come up.
    """
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" and host not in _LOOPBACK:
        raise ValueError(
            f"--host {host}: RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} would let anyone who reaches this address run "
            "code here; unset it (the token is then asked for), or stay on 127.0.0.1"
        )
    for name, number in (("--port", port), ("--dashboard-port", dashboard_port)):
        _check_port(name, host, number)
    environment = ray_environment(ensure_token(token_file()), resources.tls_dir)
    if resources.tls_dir and host in _LOOPBACK:
        raise ValueError(
            f"--host {host}: with TLS name this host's own address, which its certificate holds; Ray does not call "
            "itself by 127.0.0.1"
        )
    command = [
        "--head", f"--port={port}", f"--node-ip-address={host}", "--include-dashboard=true",
        f"--dashboard-host={host}", f"--dashboard-port={dashboard_port}",
        f"--ray-client-server-port={_free_port(host)}", *resources.options(),
    ]  # fmt: skip
    dashboard = f"http://{_bracketed(host)}:{dashboard_port}"
    return _start("head", host, f"{_bracketed(host)}:{port}", dashboard, command, environment, resources.tls_dir)


def join(address: str, host: str = "", resources: Resources = Resources()) -> Node:
    """Start a worker on this host for the head at `address` (host:port); returns when the head knows it.

    `host`: this host's own address, by default the one from which it reaches the head. Raises as `up` does.
    """
    head, _, port = address.rpartition(":")
    if not head or not port.isdigit():
        raise ValueError(f"ADDRESS {address!r}: must be host:port of the head, such as 10.0.0.10:{GCS_PORT}")
    own = host or _own_address(head.strip("[]"), int(port))
    environment = ray_environment(require_token(token_file()), resources.tls_dir)
    _check_tls(address, environment)
    command = [f"--address={address}", f"--node-ip-address={own}", *resources.options()]
    return _start("worker", own, address, "", command, environment, resources.tls_dir)


def _check_port(name: str, host: str, port: int) -> None:
    if port in _WORKER_PORTS:
        raise ValueError(
            f"{name} {port}: Ray's workers take {_WORKER_PORTS.start} to {_WORKER_PORTS.stop - 1}; name another"
        )
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ValueError(
            f"{name} {port}: cannot be used on {host} ({error.strerror}); name another, or an address of this host"
        ) from error


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _own_address(head: str, port: int) -> str:
    """The address of this host on the way to the head; also finds out whether the head answers at all."""
    try:
        with socket.create_connection((head, port), timeout=5) as connection:
            return connection.getsockname()[0]
    except OSError as error:
        raise ValueError(
            f"ADDRESS {head}:{port}: nothing answers there ({error.strerror or error}); start the head first "
            "(`sweep cluster up --host …`), or mend the address"
        ) from error


def _check_tls(address: str, environment: Mapping[str, str]) -> None:
    """Raises `ValueError` where one side wants TLS and the other does not, or trusts others: Ray tries for minutes."""
    host, _, port = address.rpartition(":")
    wanted, refusal, speaks_tls = "RAY_TLS_CA_CERT" in environment, "", False
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    if wanted:
        context.load_verify_locations(environment["RAY_TLS_CA_CERT"])
        context.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as server,
        ):
            speaks_tls = True
            if not server.recv(1):  # what it says of our certificate comes after the handshake
                raise ConnectionResetError
    except ssl.SSLCertVerificationError as error:
        refusal = f"has a certificate that --tls-dir does not trust ({error.verify_message})"
    except OSError:
        if wanted and speaks_tls:
            refusal = "does not trust the certificate in --tls-dir; make both with `sweep cluster certs` in one folder"
        elif wanted:
            refusal = "does not speak TLS; leave --tls-dir out, or start the head with it"
        elif speaks_tls:
            refusal = "wants TLS; name this host's folder of `sweep cluster certs` as --tls-dir"
    if refusal:
        raise ValueError(f"ADDRESS {address}: the head {refusal}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _start(
    kind: str, host: str, gcs_address: str, dashboard: str, options: list[str], security: dict[str, str], tls_dir: str
) -> Node:
    folder = _state_folder()
    log = folder / f"{kind}-{host}-{os.getpid()}.log"
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    environment |= QUIET | _NODE_ENVIRONMENT | {key: os.environ[key] for key in _NODE_ENVIRONMENT if key in os.environ}
    environment |= security | {"SWEEP_PYTHON": sys.executable}
    mark = secrets.token_hex(8)  # of this node: others may join at the same moment
    with in_environment(security):
        if kind == "worker":
            _marks_alive(gcs_address)  # refuses another cluster's token before anything starts
        with open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            process = subprocess.Popen(
                [*_RAY_START, f"--labels={_MARK}={mark}", *options],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        _STARTED.append(process)
        node = Node(
            kind, host, gcs_address, dashboard, process.pid, psutil.Process(process.pid).create_time(), str(log),
            tls_dir and str(Path(tls_dir).expanduser().absolute()),
        )  # fmt: skip
        _note(node)
        try:
            _wait(
                process,
                log,
                lambda: mark in _marks_alive(gcs_address) and (not dashboard or _answers(dashboard)),
            )
        except BaseException:
            stop(node)
            raise
    return node


def _marks_alive(gcs_address: str) -> set[str]:
    """The marks of the cluster's nodes that are alive; none where nothing answers.

    Raises `ValueError` where the token is another cluster's.
    """
    from ray.exceptions import AuthenticationError

    try:
        found = _gcs(gcs_address).get_all_node_info(timeout=5)
    except AuthenticationError as error:
        raise ValueError(
            f"token: {os.environ['RAY_AUTH_TOKEN_PATH']!r} is not the one of the cluster at {gcs_address}; copy it "
            "from the head (there: `sweep cluster token`), or name it in RAY_AUTH_TOKEN_PATH"
        ) from error
    except Exception:  # Ray raises what gRPC raises; the caller waits for an answer
        return set()
    return {info.labels[_MARK] for info in found.values() if info.state == 0 and _MARK in info.labels}


def _gcs(address: str) -> Any:
    """The head's memory of its cluster. Asks the port first: where nothing listens, Ray itself tries for 40 s."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    return GcsClient(address=address)


def members(node: Node) -> list[dict[str, Any]]:
    """The nodes of that node's cluster: `address`, `alive`, `resources` and what is `available` of them.

    Raises `RuntimeError` where the head does not answer.
    """
    with in_environment(ray_environment(token_file(), node.tls_dir)):
        try:
            gcs = _gcs(node.gcs_address)
            found = gcs.get_all_node_info(timeout=5)
            usage = gcs.get_all_resource_usage(timeout=5).resource_usage_data.batch
        except Exception as error:  # what gRPC raises
            raise RuntimeError(f"the head at {node.gcs_address} does not answer ({str(error)[:200]})") from error
    free = {entry.node_id: dict(entry.resources_available) for entry in usage}
    return [
        {
            "address": info.node_manager_address,
            "alive": info.state == 0,
            "resources": dict(info.resources_total),
            "available": free.get(info.node_id, {}),
        }
        for info in found.values()
    ]


def _answers(dashboard: str) -> bool:
    import requests

    try:
        return requests.get(f"{dashboard}/api/version", headers=authorization(), timeout=2).ok
    except requests.RequestException:
        return False


def authorization(token: Path | None = None) -> dict[str, str]:
    """The header that Ray's job server wants."""
    path = token or Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    return {"Authorization": f"Bearer {path.read_text().strip()}"}


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.3)
    what = f"ended with code {process.returncode}" if process.poll() is not None else "is not ready"
    with log.open(errors="replace") as file:
        tail = "".join(deque(file, 12)).strip()
    raise RuntimeError(
        f"ray start {what}; wrong token, wrong certificates or no way to the head? The end of {log}:\n{tail}"
    )


# -- what was started here -----------------------------------------------------------------------------------


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(base) / "designspace-sweep" / "nodes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _note(node: Node) -> None:
    path = _state_folder() / f"{node.kind}-{node.host}-{node.pid}.json"
    path.write_text(json.dumps(asdict(node)))


def nodes_here() -> list[Node]:
    """The nodes that this user started on this host and that are alive; notes of others are cleared away."""
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    found = []
    for path in sorted(_state_folder().glob("*.json")):
        node = Node(**json.loads(path.read_text()))
        if not _addresses(node.host) & own:
            continue  # the home directory is shared, the host is another
        if node.process is None:
            path.unlink(missing_ok=True)
        else:
            found.append(node)
    return found


def _addresses(host: str) -> set[str]:
    """What a name stands for; a head may have been started by its name."""
    try:
        return {host} | {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}


def down() -> list[Node]:
    """End the nodes that were started on this host, workers first; answers them."""
    nodes = sorted(nodes_here(), key=lambda node: node.kind == "head")
    for node in nodes:
        stop(node)
    return nodes


def stop(node: Node) -> None:
    """End a node with all processes below it: by SIGTERM, by SIGKILL what is left after twenty seconds.

    It may be ending by itself at this moment, as a worker does that has lost its head.
    """
    process = node.process
    if process is not None:
        family = [process]
        with suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
            process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
        for left in alive:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(alive, timeout=5)
        for child in _STARTED:
            child.poll()
    for path in _state_folder().glob(f"{node.kind}-{node.host}-{node.pid}.json"):
        path.unlink(missing_ok=True)


def stay(node: Node) -> int:
    """Wait until the node ends by itself (answers 1) or this process is told to end: then it ends the node (0)."""

    class _EndError(Exception):
        pass

    def told(number: int, frame: object) -> None:
        raise _EndError

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    try:
        while node.process is not None:
            time.sleep(0.5)
        return 1
    except _EndError:
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop(node)
