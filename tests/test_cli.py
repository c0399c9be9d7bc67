"""The command line: what each verb prints, its JSON, its exit codes, and what it says of bad input."""

import json
import socket
import subprocess
import time
from contextlib import closing

import pytest

from sweep.records import Journal
from sweep.studies import load_study


def test_doctor_tells_what_is_here(sweep_cli):
    done = sweep_cli("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"Python", "torch", "GPU", "ray", "mlflow", "Fashion-MNIST", "other data sets"} <= set(checks)
    assert done.returncode == (0 if all(check["ok"] for check in checks.values()) else 1)
    assert checks["torch"]["ok"]


def test_doctor_names_the_remedy_for_missing_data(sweep_cli, tmp_path):
    done = sweep_cli("doctor", env={"SWEEP_DATA_DIR": str(tmp_path / "nothing")})
    assert done.returncode == 1
    assert "dataset-fashion-mnist" in done.stdout


def test_spaces_lists_each_with_its_rule(sweep_cli):
    rows = json.loads(sweep_cli("spaces", "--json").stdout)
    assert [row["name"] for row in rows][:6] == [
        "anynet_a", "anynet_b", "anynet_c", "anynet_d", "anynet_e", "regnet_x"
    ]  # fmt: skip
    assert rows[3]["rule"] == "widths_up"
    assert all(isinstance(row["size"], int) for row in rows)
    assert [row["degrees_of_freedom"] for row in rows][:6] == [16, 13, 10, 10, 10, 6]
    one = json.loads(sweep_cli("spaces", "anynet_d", "--json").stdout)
    assert one == rows[3] | {"num_networks": rows[3]["size"]}
    assert "widths_up" in sweep_cli("spaces").stdout


def test_spaces_names_the_nearest(sweep_cli):
    done = sweep_cli("spaces", "anynet_dd")
    assert done.returncode == 2
    assert "anynet_d" in done.stderr
    assert done.stdout == ""


def test_show_prints_the_layers(sweep_cli):
    done = sweep_cli("show", "regnetx32", "--resolution", 96, "--channels", 1, "--classes", 10, "--json")
    shown = json.loads(done.stdout)
    assert (shown["flops"], shown["params"], shown["activations"]) == (40_915_242, 179_290, 622_090)
    assert [layer["output_shape"] for layer in shown["layers"]] == [[32, 48, 48], [32, 24, 24], [80, 12, 12], [10]]
    assert "32 × 24 × 24" in sweep_cli("show", "regnetx32", "--resolution", 96, "--channels", 1).stdout


def test_show_reads_a_file_and_numbers(sweep_cli, tmp_path):
    from sweep.spaces import ZOO

    path = tmp_path / "my network.yaml"
    path.write_text(ZOO["regnetx_400mf"].to_yaml())
    shown = [
        json.loads(sweep_cli("show", name, "--json").stdout)["flops"]
        for name in ("regnetx_400mf", path, "regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16")
    ]
    assert shown == [397_678_568] * 3


def test_show_names_the_nearest(sweep_cli):
    done = sweep_cli("show", "regnetx_401mf")
    assert done.returncode == 2
    assert "regnetx_400mf" in done.stderr


def test_plan_starts_nothing_and_gives_ranges(sweep_cli, tmp_path):
    done = sweep_cli("plan", "quickstart", "--json", cwd=tmp_path)
    cost = json.loads(done.stdout)
    assert cost["num_trials"] == sum(cost["trials_by_cohort"].values())
    assert cost["epochs_low"] <= cost["epochs_mean"] <= cost["epochs_high"] < cost["epochs_if_all_completed"]
    assert 0 < cost["device_hours_low"] < cost["device_hours_high"]
    assert list(tmp_path.iterdir()) == []
    assert "device-hours" in sweep_cli("plan", "quickstart", cwd=tmp_path).stdout


@pytest.mark.parametrize("verb", ["status", "judge", "report", "rerun", "stop", "ui"])
def test_a_run_that_is_none_is_bad_input(verb, sweep_cli, tmp_path):
    done = sweep_cli(verb, tmp_path / "nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launch", "quickstart", "--set", "trials_per_spce=3"], "trials_per_space"),
        (["launch", "quickstart", "--set", "trials_per_space=-3"], "trials_per_space = -3"),
        (["launch", "quickstart", "--set", "stopping.grace_epochs=100"], "max_epochs"),
        (["launch", "quickstart", "--set", "stopping.reduction_factor=1"], "reduction_factor = 1"),
        (["launch", "quickstart", "--set", "scale.flops_min=1e13", "--set", "scale.flops_max=2e13"], "flops_m"),
        (["launch", "quickstart", "--set", "scale.ranges.group_widths=[300]"], "group_widths"),
        (["launch", "quickstart", "--on", "moon"], "laptop"),
        (["launch", "quickstart", "--unknown"], "--unknown"),
        (["launch", "no_such_study"], "quickstart"),
        (["plan", "quickstart", "--set", "nonsense"], "key=value"),
        (["frobnicate"], "frobnicate"),
        (["rerun", ".", "--best", "0"], "--best"),
        (["export", ".", "--to", "tflite"], "onnx"),
    ],
)
def test_bad_input_exits_2_before_anything_starts(arguments, said, sweep_cli, tmp_path):
    started = time.monotonic()
    done = sweep_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 30


