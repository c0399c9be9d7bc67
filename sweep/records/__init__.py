"""What a sweep remembers: the journal while it runs, the tables when it is read."""

from sweep.records.journal import DecisionRow, EpochRow, Journal, TrialRow, find_run
from sweep.records.tables import Tables, from_journal, read_tables, write_tables

__all__ = [
    "DecisionRow",
    "EpochRow",
    "Journal",
    "Tables",
    "TrialRow",
    "find_run",
    "from_journal",
    "read_tables",
    "write_tables",
]
