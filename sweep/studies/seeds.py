"""Seeds from names: all randomness of a sweep descends from the study's seed and what it is for (DESIGN 4.6)."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A 48-bit seed from anything that prints: the same parts, the same seed, on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def draw_share(*parts: object) -> float:
    """A number in [0, 1) drawn once and for all from `parts`."""
    return derive_seed(*parts) / 2**48
