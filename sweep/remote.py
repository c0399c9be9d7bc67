"""A study on a cluster, from a machine that trains nothing: submitted, found again, asked after, stopped.

In: a study, a profile with a job server. Out: a Ray job, and a note of it under `runs/.jobs`, by which later commands
find its cluster. The sweep's own state stays on the head, in the profile's `runs`; what MLflow has of it can be
browsed from anywhere.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import Profile, load_profile
from cluster.jobs import PENDING, PROFILE_FILE, JobServer
from sweep.studies import load_study, shipped_studies

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STUDY_FILE = "study.toml"


@dataclass(frozen=True)
class Submitted:
    """`run_dir`: on the cluster's head. `profile`: as it was when the study was sent."""

    job_id: str
    study: str
    run_dir: str
    profile: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def submit(
    study: str, overrides: Sequence[str], profile: str | Profile, name: str | None = None
) -> tuple[JobServer, Submitted]:
    """Send a study to a profile's cluster; everything that can be refused here is refused first."""
    loaded = load_study(study, overrides)
    name = name or loaded.name
    if not _NAME.fullmatch(name):
        raise ValueError(f"--name {name!r}: take letters, digits, '.', '_' and '-', a hundred at most")
    profile = profile if isinstance(profile, Profile) else load_profile(profile)
    server = JobServer(profile)
    run_dir = f"{profile.runs.rstrip('/')}/{name}"
    shipped = study in shipped_studies()
    options = [word for override in overrides for word in ("--set", override)]
    command = [
        "launch", study if shipped else _STUDY_FILE, "--on", PROFILE_FILE, "--run-dir", run_dir, "--resume", *options,
    ]  # fmt: skip
    return server, _send(server, command, loaded.name, run_dir, profile, {} if shipped else {_STUDY_FILE: Path(study)})


def _send(
    server: JobServer, command: list[str], study: str, run_dir: str, profile: Profile, files: dict[str, Path]
) -> Submitted:
    job_id = f"{Path(run_dir).name}-{secrets.token_hex(3)}"
    metadata = {"study": study, "run_dir": run_dir}
    server.submit(command, job_id=job_id, files=files, metadata=metadata)
    job = Submitted(job_id, study, run_dir, profile.model_dump(mode="json"))
    _note_path(job_id).parent.mkdir(parents=True, exist_ok=True)
    _note_path(job_id).write_text(json.dumps(job.to_dict(), indent=1), encoding="utf-8")
    return job


def _note_path(job_id: str) -> Path:
    return Path("runs") / ".jobs" / f"{job_id}.json"


def is_job(word: str) -> bool:
    """Whether a job of this name was submitted from this folder."""
    return bool(_NAME.fullmatch(word)) and _note_path(word).is_file()


def find(job_id: str, profile: str | None = None) -> tuple[JobServer, Submitted]:
    """A job that was submitted from this folder, or from elsewhere to the cluster of `profile`."""
    if is_job(job_id) and profile is None:
        job = Submitted(**json.loads(_note_path(job_id).read_text(encoding="utf-8")))
        return JobServer(Profile.model_validate(job.profile)), job
    if profile is None:
        known = ", ".join(path.stem for path in sorted(Path("runs/.jobs").glob("*.json"))) or "none"
        raise ValueError(
            f"JOB {job_id!r}: was not submitted from this folder (known here: {known}); name its cluster with "
            "--on PROFILE"
        )
    loaded = load_profile(profile)
    server = JobServer(loaded)
    metadata = server.state(job_id).metadata
    if "run_dir" not in metadata:
        raise ValueError(
            f"JOB {job_id!r}: is not one that `sweep submit` sent; those are: {', '.join(server.job_ids())}"
        )
    return server, Submitted(job_id, metadata["study"], metadata["run_dir"], loaded.model_dump(mode="json"))


def status(job_id: str, profile: str | None = None) -> dict[str, Any]:
    """What `sweep status --json` says on the head, with the job's own state; that alone if no sweep has begun."""
    server, job = find(job_id, profile)
    state = server.state(job_id)
    about = {"job": job_id, "job_status": state.status, "message": state.message, "study": job.study}
    if state.status == PENDING:
        return about
    exit_code, printed = server.answer(["status", job.run_dir, "--json"])
    start = printed.find("{\n")
    if exit_code != 0 or start < 0:
        return about
    return {**json.loads(printed[start:]), **about}


def stop(job_id: str, profile: str | None = None, trial: str | None = None) -> None:
    """Ask the sweep to end so that it can be resumed, or one of its trials; a job that has not begun is taken back."""
    server, job = find(job_id, profile)
    state = server.state(job_id)
    if state.ended:
        raise ValueError(f"JOB {job_id!r}: has ended ({state.status}); there is nothing to stop")
    if trial is not None:
        exit_code, printed = server.answer(["stop", job.run_dir, "--trial", trial])
        if exit_code != 0:
            raise ValueError(f"JOB {job_id!r}: {printed.strip().rpartition(chr(10))[2]}")
        return
    if state.status == PENDING:
        server.end(job_id)
        return
    exit_code, _ = server.answer(["stop", job.run_dir])
    if exit_code != 0:  # it is at work, but not at a sweep yet, or no longer
        server.end(job_id)


def ask(job_id: str, profile: str | None, verb: str, words: Sequence[str]) -> tuple[int | None, str]:
    """The exit code of a verb about a submitted sweep, run on its head, and what it printed."""
    server, job = find(job_id, profile)
    return server.answer([verb, job.run_dir, *words])


def rerun(job_id: str, options: Sequence[str]) -> tuple[JobServer, Submitted]:
    """The best of a submitted sweep at full scale, on the same cluster, as a job of its own."""
    server, job = find(job_id)
    profile = Profile.model_validate(job.profile)
    command = ["rerun", job.run_dir, "--on", PROFILE_FILE, *options]
    return server, _send(server, command, job.study, job.run_dir, profile, {})
