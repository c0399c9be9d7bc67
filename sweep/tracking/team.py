"""A team's MLflow: one server with accounts, a database behind it, and artifacts that go through it.

In: the database's URI, where artifacts lie, and a folder for the server's own state. Out: a server process that
answers nobody without a password and no host or origin that was not named.

State, for its owner alone: `accounts.db` (MLflow's users and what they may see), `password` (the administrator's,
unless it is kept elsewhere), `session.key` (signs the sign-up form) and `accounts.ini` (MLflow's settings for it).
"""

import base64
import importlib.util
import ipaddress
import os
import re
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from cluster.private import write_private
from sweep.tracking.preflight import DATABASES, preflight, strip_credentials
from sweep.tracking.server import end_server, local_url, start_server

ADMIN = "admin"
_MIN_PASSWORD_LENGTH = 12
_SHIPPED_PASSWORD = "password1234"  # of MLflow up to 3.16: in every scanner's list
_HOST_NAME = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
# They would overrule the settings that are made here.
_OVERRULING = ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_DEFAULT_ARTIFACT_ROOT")


def serve_team(
    backend: str,
    artifacts: str,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    allowed_hosts: Iterable[str] = (),
    state: Path,
    password_file: Path | None = None,
    log_path: Path,
    timeout_s: float = 90.0,
) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers its administrator; end it with `terminate()` and `wait()`.

    `allowed_hosts`: names by which browsers and hosts call it, besides this host's own; one without a port is good
    with and without the server's. `password_file`: the administrator's password, else one is made and kept in `state`.
    Raises `ValueError` for what is named wrongly or does not answer, `TrackingError` if the server does not start.
    """
    backend = _with_driver(backend)
    _check_backend(backend)
    _check_installed(artifacts)
    names = _host_names(host, port, allowed_hosts)
    state = _own_folder(state.absolute())
    password_path = password_file or state / "password"
    password = _admin_password(password_path, made_here=password_file is None)
    environment = {key: value for key, value in os.environ.items() if key not in _OVERRULING} | {
        "MLFLOW_BACKEND_STORE_URI": backend,  # not on the command line, where others read the password
        "MLFLOW_AUTH_CONFIG_PATH": str(_write_settings(state, password)),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _kept_secret(state / "session.key"),
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    }
    options = [
        "--app-name", "basic-auth", "--serve-artifacts", "--artifacts-destination", _destination(artifacts),
        "--allowed-hosts", ",".join(names), "--cors-allowed-origins", ",".join(_origins(names)),
    ]  # fmt: skip
    server = start_server(host, port, options, environment, log_path=log_path, timeout_s=timeout_s)
    try:
        _check_admin(local_url(host, port), password, password_path, state)
    except BaseException:
        end_server(server)
        raise
    return server


# -- what it is told ---------------------------------------------------------------------------------------------


def _with_driver(backend: str) -> str:
    """Which driver `postgresql://` means depends on SQLAlchemy's version: here it is one that is installed."""
    plain = "postgresql://"
    installed = [name for name in ("psycopg2", "psycopg") if importlib.util.find_spec(name)]
    if backend.startswith(plain) and installed:
        return f"postgresql+{installed[0]}://{backend.removeprefix(plain)}"
    return backend


def _check_backend(backend: str) -> None:
    """A database that answers. MLflow's folder of files checks paths less well, and is not for many at once."""
    if backend.partition(":")[0].partition("+")[0] not in (*DATABASES, "sqlite"):
        raise ValueError(
            f"backend = {strip_credentials(backend)!r} is no database; name postgresql://USER@HOST/NAME "
            "(mysql://… and sqlite:///… are taken too)"
        )
    try:
        preflight(backend)
    except ValueError as error:
        raise ValueError(str(error).replace("tracking.uri", "backend", 1)) from error


