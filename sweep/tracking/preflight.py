"""Where MLflow records, checked before any trial starts: its addresses, and a refusal of what answers nothing.

In: a tracking URI (`tracking.uri` of a study, or none). Out: nothing if it answers, else a `ValueError` that names
the URI without its credentials, and the remedy, within ten seconds. MLflow itself is not imported: it costs more
than a second of CPU, and its client waits four minutes for a server that is dead.
"""

import configparser
import os
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

DATABASES = ("postgresql", "mysql")
ARTIFACTS_DIR = "mlartifacts"
# MLflow puts /RUN_ID/artifacts behind it, and a column of its tables takes 200 characters; SQLite does not count them.
_MAX_ARTIFACT_ROOT = 200 - len(f"/{'0' * 32}/artifacts")
# A password may hold any sign, '/' and '@' too, in a URL that SQLAlchemy reads: up to the last '@' of the word.
_USER_INFO = re.compile(r"""(?<=://)(?:[^\s/:@]*:[^\s'"]*|[^\s/?#'"]*)@""")
_SECRET_IN_QUERY = re.compile(
    r"(?i)([?&][^=&\s]*(?:password|passwd|pwd|token|secret|api_?key|access_?key)[^=&\s]*=)[^&\s]*"
)


def strip_credentials(text: str) -> str:
    """The same text with no user, password or secret query value in any URI that stands in it."""
    return _SECRET_IN_QUERY.sub(r"\1***", _USER_INFO.sub("", text))


def default_tracking_uri(run_dir: Path) -> str:
    """A SQLite file in the run directory. Raises `ValueError` if the path cannot stand in an SQLAlchemy URL."""
    uri = f"sqlite:///{run_dir.resolve() / 'mlflow.db'}"
    if _unfit(uri):
        raise ValueError(
            f"run: {str(run_dir)!r} holds a '%' or a '?', which the URI of a SQLite database cannot; "
            "choose a run directory without them, or name tracking.uri"
        )
    return uri


def artifact_root(tracking_uri: str, run_dir: Path) -> str | None:
    """Beside a SQLite file; in the run directory for another database; a server knows its own.

    Raises `ValueError` if it is too long for the database.
    """
    if tracking_uri.startswith("http"):
        return None
    home = sqlite_path(tracking_uri).parent if is_sqlite(tracking_uri) else run_dir.absolute()
    root = (home / ARTIFACTS_DIR).as_uri()
    if not is_sqlite(tracking_uri) and len(root) > _MAX_ARTIFACT_ROOT:
        raise ValueError(
            f"run: {str(run_dir)!r} makes {root!r} the place of the artifacts, {len(root)} characters, and MLflow's "
            f"database takes {_MAX_ARTIFACT_ROOT}; choose a shorter path"
        )
    return root


def is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")


def sqlite_path(uri: str) -> Path:
    """The file behind `sqlite:///…`, absolute."""
    return Path(uri.removeprefix("sqlite:///")).absolute()


def damage(path: Path, *, thorough: bool = False) -> str | None:
    """What is wrong with a SQLite file, and the remedy; None if nothing is, or it cannot be looked at just now.

    SQLite itself refuses a file that was cut, unless only by a part of its last page; `thorough` reads all of it.
    """
    check = "PRAGMA quick_check(1)" if thorough else "SELECT count(*) FROM sqlite_master"
    try:
        # Not read-only: the journal of a writer that was killed is played back, as whoever opens it next would do.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as db:
            found = str(db.execute(check).fetchone()[0])
            page_size = db.execute("PRAGMA page_size").fetchone()[0]
            if path.stat().st_size % page_size and not path.with_name(f"{path.name}-journal").exists():
                found = "its last page is cut"
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return None  # locked, or not ours to open: whoever uses it says so
        found = str(error)
    if found == "ok" or found.isdigit():
        return None
    return (
        f"the database {str(path)!r} is damaged ({found}); move it away, then `sweep sync RUN` delivers each of its "
        "sweeps anew from its journal"
    )


def _unfit(uri: str) -> bool:
    # SQLAlchemy cuts the path at '?'; whether it decodes '%xx' depends on its version.
    return "?" in uri or "%" in uri


def preflight(tracking_uri: str, *, timeout_s: float = 6.0) -> None:
    """Raise `ValueError` unless something answers at `tracking_uri` within `timeout_s` seconds, all checks together."""
    scheme = tracking_uri.partition(":")[0].partition("+")[0]
    if scheme in ("http", "https"):
        _within(timeout_s, tracking_uri, lambda: _check_server(tracking_uri, timeout_s))
    elif scheme == "sqlite":
        _within(timeout_s, tracking_uri, lambda: _check_sqlite(tracking_uri))
    elif scheme in DATABASES:
        import sqlalchemy  # noqa: F401 - on a slow machine its import alone takes seconds, which are not the database's

        _within(timeout_s, tracking_uri, lambda: _check_database(tracking_uri, timeout_s))
    else:
        raise _refusal(
            tracking_uri,
            "is a place where MLflow no longer records, or an unknown scheme",
            "leave it empty for a SQLite file in the run directory, or name http(s)://…, sqlite:///…, postgresql://… "
            "or mysql://…",
        )


