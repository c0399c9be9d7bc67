"""Sets the wall clock of every Python process of a sweep: FAULT_CLOCK names a file that holds seconds to add.

Python imports this at its start, where this folder is in PYTHONPATH. libfaketime cannot serve here: with it, the very
`time.sleep` and `Event.wait` of Python 3.11 fail (EINVAL) or hang on Debian 12, before any of our code runs.
"""

import os
import time

_time, _time_ns = time.time, time.time_ns


def _shift_s() -> float:
    try:
        with open(os.environ["FAULT_CLOCK"]) as file:
            return float(file.read() or 0)
    except (KeyError, OSError, ValueError):
        return 0.0


time.time = lambda: _time() + _shift_s()
time.time_ns = lambda: _time_ns() + round(_shift_s() * 1e9)
