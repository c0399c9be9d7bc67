"""A team's MLflow for real: accounts, PostgreSQL, a bucket, and what must not get in or out."""

import configparser
import http.client
import http.server
import json
import os
import socket
import sqlite3
import stat
import threading
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import requests
from postgres import free_port
from team import PREFIX, team
from tracking.journal_maker import make_journal, train

from sweep.tracking import Outbox, TrackingError, deliver, preflight, serve_team

T0, T1 = "regnet_x-small-0000", "regnet_x-small-0001"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=10"
CREATE = "/api/2.0/mlflow/experiments/create"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
OTHER = ("eve", "a-password-of-her-own")


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with team(tmp_path_factory.mktemp("team"), names=("mlflow.example.org",)) as found:
        yield found


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A client without credentials of any kind: a home of its own, no keys of the store, no user."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_S3_", "MLFLOW_TRACKING_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def recorded(services, tmp_path_factory):
    """A small sweep that the outbox has delivered with a user and password of the environment."""
    run_dir = tmp_path_factory.mktemp("sweep") / "run"
    with make_journal(run_dir, num=2) as journal, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", services.password)
        preflight(services.uri)
        outbox = Outbox(run_dir, services.uri, experiment="quickstart", interval_s=0.05)
        outbox.start()
        train(journal, T0, [40.0, 30.0], "completed")
        train(journal, T1, [50.0], "stopped")
        report = run_dir / "report.html"
        report.write_text("the report")
        outbox.close(status="finished", artifacts={"report.html": report})
        return journal.get("experiment_id"), journal.get("parent_run_id")


def ask(services, method, path, body=None, *, user="admin", password="", headers=()):
    """The request as it is written here: no client tidies the path up. Answers status and body."""
    word = b64encode(f"{user}:{password or services.password}".encode()).decode()
    sent = {"Content-Type": "application/json", **({"Authorization": f"Basic {word}"} if user else {}), **dict(headers)}
    with closing(http.client.HTTPConnection(services.address, services.port, timeout=30)) as connection:
        content = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, content, sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def experiments(services, **asker):
    status, body = ask(services, "GET", SEARCH, **asker)
    assert status == 200, body
    return [found["name"] for found in json.loads(body).get("experiments", [])]


# -- a sweep's records ---------------------------------------------------------------------------------------------


def test_each_trial_ends_with_one_run_in_the_database(services, recorded):
    _, parent = recorded
    below = f"SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = '{parent}'"
    runs = services.query(
        "SELECT t.value, r.status, count(*) FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
        f"AND t.key = 'sweep.trial_id' WHERE r.run_uuid IN ({below}) GROUP BY 1, 2 ORDER BY 1"
    )
    assert runs == [(T0, "FINISHED", 1), (T1, "KILLED", 1)]
    errors = f"SELECT step, value FROM metrics WHERE key = 'error_pct' AND run_uuid IN ({below}) ORDER BY 1, 2"
    assert services.query(errors) == [(1, 40.0), (1, 50.0), (2, 30.0)]
    assert services.query(f"SELECT status FROM runs WHERE run_uuid = '{parent}'") == [("FINISHED",)]


def test_artifacts_reach_the_bucket_through_the_server(services, recorded):
    """The client has no key of the store, and is never told where it is."""
    experiment, parent = recorded
    objects = services.objects()
    assert objects[f"{PREFIX}/{experiment}/{parent}/artifacts/report.html"] == b"the report"
    assert len([key for key in objects if key.endswith("/architecture.yaml")]) == 2
    places = services.query("SELECT artifact_uri FROM runs")
    assert all(place.startswith("mlflow-artifacts:/") for (place,) in places)


def test_credentials_may_lie_in_mlflows_file(services, recorded, tmp_path):
    folder = tmp_path / "home" / ".mlflow"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = {services.password}\n"
    )
    preflight(services.uri)
    run_dir = tmp_path / "run"
    with make_journal(run_dir, num=1) as journal:
        train(journal, T0, [20.0], "completed")
    assert deliver(run_dir, services.uri) == 2
    with make_journal(tmp_path / "other", num=1) as journal:
        train(journal, T0, [20.0], "completed")
    (folder / "credentials").unlink()
    with pytest.raises(TrackingError, match="2 results are not delivered"):
        deliver(tmp_path / "other", services.uri)


# -- who gets in -----------------------------------------------------------------------------------------------------


