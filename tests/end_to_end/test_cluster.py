"""A team's cluster from end to end, on hosts with networks of their own: a study is submitted from a laptop, a host is
lost, the head is lost, the best network is trained by two hosts. Whatever happens, each trial ends with one run.

The hosts: `services` (PostgreSQL, a bucket, MLflow on both), a head that trains nothing, two workers of one core each,
a laptop that has a token and a profile. What is asserted is read from PostgreSQL and the journal by own SQL.
"""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from hosts import ROOT, hosts

pytestmark = pytest.mark.slow

SMALL = ("--object-store-memory", "100000000")
SETTINGS = [
    "trials_per_space=6", 'spaces=["anynet_c", "anynet_d"]', "data.num_train=12288", "data.num_validation=250",
    "stopping.max_epochs=4", "stopping.grace_epochs=1", "stopping.reduction_factor=2", "judging.num_bootstrap=500",
    "rerun.epochs=1", "rerun.resolution=12", "recipe.batch_size=1024",
]  # fmt: skip
OPTIONS = [word for setting in SETTINGS for word in ("--set", setting)]
NUM_TRIALS = 12


@pytest.fixture(scope="module")
def net():
    with hosts(("services", "head", "w1", "w2", "laptop")) as found:
        yield found


@pytest.fixture(scope="module")
def team(net):
    """MLflow's address, and a way to ask PostgreSQL. The head alone can record: it alone has the password."""
    services = net["services"]
    run = services.popen(
        [sys.executable, ROOT / "tests" / "team.py", services.home, services.address], stdout=-1, stderr=-3,
        env={"PYTHONPATH": str(ROOT / "tests")},
    )  # fmt: skip
    known = json.loads(run.stdout.readline())
    credentials = f"[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = {known['password']}\n"

    def may_record(host):
        (host.home / ".mlflow").mkdir(mode=0o700, exist_ok=True)
        (host.home / ".mlflow" / "credentials").write_text(credentials, encoding="utf-8")

    def query(sql):
        code = "import json, sys, psycopg2; c = psycopg2.connect(sys.argv[1]).cursor(); c.execute(sys.argv[2]);"
        return json.loads(services.python(f"{code} print(json.dumps(c.fetchall()))", known["database"], sql).stdout)

    yield SimpleNamespace(uri=known["uri"], may_record=may_record, query=query)
    run.terminate()


def start_cluster(head, workers, team, laptop, *head_options):
    """A head, its workers, and the profile by which the laptop knows them."""
    # A host that is lost is missed after some 9 s, not 16: the other would have done all the rest.
    head.sweep(
        "cluster", "up", "--host", head.address, *SMALL, *head_options,
        env={"RAY_health_check_failure_threshold": "3"},
    )  # fmt: skip
    team.may_record(head)
    head.share_token(*workers, laptop)
    at_once(workers, "cluster", "join", f"{head.address}:6379", "--num-cpus", "1", *SMALL)
    profile = laptop.home / f"{head.name}.toml"
    text = f'name = "team"\naddress = "{head.address}:6379"\n[tracking]\nuri = "{team.uri}"\ninterval_s = 1\n'
    profile.write_text(text, encoding="utf-8")
    return profile


def at_once(hosts, *arguments):
    """The same `sweep` command on several hosts side by side: each waits for Ray rather than works."""
    command = [sys.executable, "-m", "sweep", *arguments]
    running = [host.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for host in hosts]
    assert [process.wait(timeout=120) for process in running] == [0] * len(running)


def journal_of(host, name):
    return host.home / "sweep-runs" / name / "journal.sqlite"


def ask(path, sql):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        return journal.execute(sql).fetchall()


