"""`python rerun_few_images.py RUN`: a rerun of a small sweep in a process of its own, which a test can kill."""

import sys

import sweep
from sweep.rerun import full_scale

if __name__ == "__main__":
    full_scale.NUM_TRAIN = 640
    sweep.rerun(sys.argv[1], best=2, seeds=1)