def test_nobody_gets_in_without_the_password(services, recorded):
    for method, path in (("GET", SEARCH), ("POST", CREATE), ("GET", f"{ARTIFACTS}/x"), ("PUT", f"{ARTIFACTS}/x")):
        assert ask(services, method, path, {"name": "intruder"}, user="")[0] == 401
        for password in ("wrong", "password1234", "password"):  # the last two are in every scanner's list
            assert ask(services, method, path, {"name": "intruder"}, password=password)[0] == 401
    assert services.query("SELECT count(*) FROM experiments WHERE name = 'intruder'") == [(0,)]
    assert not [key for key in services.objects() if key.endswith("/x")]


def test_preflight_tells_what_the_server_wants(services, monkeypatch):
    with pytest.raises(ValueError, match=r"wants a user and password \(401\); set MLFLOW_TRACKING_USERNAME and MLFLOW"):
        preflight(services.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-canary-that-is-wrong")
    with pytest.raises(ValueError, match=r"refuses this user and password \(401\).*~/\.mlflow/credentials") as refusal:
        preflight(services.uri)
    assert "canary" not in str(refusal.value)


def test_preflight_tells_a_user_who_may_not_read(monkeypatch):
    class Forbidding(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 403)
            self.end_headers()
            self.wfile.write(b"Permission denied")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "eve")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", OTHER[1])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ValueError, match=r"does not let this user read experiments \(403\); ask its administrator"):
            preflight(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_second_user_sees_nothing_of_the_first(services, recorded):
    experiment, parent = recorded
    created = ask(services, "POST", "/api/2.0/mlflow/users/create", dict(zip(("username", "password"), OTHER)))
    assert created[0] == 200, created[1]
    eve = {"user": OTHER[0], "password": OTHER[1]}
    assert experiments(services, **eve) == []
    ((name,),) = services.query(f"SELECT name FROM experiments WHERE experiment_id = {experiment}")
    assert name in experiments(services)
    for path in (
        f"/api/2.0/mlflow/runs/get?run_id={parent}",
        f"/api/2.0/mlflow/experiments/get?experiment_id={experiment}",
        f"/api/2.0/mlflow/artifacts/list?run_id={parent}",
        f"{ARTIFACTS}/{experiment}/{parent}/artifacts/report.html",
        f"/get-artifact?path=report.html&run_uuid={parent}",
    ):
        assert ask(services, "GET", path)[0] == 200, path
        assert ask(services, "GET", path, **eve)[0] == 403, path
    taken = f"{ARTIFACTS}/{experiment}/{parent}/artifacts/report.html"
    assert ask(services, "PUT", taken, "another", **eve)[0] == 403
    assert ask(services, "GET", taken) == (200, "the report")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "mlflow.example.org.evil.example", "127.0.0.1:1"]
)
def test_a_host_that_was_not_named_is_refused(services, host):
    assert ask(services, "GET", SEARCH, headers={"Host": host.format(port=services.port)})[0] == 403


@pytest.mark.parametrize("host", ["mlflow.example.org", "mlflow.example.org:{port}", "localhost:{port}", "localhost"])
def test_hosts_that_were_named_are_served(services, host):
    assert ask(services, "GET", SEARCH, headers={"Host": host.format(port=services.port)})[0] == 200


def test_pages_of_others_change_nothing(services):
    """Although the browser that shows them would send the password along."""
    evil = {"Origin": "https://evil.example"}
    assert ask(services, "POST", CREATE, {"name": "from a foreign page"}, headers=evil)[0] == 403
    assert services.query("SELECT count(*) FROM experiments WHERE name = 'from a foreign page'") == [(0,)]
    read = requests.get(services.uri + SEARCH, auth=("admin", services.password), headers=evil, timeout=30)
    assert "evil" not in read.headers.get("access-control-allow-origin", "")  # so the browser keeps it from the page
    own = {"Origin": "https://mlflow.example.org"}
    assert ask(services, "POST", CREATE, {"name": "from an own page"}, headers=own)[0] == 200


@pytest.mark.parametrize("up", ["../", "%2e%2e/", "..%2f", "%252e%252e/", "%2e%2e%2f"])
def test_artifact_paths_lead_nowhere_else(services, recorded, up):
    experiment, parent = recorded
    before = services.objects()
    for path in (f"{ARTIFACTS}/{up}canary", f"{ARTIFACTS}/{experiment}/{parent}/artifacts/{up * 4}canary"):
        for method in ("GET", "PUT"):
            assert 400 <= ask(services, method, path, "canary")[0] < 500, (method, path)
    assert 400 <= ask(services, "GET", f"/get-artifact?path={up * 6}etc/passwd&run_uuid={parent}")[0] < 500
    assert services.objects() == before


