"""Read by each process of a sweep that tests/benchmarks/safety.py starts: safety weighed, or left out.

`SAFETY=weighed` adds up the seconds that this process spends in writes of the journal and the processor time of its
outbox, as a line of `SAFETY_RECORD`. `SAFETY=out` has no outbox, and a journal that waits for no disk and keeps no
mark of its commits; that it is written at all cannot be left out, for the sweep reads from it what to train.
"""

import atexit
import json
import os
import sys
import time

MODE = os.environ.get("SAFETY", "")
spent = {"writes": 0, "journal_s": 0.0, "outbox_cpu_s": 0.0}


def weigh() -> None:
    from sweep.records.journal_file import JournalFile
    from sweep.tracking.outbox import Outbox

    write, run = JournalFile._write, Outbox._run

    def weighed_write(self, body):
        begun = time.perf_counter()
        try:
            return write(self, body)
        finally:
            spent["writes"] += 1
            spent["journal_s"] += time.perf_counter() - begun

    def weighed_run(self):
        try:
            run(self)
        finally:
            spent["outbox_cpu_s"] += time.thread_time()

    def tell():
        with open(os.environ["SAFETY_RECORD"], "a", encoding="utf-8") as record:
            record.write(json.dumps(spent) + "\n")

    JournalFile._write, Outbox._run = weighed_write, weighed_run
    atexit.register(tell)


def leave_out() -> None:
    from sweep.records.journal_file import JournalFile
    from sweep.tracking.outbox import Outbox

    opened = JournalFile.open.__func__

    def careless_open(cls, run_dir, **options):
        journal = opened(cls, run_dir, **options)
        journal._db.execute("PRAGMA synchronous = OFF")
        return journal

    JournalFile.open = classmethod(careless_open)
    JournalFile._set_mark = lambda self, commits: None
    Outbox.start = lambda self: None
    Outbox.close = lambda self, **how: None


if MODE and any(word in sys.orig_argv for word in ("sweep", "sweep.scheduling.engine")):
    weigh() if MODE == "weighed" else leave_out()
