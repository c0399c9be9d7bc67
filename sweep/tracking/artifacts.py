"""Artifacts that a run claims: the tag `sha256.<path in the run>` says what is there, never what may be half there.

In: a run and files. Out: the files in the run, each with its claim. A claim that is another one's is taken back before
the upload and the new one is made after it, so that whoever is killed in between leaves a file that nobody claims; it
is sent again. A file whose claim stands already is not. What is sent is a copy: the file itself may change meanwhile.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.tracking.client import log_batch

CLAIM = "sha256."
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """A run as far as artifacts go. `tags`: what it was last known to have; claims must not be missing in it."""

    run_id: str
    artifact_uri: str
    tags: Mapping[str, str]


def target_of(run: Any) -> Target:
    """`run` as MLflow answers it."""
    return Target(run.info.run_id, run.info.artifact_uri, run.data.tags)


def upload(client: Any, run: Target, files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Send what the run does not claim, and answer the claims for the caller to set. `files`: path in the run -> file
    or content."""
    claims: dict[str, str] = {}
    for name, content in files.items():
        with _copy_of(name, content) as (copy, digest):
            if run.tags.get(CLAIM + name) == digest:
                continue
            if CLAIM + name in run.tags:
                _take_back(client, run.run_id, CLAIM + name)
            client.upload(run.artifact_uri, copy, name.rpartition("/")[0])
            claims[CLAIM + name] = digest
    return claims


def publish(client: Any, run_id: str, files: Mapping[str, Path | bytes]) -> None:
    """Send what the run does not claim, and claim it, file after file."""
    run = target_of(client.get_run(run_id))
    for name, content in files.items():
        if claims := upload(client, run, {name: content}):
            log_batch(client, run_id, tags=claims)


def log_artifact(client: Any, run_id: str, name: str, path: Path) -> None:
    """`name` is the artifact's path in the run, folders and file name; the local file may be called otherwise."""
    publish(client, run_id, {name: path})


def is_claimed(tags: Mapping[str, str], name: str, path: Path) -> bool | None:
    """Whether a file is what the run claims; None if it claims nothing of that name."""
    claim = tags.get(CLAIM + name)
    if claim is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == claim


@contextmanager
def _copy_of(name: str, content: Path | bytes) -> Iterator[tuple[Path, str]]:
    """A file that is called as it will be in the run, and its digest."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name.rpartition("/")[2])
        with copy.open("wb") as file:
            for chunk in _chunks(content):
                digest.update(chunk)
                file.write(chunk)
        yield copy, digest.hexdigest()


def _chunks(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _take_back(client: Any, run_id: str, key: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_tag(run_id, key)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # an answer was lost, and it is gone already
            raise
