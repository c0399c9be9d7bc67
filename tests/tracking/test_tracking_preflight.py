"""A tracking address that answers nothing is refused before any trial, within ten seconds, without its password."""

import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from sweep.tracking.preflight import artifact_root, default_tracking_uri, preflight, strip_credentials


@pytest.fixture
def silent_port():
    """A port that accepts and then says nothing, as a hung server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("http://127.0.0.1:9", "start the MLflow server"),
        ("https://127.0.0.1:9/mlflow", "start the MLflow server"),
        ("file:///tmp/mlruns", "sqlite:///"),
        ("mlruns", "sqlite:///"),
        ("sqlite:///", "absolute/path"),
        ("sqlite:////no/such/folder/mlflow.db", "create"),
        ("sqlite:////tmp/a?b/mlflow.db", "absolute/path"),
        ("postgresql://127.0.0.1:9/mlflow", "psycopg2"),
    ],
)
def test_dead_addresses_are_refused_with_the_remedy(uri: str, remedy: str):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"tracking\.uri = ") as refusal:
        preflight(uri)
    assert time.monotonic() - begun < 10
    assert repr(uri) in str(refusal.value)
    assert remedy in str(refusal.value)


def test_a_server_that_says_nothing_is_refused_in_time(silent_port: int):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"tracking\.uri = 'http://127") as refusal:
        preflight(f"http://user:canary@127.0.0.1:{silent_port}", timeout_s=1.0)
    assert "canary" not in str(refusal.value)
    assert time.monotonic() - begun < 3


def test_what_is_no_mlflow_server_is_refused(tmp_path: Path):
    port = _free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    (tmp_path / "health").write_text("OK")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            with pytest.raises(ValueError, match="not as an MLflow server"):
                preflight(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def test_a_writable_folder_is_accepted_and_nothing_is_created(tmp_path: Path):
    preflight(default_tracking_uri(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_preflight_does_not_import_mlflow(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; import sweep.tracking as t;"
        "t.preflight(t.default_tracking_uri(Path(sys.argv[1])));"
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0


def test_default_address_refuses_signs_that_a_database_address_cannot_hold(tmp_path: Path):
    with pytest.raises(ValueError, match=r"run: .*100%.*tracking\.uri"):
        default_tracking_uri(tmp_path / "100%")


@pytest.mark.parametrize(
    "text",
    [
        "http://user:canary@host:5000/x",
        "postgresql+psycopg2://user:ca/na@ry@host/db",
        "postgresql://host/db?user=me&password=canary&sslmode=require",
        "https://host/?api_token=canary",
        "API request to https://canary@host/api failed, and http://me:canary@other/ too",
    ],
)
def test_no_credentials_are_shown(text: str):
    stripped = strip_credentials(text)
    assert "canary" not in stripped
    assert "ca/na@ry" not in stripped
    assert "host" in stripped
    assert strip_credentials("http://host:5000/a?page=2") == "http://host:5000/a?page=2"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("content", [b"no database at all" * 300, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_database_is_refused_with_the_remedy(tmp_path: Path, content: bytes):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(ValueError, match=r"mlflow\.db' is damaged .*; move it away, then `sweep sync RUN`"):
        preflight(default_tracking_uri(tmp_path))


def test_a_run_directory_whose_artifacts_would_not_fit_a_database_is_refused(tmp_path: Path):
    longest = Path("/", "x" * (157 - len("file:////mlartifacts")))
    assert len(artifact_root("postgresql+psycopg2://db/mlflow", longest) or "") == 157
    too_long = longest.with_name(longest.name + "x")
    with pytest.raises(ValueError, match=r"run: .* 158 characters, and MLflow.s database takes 157; choose a shorter"):
        artifact_root("postgresql+psycopg2://db/mlflow", too_long)
    assert artifact_root(f"sqlite:///{too_long}/mlflow.db", too_long) == f"file://{too_long}/mlartifacts"
    assert artifact_root("http://mlflow", too_long) is None


def test_a_database_that_is_locked_is_no_damaged_one(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE any_table (x)")
        other.execute("BEGIN EXCLUSIVE")
        preflight(default_tracking_uri(tmp_path))
