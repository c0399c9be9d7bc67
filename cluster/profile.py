"""A profile says where a study runs: which Ray, what one trial occupies, where checkpoints and records go.

In: the name of a profile that ships (`laptop`, `lan`, …), the path of a TOML file, or an address. Out: a frozen
`Profile`. Raises `ValueError` naming the field, the value and the remedy.
"""

import json
import re
import socket
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

LOCAL, AUTO = "local", "auto"
DASHBOARD_PORT = 8265
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Storage(_Settings):
    """Where trials keep the state of their last epochs, so that another host can go on with them.

    `checkpoints` empty: with the driver, which Ray carries them to. A path: a folder that every host mounts. An
    `s3://bucket/prefix`: a bucket, at `endpoint` if it is not Amazon's; its keys are in the hosts' environment. When
    a trial ends its states go, but for the last ones of the `keep_best` best of the sweep.
    """

    checkpoints: str = ""
    endpoint: str = ""
    keep_best: Annotated[int, Field(ge=0)] = 3

    @field_validator("checkpoints")
    @classmethod
    def _reachable(cls, value: str) -> str:
        if value and not value.startswith(("/", "s3://")):
            raise ValueError("must be an absolute path that every host mounts, or s3://bucket/prefix, or empty")
        if value.startswith("s3://") and not urlsplit(value).netloc:
            raise ValueError("names no bucket; write s3://bucket/prefix")
        return value

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must be http(s)://host:port of a server that speaks S3, or empty for Amazon's")
        return value


class Tracking(_Settings):
    """Where MLflow records if the study does not say: an URI as the driver reaches it, without a password.

    `interval_s`: how often it is told of trials that have ended; of those at work, every sixth time.
    """

    uri: str = ""
    interval_s: Annotated[float, Field(ge=0.1, le=3600)] = 5

    @field_validator("uri")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc and ":" in urlsplit(value).netloc.rpartition("@")[0]:
            raise ValueError(
                "holds a password, and a profile is copied about; leave it out, and give the driver's host "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials"
            )
        return value


class Security(_Settings):
    """`token_path`: Ray's token on each host. `tls_dir`: what `sweep cluster certs` made; empty means no TLS."""

    token_path: str = "~/.ray/auth_token"
    tls_dir: str = ""


class Profile(_Settings):
    """`address`: "local" starts Ray in this process, "auto" joins the one of this host, `host:port` that one.

    `jobs` is the address of its job server, for `sweep submit`. A trial occupies `cpus_per_trial` cores and
    `gpus_per_trial` cards ("auto": one where there is any, else none; 0.25 packs four trials onto a card).
    `num_cpus` 0 takes what this machine has (only with "local"). A trial says something every five seconds; one that is
    silent for `stall_after_s` is ended and goes on elsewhere. `runs` and `python` are for submitted studies: the folder
    on the head in which run directories lie, and the interpreter there, if `sweep cluster up` did not set it.
    """

    name: str
    address: str = LOCAL
    jobs: str = ""
    num_cpus: Annotated[int, Field(ge=0)] = 0
    cpus_per_trial: Annotated[float, Field(gt=0)] = 1
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    stall_after_s: Annotated[float, Field(ge=10)] = 60
    runs: str = "~/sweep-runs"
    python: str = ""
    storage: Storage = Storage()
    tracking: Tracking = Tracking()
    security: Security = Security()

    @field_validator("address")
    @classmethod
    def _known_address(cls, value: str) -> str:
        if value not in (LOCAL, AUTO) and not _HOST_PORT.fullmatch(value):
            raise ValueError('must be "local", "auto" or host:port, such as 10.0.0.10:6379')
        return value

    @field_validator("jobs")
    @classmethod
    def _known_jobs(cls, value: str) -> str:
        if value and not (value.startswith(("http://", "https://")) and urlsplit(value).hostname):
            raise ValueError(
                f"must be http(s)://host:port of the head's dashboard, such as http://10.0.0.10:{DASHBOARD_PORT}"
            )
        return value.rstrip("/")

    @property
    def jobs_address(self) -> str:
        """Where Ray's job server answers: `jobs`, else the head's usual port; "" for a Ray of one's own process."""
        if self.jobs or self.address == LOCAL:
            return self.jobs
        host = "127.0.0.1" if self.address == AUTO else self.address.rpartition(":")[0]
        return f"http://{host}:{DASHBOARD_PORT}"

    def to_toml(self) -> str:
        """The profile as a file that `load_profile` reads. Numbers and strings are written alike in JSON and TOML."""
        values = self.model_dump(mode="json")
        tables = {name: values.pop(name) for name in _TABLES}
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
        for name, table in tables.items():
            lines += [
                "",
                f"[{name}]",
                *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
            ]
        return "\n".join(lines) + "\n"


_TABLES: dict[str, type[_Settings]] = {"storage": Storage, "tracking": Tracking, "security": Security}


def shipped_profiles() -> dict[str, Path]:
    folder = Path(str(files("cluster"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_profile(source: str | Path) -> Profile:
    """A profile by its shipped name, from a path, or made of an address: `host:port` of a cluster that stands, or
    `http://host:port` of its job server."""
    text = str(source)
    if _HOST_PORT.fullmatch(text):
        return Profile(name="ray_address", address=text)
    if text.startswith(("http://", "https://")):
        return _validated({"name": "ray_address", "address": AUTO, "jobs": text}, text)
    shipped = shipped_profiles()
    path = shipped.get(text, Path(source))
    if not path.is_file():
        raise ValueError(
            f"--on: {text!r} is neither a file, nor host:port, nor a profile that ships ({', '.join(shipped)})"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--on: {str(path)!r} is not valid TOML: {error}; mend the file") from error
    return _validated(table, path.name)


def check_answers(address: str, what: str) -> None:
    """Raises `ValueError` where nothing listens at host:port or an URL; Ray itself tries for half a minute first."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{what} = {address!r}: nothing answers there ({reason}); start the head (`sweep cluster up --host …`), or "
            "mend the address"
        ) from error


def _validated(table: dict[str, Any], source: str) -> Profile:
    try:
        return Profile.model_validate(table)
    except ValidationError as error:
        raise ValueError("\n".join(f"--on: {source}: {line}" for line in _explain(error))) from error


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            yield f"{where}: is missing; add it to the profile"
            continue
        if problem["type"] == "extra_forbidden":
            known = list(_TABLES.get(str(problem["loc"][0]), Profile).model_fields)
            near = get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            message = (
                f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known keys: {', '.join(known)}"
            )
        shown = "…" if where == "tracking.uri" else repr(problem["input"])  # it may hold a password
        yield f"{where} = {shown}: {message}"