def wait_for(path, sql, timeout_s=120):
    """Until the journal answers a row."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.exists() and (rows := ask(path, sql)):
            return rows
        time.sleep(0.1)
    raise AssertionError(f"{path}: no row for {sql}")


def assert_nothing_is_lost_or_doubled(path, team):
    """Each trial has ended, with all its epochs once; MLflow has one run for each, ended, with each point once."""
    trials = dict(ask(path, "SELECT trial_id, outcome FROM trials"))
    assert len(trials) == NUM_TRIALS
    assert set(trials.values()) <= {"completed", "stopped"}
    curves = {trial_id: [] for trial_id in trials}
    for trial_id, epoch in ask(path, "SELECT trial_id, epoch FROM epochs ORDER BY trial_id, epoch"):
        curves[trial_id].append(epoch)
    assert all(curve == list(range(1, len(curve) + 1)) and curve for curve in curves.values())
    ((sweep_run,),) = ask(path, "SELECT value FROM meta WHERE key = 'parent_run_id'")
    below = f"SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = '{json.loads(sweep_run)}'"
    told = team.query(
        "SELECT t.value, r.status, o.value FROM runs r "
        "JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'sweep.trial_id' "
        f"JOIN tags o ON o.run_uuid = r.run_uuid AND o.key = 'outcome' WHERE r.run_uuid IN ({below})"
    )
    assert sorted((trial_id, outcome) for trial_id, _, outcome in told) == sorted(trials.items())
    assert all(status == {"completed": "FINISHED", "stopped": "KILLED"}[outcome] for _, status, outcome in told)
    points = team.query(
        "SELECT t.value, m.step FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = 'sweep.trial_id' "
        f"WHERE m.key = 'error_pct' AND m.run_uuid IN ({below}) ORDER BY 1, 2"
    )
    assert points == [[trial_id, epoch] for trial_id in sorted(curves) for epoch in curves[trial_id]]
    ((status,),) = team.query(f"SELECT status FROM runs WHERE run_uuid = '{json.loads(sweep_run)}'")
    assert status == "FINISHED"


def test_storage_that_hosts_do_not_share_is_refused_before_the_first_trial(net, team):
    head = net["head"]
    profile = start_cluster(head, [net["w1"], net["w2"]], team, net["laptop"], "--num-cpus", "0")
    unshared = head.home / "unshared.toml"
    unshared.write_text(profile.read_text() + '[storage]\ncheckpoints = "/tmp/checkpoints"\n')  # each host has its own
    run_dir = head.home / "sweep-runs" / "unshared"
    done = head.sweep("launch", "quickstart", "--on", unshared, "--run-dir", run_dir, *OPTIONS, check=False)
    assert done.returncode == 2, done.stderr
    assert "storage.checkpoints = '/tmp/checkpoints" in done.stderr
    assert "does not see what" in done.stderr
    outcomes = dict(ask(journal_of(head, "unshared"), "SELECT trial_id, outcome FROM trials"))
    assert set(outcomes.values()) == {"pending"}


def test_a_sweep_survives_the_loss_of_a_host_and_then_of_its_head(net, team):
    head, w1, w2, laptop = (net[name] for name in ("head", "w1", "w2", "laptop"))
    journal, submit = journal_of(head, "outlives"), ("submit", "quickstart", "--name", "outlives", "--detach", *OPTIONS)
    job = laptop.sweep(*submit, "--on", laptop.home / "head.toml").stdout.strip()
    # A trial that has shown two epochs on w1 and goes on there.
    wait_for(
        journal,
        "SELECT 1 FROM epochs JOIN trials USING (trial_id) WHERE outcome = 'running' AND host = 'w1' AND epoch = 2",
    )
    w1.cut()
    ((at_w1,),) = ask(
        journal,
        "SELECT DISTINCT trial_id FROM epochs JOIN trials USING (trial_id) WHERE host = 'w1' AND outcome = 'running'",
    )
    checkpoints = head.home / "sweep-runs" / "outlives" / "checkpoints" / at_w1
    assert list(checkpoints.glob("epoch-0002.*.pt")), "its state is with the driver, for whoever goes on"
    assert json.loads(laptop.sweep("status", job, "--json").stdout)["running"]
    wait_for(journal, f"SELECT 1 FROM epochs WHERE trial_id = '{at_w1}' AND host = 'w2' AND attempt = 2")
    wait_for(journal, f"SELECT 1 FROM epochs WHERE trial_id = '{at_w1}' AND epoch = 2 AND delivered = 1")
    head.kill()
    assert ask(journal, "SELECT 1 FROM trials WHERE outcome IN ('pending', 'running')"), "there is a rest"
    lost = ask(journal, "SELECT trial_id, epoch, host FROM epochs WHERE delivered = 1")
    assert {(at_w1, 1, "w1"), (at_w1, 2, "w1")} <= set(lost)

    # Another host becomes the head. All that it has is MLflow.
    w1.heal()
    at_once([w1, w2], "cluster", "down")
    ((sweep_run,),) = team.query(
        "SELECT r.run_uuid FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'kind' AND t.value = 'sweep' "
        "WHERE r.status = 'RUNNING'"
    )
    profile = start_cluster(w2, [w1], team, laptop, "--num-cpus", "1")
    w2.sweep(
        "recover", "--from", team.uri, "--parent", sweep_run, "--run-dir", w2.home / "sweep-runs" / "outlives"
    )  # fmt: skip
    known = ask(journal_of(w2, "outlives"), "SELECT trial_id, epoch FROM epochs")
    assert {(trial_id, epoch) for trial_id, epoch, _ in lost} <= set(known)
    job = laptop.sweep(*submit, "--on", profile).stdout.strip()
    followed = laptop.sweep("attach", job, timeout=200)
    assert f"{NUM_TRIALS}/{NUM_TRIALS} trials ended" in followed.stdout
    assert_nothing_is_lost_or_doubled(journal_of(w2, "outlives"), team)
    assert (
        json.loads(ask(journal_of(w2, "outlives"), "SELECT value FROM meta WHERE key = 'parent_run_id'")[0][0])
        == sweep_run
    )


def test_its_best_network_is_trained_by_two_hosts(net, team):
    laptop, w2 = net["laptop"], net["w2"]
    job = max((laptop.home / "runs" / ".jobs").glob("outlives-*.json"), key=lambda note: note.stat().st_mtime).stem
    rerun = laptop.sweep("rerun", job, "--best", "1", "--seeds", "1", "--workers", "2", timeout=280)
    assert "is the champion" in rerun.stdout
    assert team.query("SELECT alias, version FROM registered_model_aliases") == [["champion", 1]]
    (path,) = (w2.home / "sweep-runs" / "outlives" / "rerun").glob("*/result.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert (result["num_workers"], result["num_train"], result["num_test"]) == (2, 60_000, 10_000)
    assert 5 < result["test_error_pct"] < 60
    ((status,),) = team.query(
        "SELECT r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'kind' AND t.value = 'rerun'"
    )
    assert status == "FINISHED"
