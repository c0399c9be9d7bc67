"""Clusters of several hosts, each with a network of its own: joined and lost, with and without TLS.

Hosts that come back are met in tests/faults/test_network.py, by a sweep.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hosts import Host, hosts

SMALL = ("--num-cpus", "1", "--object-store-memory", "80000000")

# Waits until every host named is of that state; a node that is lost is noticed after 16 s, by Ray's own settings 62 s.
_AWAIT = """
import sys, time
from cluster import node
state, addresses = sys.argv[1], sys.argv[2:]
deadline = time.monotonic() + 45
while True:
    members = {member["address"]: member["alive"] for member in node.members(node.nodes_here()[0])}
    if all(members[address] == (state == "alive") for address in addresses):
        break
    assert time.monotonic() < deadline, members
    time.sleep(0.5)
"""

# On which node a task that asks for a host's resource lands.
_NODE_ID = """
import os, sys
from cluster.keys import in_environment, ray_environment, token_file
with in_environment(ray_environment(token_file(), *sys.argv[2:])):
    import ray
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    @ray.remote(num_cpus=1, resources={f"node:{sys.argv[1]}": 0.01})
    def where():
        import socket
        return ray.get_runtime_context().get_node_id(), socket.gethostname()
    print(*ray.get(where.remote(), timeout=60))
"""

_ENTER_AS_CLIENT = """
import sys, ray
try:
    ray.init(f"ray://{sys.argv[1]}")
except ConnectionError as refused:
    print("refused:", refused)
"""

_ENTER_GCS = """
import sys
from ray._raylet import GcsClient
try:
    print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)))
except Exception as refused:
    print("refused:", type(refused).__name__)
"""

# What a TLS server answers to a client with these certificates, or with none. A server may say only after the handshake
# that it wanted one; a gRPC server that lets one in speaks first.
_HANDSHAKE = """
import pathlib, socket, ssl, sys
host, port, folder = sys.argv[1:]
context = ssl.create_default_context()
if folder:
    own = pathlib.Path(folder)
    context.load_verify_locations(own / "ca.crt")
    context.load_cert_chain(own / "node.crt", own / "node.key")
else:
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
try:
    plain = socket.create_connection((host, int(port)), timeout=10)
    with context.wrap_socket(plain, server_hostname=host) as server:
        print("let in" if server.recv(1) else "refused: closed")
except OSError as refused:
    print("refused:", refused)
"""


@pytest.fixture
def net() -> Iterator[dict[str, Host]]:
    with hosts() as found:
        yield found


def _curl(host: Host, url: str, *options: str) -> str:
    """The HTTP status."""
    return host.run(["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *options, url]).stdout


def _listening_ports(host: Host, program: str) -> set[int]:
    look = (
        "import psutil, sys\n"
        "for process in psutil.process_iter():\n"
        "    if sys.argv[1] in ' '.join(process.cmdline()):\n"
        "        for one in process.net_connections('tcp'):\n"
        "            if one.status == psutil.CONN_LISTEN: print(one.laddr.port)\n"
    )
    return {int(port) for port in host.python(look, program).stdout.split()}


@pytest.mark.slow
def test_hosts_join_with_the_token_alone_and_one_that_is_lost_is_noticed(net):
    head, w1, w2, laptop = net["head"], net["w1"], net["w2"], net["laptop"]
    started = json.loads(head.sweep("cluster", "up", "--host", head.address, *SMALL, "--json").stdout)
    assert started["gcs_address"] == f"{head.address}:6379"
    token = head.share_token(w1, w2)
    for worker in (w1, w2):
        joined = json.loads(worker.sweep("cluster", "join", f"{head.address}:6379", *SMALL, "--json").stdout)
        assert joined["host"] == worker.address, "the address that faces the head"
    head.python(_AWAIT, "alive", head.address, w1.address, w2.address)

    # Nobody gets in without the token: not by the job server, nor by Ray's own ports.
    (client_port,) = _listening_ports(head, "ray.util.client.server")
    as_client = laptop.popen(
        [sys.executable, "-c", _ENTER_AS_CLIENT, f"{head.address}:{client_port}"],
        env={"RAY_AUTH_MODE": "disabled"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for method in ("GET", "POST"):
        ask = ("--request", method, "--header", "Content-Type: application/json", "--data", '{"entrypoint": "true"}')
        jobs = f"{started['dashboard']}/api/jobs/"
        assert _curl(laptop, jobs, *ask) == "401"
        assert _curl(laptop, jobs, *ask, "--header", f"Authorization: Bearer {'0' * 64}") == "403"
        assert _curl(laptop, jobs, *ask, "--header", f"Authorization: Bearer {token}") == "200"
    entered = laptop.python(_ENTER_GCS, f"{head.address}:6379", env={"RAY_AUTH_MODE": "disabled"})
    assert entered.stdout == "refused: AuthenticationError\n"
    refused = laptop.sweep("cluster", "join", f"{head.address}:6379", *SMALL, check=False)
    assert refused.returncode == 2
    assert "is missing; copy it from the head" in refused.stderr

    # Gone for good, by its link or by its plug.
    w1.cut()
    w2.kill()
    head.python(_AWAIT, "gone", w1.address, w2.address)
    shown = head.sweep("cluster", "status").stdout
    assert shown.count("gone") == 2
    assert as_client.communicate(timeout=60)[0].startswith("refused:")

    head.sweep("cluster", "down")
    assert "ray" not in head.run(["ps", "ax", "-o", "args"]).stdout.replace(str(head.home), "")


@pytest.mark.slow
def test_with_certificates_only_those_who_have_one_get_a_connection(net):
    head, w1, laptop = net["head"], net["w1"], net["laptop"]
    made = head.sweep("cluster", "certs", "certs", "--host", head.address, "--host", w1.address).stdout.split()
    assert made == [f"certs/{head.address}", f"certs/{w1.address}"]
    shutil.copytree(head.home / "certs" / w1.address, w1.home / "tls")
    head.sweep("cluster", "up", "--host", head.address, "--tls-dir", made[0], *SMALL)
    head.share_token(w1, laptop)
    gcs = f"{head.address}:6379"
    w1.sweep("cluster", "join", gcs, "--tls-dir", "tls", *SMALL)
    members = json.loads(head.sweep("cluster", "status", "--json").stdout)["members"]
    assert {member["address"]: member["alive"] for member in members} == {head.address: True, w1.address: True}
    assert head.python(_NODE_ID, w1.address, made[0]).stdout.split()[1] == "w1"

    # The token alone is not enough, nor is a certificate of another authority.
    laptop.sweep("cluster", "certs", "own", "--host", laptop.address)
    own = str(laptop.home / "own" / laptop.address)
    shutil.copyfile(head.home / "certs" / "ca.crt", f"{own}/ca.crt")
    ports = _listening_ports(head, "gcs_server") | _listening_ports(head, "raylet/raylet")
    assert 6379 in ports
    for port in ports:
        assert w1.python(_HANDSHAKE, head.address, port, w1.home / "tls").stdout == "let in\n"
        for certificates in ("", own):
            answer = laptop.python(_HANDSHAKE, head.address, port, certificates).stdout
            assert answer.startswith("refused:"), (port, certificates, answer)
    for options, said in (((), "wants TLS"), (("--tls-dir", own), "does not trust the certificate")):
        refused = laptop.sweep("cluster", "join", gcs, *options, *SMALL, check=False)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
