"""A run directory with an MLflow database that is created once and copied: creating one takes a second of CPU."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tracking.journal_maker import asking

from sweep.tracking.delivery import connect
from sweep.tracking.preflight import default_tracking_uri


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    connect(default_tracking_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def run_dir(tmp_path: Path, empty_database: Path) -> Path:
    folder = tmp_path / "Müller's run, #1"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def sql(run_dir: Path) -> Callable[..., list[tuple[Any, ...]]]:
    return asking(run_dir / "mlflow.db")
