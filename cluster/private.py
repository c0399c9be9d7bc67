"""Files for this user alone: tokens, keys, passwords."""

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write for this user alone, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(draft, path)
