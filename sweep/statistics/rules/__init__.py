"""Rules judged: two spaces compared, verdicts, looks while a sweep runs."""