# -- what gets out -----------------------------------------------------------------------------------------------------


def test_secrets_stay_where_they_are(services, recorded):
    """Neither password, nor the store's key, in a row of any table, an artifact, a log or a command line."""
    tables = services.query("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
    rows = [row for (table,) in tables for (row,) in services.query(f"SELECT t::text FROM {table} t")]
    with closing(sqlite3.connect(services.state / "accounts.db")) as accounts:
        accounts_dump = "\n".join(accounts.iterdump())
    objects = services.objects()
    commands = [_command_line(process) for process in psutil.process_iter()]
    logs = [services.log.read_text(), (services.log.parent / "postgres.log").read_text()]
    told = "\n".join([*rows, accounts_dump, *objects, *(content.decode("latin-1") for content in objects.values())])
    told += "\n".join([*commands, *logs])
    for known in ("regnet_x-small-0000", "'admin'", "the report", f"--port {services.port}"):
        assert known in told, f"{known!r} should be there: the search looked in the wrong place"
    database_password = services.database.split(":")[2].partition("@")[0]
    for secret in (services.password, database_password, "canary-of-the-store", OTHER[1]):
        assert secret not in told


def _command_line(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_its_state_is_for_its_owner_alone(services):
    assert stat.S_IMODE(services.state.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [*services.state.iterdir(), services.log]}
    assert set(files) == {"accounts.db", "accounts.ini", "password", "session.key", "server.log"}
    assert set(files.values()) == {0o600}


# -- starts ------------------------------------------------------------------------------------------------------------


def test_passwords_and_accounts_outlive_a_restart(services, recorded, tmp_path):
    """And a password file that says otherwise is told of, not obeyed in part."""
    password, key = services.password, (services.state / "session.key").read_text()
    ask(services, "POST", "/api/2.0/mlflow/users/create", {"username": "bob", "password": OTHER[1]})
    seen = experiments(services)
    services.stop()
    changed = tmp_path / "password"
    changed.write_text("another-password-for-admin\n")
    with pytest.raises(ValueError, match="is not the password of the account 'admin'"):
        services.start(password_file=changed)
    services.start()
    assert services.password == password
    assert (services.state / "session.key").read_text() == key
    assert experiments(services) == seen
    assert experiments(services, user="bob", password=OTHER[1]) == []


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("password1234", "once shipped"),
        ("short", "5 characters are too few"),
        ("", "0 characters are too few"),
        ("two lines\nof a password", "one line"),
        ("Paßwörter, lang genug", "ASCII"),
    ],
)
def test_passwords_that_are_refused(tmp_path, password, told):
    path = tmp_path / "password"
    path.write_text(password, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        _serve(tmp_path, password_file=path)


def test_a_password_with_percent_signs_reaches_mlflow_as_it_is(tmp_path):
    """Its reader of settings, Python's, would put something else in their place."""
    path = tmp_path / "password"
    path.write_text("50%-of-%(host)s-is-50%%\n")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="--port"):
        _serve(tmp_path, password_file=path, port=taken.getsockname()[1])  # the settings are written, nothing starts
    settings = configparser.ConfigParser()
    settings.read(tmp_path / "state" / "accounts.ini")
    assert settings["mlflow"]["admin_password"] == "50%-of-%(host)s-is-50%%"
    assert settings["mlflow"]["default_permission"] == "NO_PERMISSIONS"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"backend": "./mlruns"}, "is no database"),
        ({"backend": "file:///tmp/mlruns"}, "is no database"),
        ({"backend": "http://user:canary@127.0.0.1:1"}, "is no database"),
        ({"backend": "postgresql://user:canary@127.0.0.1:1/mlflow"}, "backend = .*does not answer"),
        ({"allowed_hosts": ["*"]}, "allowed host '\\*' is no name"),
        ({"allowed_hosts": ["https://mlflow.example.org"]}, "is no name or address"),
        ({"state": Path("/tmp/a%20b")}, "cannot stand in a database's URI"),
        ({"password_file": Path("/no/such/file")}, "cannot be read"),
    ],
)
def test_what_is_named_wrongly_is_refused_before_anything_starts(tmp_path, changed, told):
    with pytest.raises(ValueError, match=told) as refusal:
        _serve(tmp_path, **changed)
    assert "canary" not in str(refusal.value)
    assert not (tmp_path / "log").exists()


def _serve(folder, *, backend="", **changed):
    settings = {"state": folder / "state", "log_path": folder / "log", "port": free_port()} | changed
    return serve_team(backend or f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts"), **settings)
