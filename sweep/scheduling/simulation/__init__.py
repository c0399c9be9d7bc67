"""Recorded curves replayed under other schedulers, and the cheapest design for a wish."""
