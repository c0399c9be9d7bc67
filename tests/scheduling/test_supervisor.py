"""What an engine leaves behind when it is killed: Ray's agents, which are no one's children then."""

import subprocess
import sys

import psutil

from sweep.scheduling.supervisor import _end

# A process that starts another one, tells its number, and waits to be killed.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_what_a_killed_engine_started_is_ended_too():
    engine = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert engine.stdout is not None
    orphan = psutil.Process(int(engine.stdout.readline()))
    engine.kill()
    engine.wait()
    assert orphan.is_running()
    assert orphan.ppid() != engine.pid
    _end(engine)
    assert not psutil.pid_exists(orphan.pid) or orphan.status() == psutil.STATUS_ZOMBIE
    engine.stdout.close()
