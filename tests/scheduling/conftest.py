"""`begin`: a conductor on a sweep of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from records.rows import memory_folder
from scheduling.by_hand import Driver
from scheduling.simulated import make_sweep, study_of


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


@pytest.fixture
def begin(memory_path: Path) -> Iterator[Callable[..., Driver]]:
    """`begin("asha", max_failures=1)`: a driver on a new sweep of four trials; `begin()`: the sweep resumed."""
    with ExitStack() as stack:

        def begin(method: str | None = None, num: int = 4, **settings: Any) -> Driver:
            if method is not None:
                stopping = {"max_epochs": 8, "reduction_factor": 2}
                study = study_of(method, settings={"spaces": ["anynet_c"]} | settings, **stopping)
                make_sweep(memory_path, study, num)
            driver = Driver(memory_path)
            stack.callback(driver.journal.close)
            return driver

        yield begin
