"""A host whose cable is pulled: for five seconds, and for good, while its worker goes on and writes what it can."""

import random
import subprocess
import sys
import time
from typing import Any

import pytest
from faults.harness import STUDY, Sweep, rounds
from hosts import hosts

pytestmark = pytest.mark.slow

SMALL = ("--object-store-memory", "100000000")
NO_NODE = """
import time
from cluster import node
deadline = time.monotonic() + 60
while node.nodes_here():
    assert time.monotonic() < deadline
    time.sleep(0.5)
"""


class SweepOnHost(Sweep):
    """Its driver runs on a host of its own; its run directory is seen from outside under the same path."""

    def __init__(self, host: Any, settings: list[str]):
        super().__init__(host.home / "run", settings)
        self.host = host

    def start(self, *more: str, **popen: Any) -> "SweepOnHost":
        options = [word for setting in self.settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "sweep", "launch", self.study, "--run-dir", self.run_dir, "--resume", "--json",
                   *options, *more]  # fmt: skip
        with self._stderr.open("w") as stderr:
            self.process = self.host.popen(command, env=self.env, stdout=subprocess.PIPE, stderr=stderr)
        return self


@pytest.mark.parametrize("seed", rounds())
def test_a_host_cut_off_for_a_while_and_for_good(seed, undisturbed, injected):
    chance = random.Random(f"{seed} network")
    with hosts(("head", "w1", "w2")) as net:
        head, workers = net["head"], [net["w1"], net["w2"]]
        sweep = SweepOnHost(head, [*STUDY, "stopping.method=synchronous"])
        env = {**sweep.env, "FAULT_EPOCH_S": "0.7"}
        head.sweep("cluster", "up", "--host", head.address, "--num-cpus", "0", *SMALL, env=env)
        head.share_token(*workers)
        for host in workers:
            host.sweep("cluster", "join", f"{head.address}:6379", "--num-cpus", "1", *SMALL, env=env)
        sweep.start("--on", f"{head.address}:6379")

        victim = chance.choice(workers)
        sweep.until(lambda: sweep.query(f"SELECT 1 FROM epochs WHERE host = '{victim.name}'"))
        sweep.at(chance, last=3)
        victim.cut()
        time.sleep(5)
        victim.heal()
        sweep.until_epochs(sweep.num_epochs() + 6)
        assert not sweep.events("retried")
        assert not sweep.query("SELECT 1 FROM trials WHERE attempts > 1 AND machine_failures > 0")
        injected(5, "a host cut off for 5 s: nothing retried")

        victim.cut()
        cut_s = time.monotonic()
        sweep.until(lambda: sweep.events("retried"))
        known = sweep.num_epochs()
        sweep.until_epochs(known + 1)
        injected(5, "a host cut off for good: moved", recovery_s=time.monotonic() - cut_s)
        victim.heal()  # it comes back too late, and what is still at work there is no longer wanted
        victim.python(NO_NODE)
        sweep.finish()
        sweep.check(against=undisturbed)
        head.sweep("cluster", "down")