def _refusal(uri: str, what: str, remedy: str) -> ValueError:
    return ValueError(f"tracking.uri = {strip_credentials(uri)!r}: {strip_credentials(what)}; {remedy}")


def _within(timeout_s: float, uri: str, check: Callable[[], None]) -> None:
    """Run `check` in a thread that is left behind if it hangs: name look-ups and dead mounts obey no timeout."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            check()
        except Exception as error:  # carried over to the calling thread below
            raised.append(error)

    thread = threading.Thread(target=run, name="tracking-preflight", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise _refusal(uri, f"nothing answered within {timeout_s:g} s", "check the address, or start the server")
    if raised:
        raise raised[0]


def _check_server(uri: str, timeout_s: float) -> None:
    import requests

    def get(path: str, **params: Any) -> requests.Response:
        return requests.get(
            uri.rstrip("/") + path, params=params, timeout=timeout_s, auth=_auth(), verify=_verify(), headers=_headers()
        )

    try:
        health = get("/health")
        # /health answers whoever asks; only the API tells that the host check or the log-in refuses us.
        answer = get("/api/2.0/mlflow/experiments/search", max_results=1) if health.ok else health
    except requests.RequestException as error:
        reason = str(error).rpartition(": ")[2].strip("()\"' ")
        raise _refusal(uri, f"does not answer ({reason})", "start the MLflow server, or mend the address") from error
    if answer.status_code == 403 and "host" in answer.text.lower():
        raise _refusal(
            uri,
            "refuses the host name that it is called by (403)",
            "start it with `mlflow server --allowed-hosts` (`sweep serve --allowed-host`) naming that host",
        )
    if answer.status_code in (401, 403):
        raise _refusal(uri, *_log_in_refused(answer.status_code))
    if not answer.ok or "json" not in answer.headers.get("content-type", ""):
        raise _refusal(
            uri,
            f"answers {answer.status_code}, but not as an MLflow server does",
            "name the address of an MLflow server",
        )


def _log_in_refused(status: int) -> tuple[str, str]:
    """What the server wants, and the remedy."""
    logs_in = bool(_auth() or _headers())
    if status == 403 and logs_in:
        return "does not let this user read experiments (403)", "ask its administrator for permission, or log in anew"
    what = "refuses this user and password" if logs_in else "wants a user and password"
    return f"{what} ({status})", (
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or write ~/.mlflow/credentials, or set "
        "MLFLOW_TRACKING_TOKEN"
    )


def _auth() -> tuple[str, str] | None:
    """As MLflow's client logs in: by the environment, each of the two else from its file of credentials."""
    file = configparser.ConfigParser(interpolation=None)
    path = Path("~/.mlflow/credentials").expanduser()
    try:
        file.read(path)
    except configparser.Error:  # its text would repeat a line of the file, and that may be the password
        raise ValueError(
            f"tracking: {path} cannot be read as MLflow's file of credentials; its lines are [mlflow], "
            "mlflow_tracking_username = …, mlflow_tracking_password = …"
        ) from None
    name, password = (
        os.environ.get(key) or file.get("mlflow", key.lower(), fallback=None)
        for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    )
    return (name, password) if name and password else None


def _headers() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token and not _auth() else {}


def _verify() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _check_sqlite(uri: str) -> None:
    if not uri.startswith("sqlite:///") or uri == "sqlite:///" or _unfit(uri) or ":memory:" in uri:
        raise _refusal(
            uri, "names no file that MLflow can keep", "write sqlite:////absolute/path/mlflow.db, no '?' or '%'"
        )
    path = sqlite_path(uri)
    if not path.parent.is_dir():
        raise _refusal(uri, "its directory does not exist", f"create {str(path.parent)!r}, or name another place")
    # SQLite writes a journal beside the database, so the directory must be writable even if the file is there.
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise _refusal(uri, f"{str(place)!r} is not writable", "mend its permissions, or name another place")
    if path.exists() and (found := damage(path)):
        raise _refusal(uri, *found.split("; ", 1))


def _check_database(uri: str, timeout_s: float) -> None:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(
            uri, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": max(1, int(timeout_s))}
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
    except ImportError as error:
        raise _refusal(
            uri,
            f"needs a database driver ({error})",
            "install it, or name one that is there: postgresql+psycopg2://… (psycopg2-binary), mysql+pymysql://…",
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise _refusal(uri, f"does not answer ({reason})", "start the database, or mend address and log-in") from error