def _check_installed(artifacts: str) -> None:
    needed = ["flask_wtf", *(["boto3"] if artifacts.startswith("s3://") else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"not installed: {', '.join(missing)}; install designspace-sweep[cluster]")


def _destination(artifacts: str) -> str:
    if "://" in artifacts:
        return artifacts
    folder = Path(artifacts).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ValueError(f"artifacts = {artifacts!r}: cannot be made ({error.strerror}); name another place") from error
    return str(folder)


def _host_names(host: str, port: int, allowed_hosts: Iterable[str]) -> list[str]:
    """As they stand in a request's Host header: MLflow compares them letter by letter, port and all."""
    names = {"localhost": None, "127.0.0.1": None, **({"[::1]": None} if _is_ipv6(host) else {})}
    for name in (host, *allowed_hosts):
        bracketed = f"[{name}]" if _is_ipv6(name) else name
        if not _HOST_NAME.fullmatch(bracketed):
            raise ValueError(f"allowed host {name!r} is no name or address; name one such as mlflow.example.org")
        names[bracketed] = None
    with_port = [name if re.search(r":[0-9]+$", name) else f"{name}:{port}" for name in names]
    return list(dict.fromkeys([*names, *with_port]))


def _is_ipv6(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False


def _origins(names: Iterable[str]) -> list[str]:
    """The server's own pages, also behind a proxy that speaks TLS for it."""
    return [f"{scheme}://{name}" for name in names for scheme in ("http", "https")]


# -- its state -----------------------------------------------------------------------------------------------------


def _own_folder(folder: Path) -> Path:
    if {"%", "?"} & set(str(folder)):
        raise ValueError(f"state = {str(folder)!r}: a '%' or '?' cannot stand in a database's URI; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.geteuid():
            raise ValueError(f"state = {str(folder)!r} belongs to another user; name a folder of your own")
        folder.chmod(0o700)
    except OSError as error:
        raise ValueError(f"state = {str(folder)!r}: cannot be used ({error.strerror}); name another folder") from error
    return folder


def _kept_secret(path: Path) -> str:
    """Made at the first start, the same ever after."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    path.chmod(0o600)
    return path.read_text().strip()


def _admin_password(path: Path, *, made_here: bool) -> str:
    try:
        password = _kept_secret(path) if made_here else path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ValueError(f"password file {str(path)!r}: cannot be read ({reason}); write one, or mend it") from error
    if len(password) < _MIN_PASSWORD_LENGTH:
        raise ValueError(
            f"password file {str(path)!r}: {len(password)} characters are too few; "
            f"write {_MIN_PASSWORD_LENGTH} or more (openssl rand -hex 16)"
        )
    if password == _SHIPPED_PASSWORD:
        raise ValueError(f"password file {str(path)!r}: holds the password that MLflow once shipped; write your own")
    if not (password.isascii() and password.isprintable() and password == password.strip()):
        raise ValueError(
            f"password file {str(path)!r}: only one line of plain signs (ASCII), no blank at its ends, reaches MLflow "
            "unchanged; write such a one"
        )
    return password


def _write_settings(state: Path, password: str) -> Path:
    accounts = state / "accounts.db"
    os.close(os.open(accounts, os.O_RDWR | os.O_CREAT, 0o600))  # before MLflow makes it, for others to read
    accounts.chmod(0o600)
    path = state / "accounts.ini"
    escaped = password.replace("%", "%%")  # MLflow's reader puts values in for '%(…)s'
    write_private(
        path,
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{accounts}\n"
        f"admin_username = {ADMIN}\nadmin_password = {escaped}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
    )
    return path


def _check_admin(url: str, password: str, password_path: Path, state: Path) -> None:
    """MLflow reads the password when it makes the account, and never again: a file that changed is no new password."""
    word = base64.b64encode(f"{ADMIN}:{password}".encode()).decode()
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/users/current", headers={"Authorization": f"Basic {word}"})
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        raise ValueError(
            f"password file {str(password_path)!r}: is not the password of the account {ADMIN!r} in "
            f"{str(state / 'accounts.db')!r}, which an earlier start made; write that one into the file (and change it "
            "in MLflow), or remove accounts.db, with which all accounts go"
        ) from error
