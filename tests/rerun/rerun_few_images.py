"""`python rerun_few_images.py RUN [driver|worker EPOCH]`: a rerun of a small sweep in a process of its own, which kills
itself or one of its workers when that epoch of the training at full scale is told."""

import os
import signal
import sys
from typing import Any

import psutil

import sweep
from sweep.rerun import workplace


def kill(who: str) -> None:
    victims = [psutil.Process()]
    if who == "worker":
        below = psutil.Process().children(recursive=True)
        victims = [process for process in below if "RayTrainWorker" in " ".join(process.cmdline())]
    os.kill(victims[0].pid, signal.SIGKILL)


if __name__ == "__main__":
    run_dir, *when = sys.argv[1:]

    def told(stage: str, epoch: Any) -> None:
        if when and not stage.startswith("confirm") and epoch.epoch == int(when[1]):
            kill(when[0])

    workplace.num_train_images = lambda files: 640
    sweep.rerun(run_dir, best=2, seeds=1, progress=told)
