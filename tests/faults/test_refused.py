"""What is refused before anything starts: names that cannot be, storage and limits with which no sweep could live."""

import socket
import subprocess

import pytest
from faults.harness import STUDY, Sweep
from faults.test_identity import toml_string
from faults.test_storage import small_disk


@pytest.mark.parametrize("name", ["../escape", "a/b", "n" * 300, "", ".hidden", "tab\tname", "50%"])
def test_names_that_cannot_be_are_refused(name, tmp_path, sweep_cli, injected):
    done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path / "run", "--set", f"name={toml_string(name)}")
    assert done.returncode == 2
    assert "name = " in done.stderr
    assert not (tmp_path / "run").exists()
    injected(20, "names that are refused")


def test_storage_that_is_read_only_is_refused_before_anything_starts(tmp_path, sweep_cli, injected):
    with small_disk(tmp_path / "small", 20) as small:
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        done = sweep_cli("launch", "quickstart", "--run-dir", small / "run")
    assert done.returncode == 2
    assert "cannot be written (Read-only file system); choose another with --run-dir" in done.stderr
    injected(21, "read-only storage")


def test_a_path_too_long_for_rays_sockets_is_refused(tmp_path, sweep_cli):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    done = sweep_cli("launch", "quickstart", "--run-dir", tmp_path / "run", env={"RAY_TMPDIR": str(long)})
    assert done.returncode == 2
    assert "RAY_TMPDIR = " in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_hard_limit_of_256_open_files_is_refused(tmp_path, injected):
    hard = Sweep(tmp_path / "hard", STUDY).start(prefix=["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"])
    code, _ = hard.end()
    assert code == 2
    assert "this process may open 256, and Ray needs 1024; raise the limit" in hard.stderr
    assert not hard.run_dir.exists()
    injected(21, "256 file descriptors, a hard limit")


def test_a_port_in_use_is_named(tmp_path, sweep_cli, injected):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "mlflow.db").touch()
        done = sweep_cli(
            "serve", "--port", port, "--backend", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts", tmp_path
        )
    assert done.returncode == 2
    assert str(port) in done.stderr
    injected(21, "port in use")
