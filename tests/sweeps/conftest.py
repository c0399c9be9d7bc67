"""One undisturbed sweep of real trials on a real Ray into a real MLflow, shared by the tests that look at it."""

import json
from types import SimpleNamespace

import pytest

SETTINGS = [
    "trials_per_space=3", 'spaces=["anynet_c", "anynet_d"]', "data.num_train=512", "data.num_validation=250",
    "stopping.max_epochs=4", "stopping.grace_epochs=1", "stopping.reduction_factor=2", "stopping.audit_fraction=0.4",
    "judging.num_bootstrap=500", "rerun.epochs=1", "rerun.resolution=12",
]  # fmt: skip


@pytest.fixture(scope="session")
def settings() -> list[str]:
    """A sweep of seconds: `--set` options that turn the quickstart into six short trials."""
    return [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="session")
def finished(sweep_cli, settings, tmp_path_factory) -> SimpleNamespace:
    """The sweep launched with --json, ended by itself: `run_dir`, `summary` and what was printed on stderr."""
    run_dir = tmp_path_factory.mktemp("awkward ’ names") / "run with space"
    done = sweep_cli("launch", "quickstart", "--run-dir", run_dir, "--json", *settings, timeout=280)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(run_dir=run_dir, summary=json.loads(done.stdout), stderr=done.stderr)
