"""The sweep that the tests here look at, and the options that make one."""

from types import SimpleNamespace

import pytest
from sweeps.small import OPTIONS, finished_sweep


@pytest.fixture(scope="session")
def settings() -> list[str]:
    """A sweep of seconds: `--set` options that turn the quickstart into six short trials."""
    return OPTIONS


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> SimpleNamespace:
    return finished_sweep(tmp_path_factory)
