"""Sweeps of each mode, told to an MLflow, as checks find them: built anew for each test, which breaks what it likes."""

import functools
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

USUAL = Events(diverges=0.05, fails=0.02, retries=0.05)


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


@pytest.fixture(scope="session")
def built(empty_database: Path) -> Iterator[Callable[..., Path]]:
    """Each sweep that is asked for is made once; it is not to be touched."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as home:

        @functools.cache
        def build(method: str, steps: int, seed: int, events: Events, settings: tuple[tuple[str, Any], ...]) -> Path:
            run_dir = Path(tempfile.mkdtemp(dir=home))
            with made_up_clock(), make_journal(run_dir, study(method=method, **dict(settings))) as journal:
                MadeUpSweep(journal, random.Random(seed), events).run(steps)
            shutil.copy(empty_database, run_dir / "mlflow.db")
            mlflow_maker.deliver(run_dir)
            return run_dir

        yield build


@pytest.fixture
def make(folder: Path, built: Callable[..., Path]) -> Callable[..., Path]:
    """`make(method, name=…, steps=…, seed=…, events=…)`: the run directory of a sweep that MLflow knows all of.

    `steps`: so many steps and no more: the sweep was interrupted.
    """

    def copy(
        method: str = "asha",
        *,
        name: str = "Müller's run, #1",
        steps: int = 10_000,
        seed: int = 1,
        events: Events = USUAL,
        **settings: Any,
    ) -> Path:
        run_dir = folder / name
        shutil.copytree(built(method, steps, seed, events, tuple(sorted(settings.items()))), run_dir)
        mlflow_maker.move(run_dir)
        return run_dir

    return copy


@pytest.fixture
def change() -> Callable[..., list[tuple[Any, ...]]]:
    """`change(run_dir / "mlflow.db", query, *values)` asks or changes a database, whatever its rules forbid."""

    def ask(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            return db.execute(query, values).fetchall()

    return ask
