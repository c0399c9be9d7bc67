"""Ray jobs: a command of this project sent to a cluster, followed, asked after.

In: a profile with a job server, and a command line of `sweep`. Out: a job on the cluster's head that runs this very
code (cluster/code.py), with the profile beside it as `profile.toml`. Only the token leaves this machine: keys of a
bucket and passwords of MLflow are the head's own.
"""

import asyncio
import logging
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import code
from cluster.keys import require_token, token_file
from cluster.node import authorization
from cluster.profile import Profile, check_answers

PROFILE_FILE = "profile.toml"
PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED = "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"
_LOOK_EVERY_S = 0.5
_PATIENCE_S = 60.0
# They tell of each package that is packed, and of each connection that ends.
_TALKERS = (
    "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging",
)  # fmt: skip
# What a node that `sweep cluster up` started tells its jobs: the Python that has Ray and torch.
_PYTHON = '"${SWEEP_PYTHON:-python3}"'


@dataclass(frozen=True)
class JobState:
    """`exit_code`: of the command; None while it runs, or where Ray ended it. `message`: Ray's words."""

    status: str
    exit_code: int | None
    message: str
    metadata: Mapping[str, str]

    @property
    def ended(self) -> bool:
        return self.status in (SUCCEEDED, FAILED, STOPPED)


class JobServer:
    """The job server of a profile's cluster.

    Raises `ValueError` where the profile has none, nothing answers there, or this machine's token is not the cluster's.
    """

    def __init__(self, profile: Profile):
        self.address, self._profile = profile.jobs_address, profile
        if not self.address:
            raise ValueError(
                f"--on {profile.name}: has no job server (address = {profile.address!r}); take `sweep launch`, or "
                "name a cluster: a profile with `jobs`, or http://HEAD:8265"
            )
        token = require_token(token_file(profile.security.token_path))
        check_answers(self.address, f"--on {profile.name}: jobs")
        from ray.job_submission import JobSubmissionClient

        for name in _TALKERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            self._client = JobSubmissionClient(self.address, headers=authorization(token))
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(
                f"--on {profile.name}: jobs = {self.address!r} refuses ({_first_line(error)}); the "
                f"token in {token} must be the head's (there: `sweep cluster token`)"
            ) from error

    def submit(
        self,
        command: Sequence[str],
        *,
        job_id: str | None = None,
        files: Mapping[str, Path] | None = None,
        metadata: Mapping[str, str] | None = None,
        quiet: bool = False,
    ) -> str:
        """Run `sweep COMMAND…` on the head, with `files` by name in its working directory; answers the job's id.

        A word of the command that begins with `~/` is taken from the home directory there.
        """
        python = shlex.quote(self._profile.python) if self._profile.python else _PYTHON
        entrypoint = f"{python} -m sweep {' '.join(map(_quoted, command))}" + (" 2>/dev/null" if quiet else "")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            code.copy_to(folder)
            (folder / PROFILE_FILE).write_text(self._profile.to_toml(), encoding="utf-8")
            for name, path in (files or {}).items():
                (folder / name).write_bytes(path.read_bytes())
            return self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env={"working_dir": scratch, "env_vars": {"PYTHONUNBUFFERED": "1"}},
                metadata=dict(metadata or {}),
            )

    def state(self, job_id: str) -> JobState:
        """Raises `ValueError` where the cluster has no such job."""
        try:
            found = self._client.get_job_info(job_id)
        except RuntimeError as error:
            if "does not exist" not in str(error):
                raise
            raise ValueError(
                f"JOB {job_id!r}: the cluster at {self.address} has none of this name; its jobs: "
                f"{', '.join(self.job_ids()) or 'none'}"
            ) from error
        return JobState(str(found.status.value), found.driver_exit_code, found.message or "", found.metadata or {})

    def job_ids(self) -> list[str]:
        """Sweeps that were submitted here, by anyone, the newest first."""
        sweeps = [job for job in self._client.list_jobs() if job.submission_id and "run_dir" in (job.metadata or {})]
        return [str(job.submission_id) for job in sorted(sweeps, key=lambda job: -(job.start_time or 0))]

    def follow(self, job_id: str, write: Callable[[str], Any]) -> JobState:
        """Write what the job prints, from its beginning, until it has ended.

        Raises `RuntimeError` if its server is gone for a minute; the job may go on without it.
        """
        shown, patience = 0, time.monotonic() + _PATIENCE_S
        while True:
            try:
                for chunk in self._printed(job_id, shown):
                    shown += len(chunk)
                    write(chunk)
                state = self.state(job_id)
                if state.ended:
                    return state
                patience = time.monotonic() + _PATIENCE_S
            except (ConnectionError, OSError, RuntimeError) as error:
                if time.monotonic() > patience:
                    raise RuntimeError(
                        f"{self.address} is silent for {_PATIENCE_S:.0f} s now ({_first_line(error)}); look again with "
                        f"`sweep attach {job_id}`; if the head is lost, `sweep recover` goes on from MLflow"
                    ) from error
            time.sleep(_LOOK_EVERY_S)

    def _printed(self, job_id: str, skip: int) -> Iterator[str]:
        """Chunks of the log after its first `skip` characters, as they come, until the job or the connection ends."""
        loop = asyncio.new_event_loop()
        try:
            tail = self._client.tail_job_logs(job_id)
            while True:
                try:
                    chunk = loop.run_until_complete(anext(tail))
                except StopAsyncIteration:
                    return
                chunk, skip = chunk[skip:], max(0, skip - len(chunk))
                if chunk:
                    yield chunk
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def answer(self, command: Sequence[str], timeout_s: float = 120) -> tuple[int | None, str]:
        """Run a short command on the head; its exit code and what it printed on stdout."""
        job_id = self.submit(command, quiet=True)
        deadline = time.monotonic() + timeout_s
        while not (state := self.state(job_id)).ended:
            if time.monotonic() > deadline:
                self._client.stop_job(job_id)
                raise RuntimeError(f"{self.address}: `sweep {command[0]}` has not ended there within {timeout_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)
        printed = self._client.get_job_logs(job_id)
        self._client.delete_job(job_id)
        return state.exit_code, printed

    def end(self, job_id: str) -> None:
        """Ray's own way to stop: SIGTERM, three seconds later SIGKILL."""
        self._client.stop_job(job_id)


def _quoted(word: str) -> str:
    return '"$HOME"/' + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
