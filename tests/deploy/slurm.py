"""A Slurm cluster of this host's own, for the length of a `with`: munged, slurmctld, and a slurmd for each node.

In: a folder, the number of nodes. Out: the environment in which `sbatch` and its like find it. Every file and port is
its own; every process ends with the `with`.
"""

import os
import pwd
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MailProg=/bin/true
KillWait=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
PartitionName=all Nodes=ALL Default=YES State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN\n"
PATIENCE_S = 30.0


@contextmanager
def slurm(folder: Path, programs: dict[str, Path], num_nodes: int, cpus: int = 2) -> Iterator[dict[str, str]]:
    """`folder` must be open to others: munged wants its socket to be reachable by everyone."""
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    host, user = socket.gethostname().partition(".")[0], pwd.getpwuid(os.geteuid()).pw_name
    ports, names = free_ports(1 + num_nodes), [f"node{number + 1}" for number in range(num_nodes)]
    nodes = "".join(
        NODE.format(name=name, host=host, port=port, cpus=cpus) for name, port in zip(names, ports[1:], strict=True)
    )
    settings = folder / "slurm.conf"
    settings.write_text(SETTINGS.format(host=host, user=user, folder=folder, ports=ports) + nodes)
    environment = os.environ | {"SLURM_CONF": str(settings)}
    munged = [
        programs["munged"], "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
    ]  # fmt: skip
    with ExitStack() as services:
        services.enter_context(service(munged, folder / "munged.out", environment))
        wait_for(lambda: (folder / "munge.socket").exists(), folder)
        services.enter_context(service([programs["slurmctld"], "-D"], folder / "slurmctld.out", environment))
        for name in names:
            command = [programs["slurmd"], "-D", "-N", name]
            services.enter_context(service(command, folder / f"{name}.out", environment))
        wait_for(lambda: states(environment) == ["idle"] * num_nodes, folder)
        yield environment


def states(environment: dict[str, str]) -> list[str]:
    answer = subprocess.run(["sinfo", "-hNo", "%t"], env=environment, capture_output=True, text=True, timeout=30)
    return answer.stdout.split()


def field(name: str, job: str, environment: dict[str, str]) -> str:
    """A field of `scontrol show job`, such as JobState."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    return next(word.partition("=")[2] for word in answer.stdout.split() if word.startswith(f"{name}="))


def free_ports(number: int) -> list[int]:
    """Ports that nobody holds at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def service(command: list[str | Path], log: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-800:]}" for path in folder.glob("*.out"))
            raise RuntimeError(f"Slurm did not come up within {PATIENCE_S:.0f} s:\n{logs}")
        time.sleep(0.2)
