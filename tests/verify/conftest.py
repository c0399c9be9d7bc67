"""Sweeps of each mode, told to an MLflow, as checks find them: built anew for each test, which breaks what it likes."""

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from verify import mlflow_maker
from verify.sweep_maker import IN_MEMORY, Events, MadeUpSweep, made_up_clock, make_journal, study


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow makes it in a second of CPU; tests copy it."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of this test alone, in memory where there is such a place."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def make(folder: Path, empty_database: Path) -> Callable[..., Path]:
    """`make(method, name=…, steps=…, seed=…, events=…)`: the run directory of a sweep that MLflow knows all of.

    `steps`: so many steps and no more: the sweep was interrupted.
    """

    def build(
        method: str = "asha",
        *,
        name: str = "Müller's run, #1",
        steps: int = 10_000,
        seed: int = 1,
        events: Events | None = None,
        **settings: Any,
    ) -> Path:
        run_dir = folder / name
        with made_up_clock(), make_journal(run_dir, study(method=method, **settings)) as journal:
            usual = Events(diverges=0.05, fails=0.02, retries=0.05)
            MadeUpSweep(journal, random.Random(seed), events or usual).run(steps)
        shutil.copy(empty_database, run_dir / "mlflow.db")
        mlflow_maker.deliver(run_dir)
        return run_dir

    return build


@pytest.fixture
def change() -> Callable[..., list[tuple[Any, ...]]]:
    """`change(run_dir / "mlflow.db", query, *values)` asks or changes a database, whatever its rules forbid."""

    def ask(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            return db.execute(query, values).fetchall()

    return ask