def test_an_unwritable_run_directory_is_refused(sweep_cli, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "--run-dir" in done.stderr
    done = sweep_cli("launch", "quickstart", "--run-dir", "/proc/run")
    assert done.returncode == 2
    assert "--run-dir" in done.stderr


def test_a_run_directory_whose_journal_is_gone_is_not_started_afresh(sweep_cli, tmp_path):
    (tmp_path / "trials.parquet").write_bytes(b"")
    done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path, "--resume")
    assert done.returncode == 2
    assert "journal" in done.stderr


def test_a_tracking_server_that_answers_nothing_is_refused_in_ten_seconds(sweep_cli, tmp_path):
    with socket.socket() as silent:  # accepts and never answers, which is worse than a closed port
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path / "run", "--set", f"tracking.uri={uri}")
    assert done.returncode == 2
    assert time.monotonic() - started < 12  # ten, and the start of Python
    assert "tracking.uri" in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_refused(sweep_cli, tmp_path):
    study = load_study("quickstart")
    meta = {"study": study.to_dict(), "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment_id": "1"}
    Journal.create(tmp_path, meta, []).close()
    (tmp_path / "mlflow.db").touch()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        done = sweep_cli("ui", tmp_path, "--port", port, "--no-browser")
    assert done.returncode == 2
    assert f"--port {port}" in done.stderr


def test_no_colour_where_none_is_wanted(sweep_cli):
    assert "\x1b[" not in sweep_cli("spaces", env={"NO_COLOR": "1", "FORCE_COLOR": ""}).stdout
    assert "\x1b[" not in sweep_cli("plan", "quickstart").stdout  # a pipe


def test_importing_the_command_line_is_cheap(sweep_cli):
    import sys

    code = "import sys, sweep, sweep.cli; print([m for m in ('torch', 'ray', 'mlflow', 'plotly') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_version_and_help(sweep_cli):
    assert "0.1.0" in sweep_cli("--version").stdout
    for verb in ("doctor", "spaces", "show", "plan", "launch", "status", "stop", "judge", "report", "rerun", "ui"):
        done = sweep_cli(verb, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) > 3


def test_a_cluster_that_does_not_answer_is_refused_before_anything_is_written(sweep_cli, tmp_path):
    done = sweep_cli("launch", "quickstart", "--on", "127.0.0.1:1", "--run-dir", tmp_path / "run")
    assert done.returncode == 2
    assert "address = '127.0.0.1:1': nothing answers there" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_study_is_not_submitted_to_a_profile_without_a_job_server(sweep_cli):
    done = sweep_cli("submit", "quickstart", "--on", "laptop")
    assert done.returncode == 2
    assert "has no job server" in done.stderr


def test_a_job_that_nobody_submitted_here_is_named(sweep_cli):
    done = sweep_cli("attach", "quickstart-abcdef")
    assert done.returncode == 2
    assert "was not submitted from this folder (known here: none)" in done.stderr
