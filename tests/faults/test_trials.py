"""Trials that go wrong by their own doing: no number, always an error, no memory, too many words."""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.harness import STUDY, THOROUGH, Sweep, rounds

pytestmark = pytest.mark.slow


def study_of(objective: str, *more: str) -> list[str]:
    return [*STUDY, f"objective=objectives:{objective}", *more]


@pytest.mark.parametrize("seed", rounds())
@pytest.mark.parametrize("method", ["synchronous", "asha_promotion", "asha"] if THOROUGH else ["asha_promotion"])
def test_errors_that_are_no_numbers_are_divergences(method, seed, tmp_path, injected):
    sweep = Sweep(tmp_path / "run", study_of("not_a_number", f"seed={seed}", f"stopping.method={method}"))
    summary = sweep.finish()
    assert summary["trials"]["diverged"] > 0
    assert not sweep.query("SELECT 1 FROM epochs WHERE val_error_pct IS NOT NULL AND abs(val_error_pct) > 100")
    sweep.check()
    injected(12, "NaN, infinity or None as a result", times=summary["trials"]["diverged"])


@pytest.mark.parametrize("seed", rounds())
def test_a_trial_that_always_raises_fails_and_the_others_finish(seed, tmp_path, injected):
    sweep = Sweep(tmp_path / "run", study_of("raising", f"seed={seed}", "stopping.method=none", "max_failures=1"))
    code, summary = sweep.start().end()
    failed = check_raising(sweep, max_failures=1)
    assert code == (1 if failed else 0)
    assert summary["finished"]
    assert f"{failed} trials failed" in sweep.stderr or not failed
    sweep.check()
    injected(13, "a trial that always raises", times=failed)


def check_raising(sweep: Sweep, *, max_failures: int) -> int:
    """Of each that raised: how often it was tried, and what is told of it; answers their number."""
    failed = sweep.query("SELECT * FROM trials WHERE outcome = 'failed' AND failure_kind = 'user'")
    for row in failed:
        tries = max_failures + 1
        assert (row["attempts"], row["user_failures"], row["machine_failures"]) == (tries, tries, 0)
        assert f"network {row['architecture_id']} cannot be trained" in row["failure"]
        assert "objectives.py" in row["failure"]
        artifacts = sweep.artifacts(row["run_id"])
        assert row["failure"] in (artifacts / "failure.txt").read_text()
        assert "cannot be trained" in (artifacts / "log.txt").read_text()
    return len(failed)


@contextmanager
def limited_memory(megabytes: int) -> Iterator[list[str]]:
    """A memory cgroup of its own (version 1), for root; answers the words to put before a command."""
    group = Path(f"/sys/fs/cgroup/memory/sweep-fault-{os.getpid()}-{time.monotonic_ns()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        for _ in range(50):  # Ray's last processes may still be in it
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.2)


@pytest.mark.parametrize("seed", rounds())
def test_out_of_memory_is_told_apart(seed, tmp_path, injected):
    """The kernel ends the worker whose network takes too much; the others never notice."""
    allowed = random.Random(f"{seed} memory").random() < 0.5
    more = ["stopping.method=none", *(['out_of_memory="smaller_batch"'] if allowed else [])]
    sweep = Sweep(tmp_path / "run", study_of("hungry", f"seed={seed}", *more))
    with limited_memory(3000) as prefix:
        code, _ = sweep.start(prefix=prefix).end()
    assert code == 1, sweep.stderr
    injected(14, "out of memory in a small cgroup", times=check_hungry(sweep, allowed=allowed))
    sweep.check()


def check_hungry(sweep: Sweep, *, allowed: bool) -> int:
    """Of each that took too much: that it is told apart, and tried once more only if the study allows it."""
    hungry = sweep.query("SELECT * FROM trials WHERE failure_kind = 'out_of_memory'")
    assert hungry
    (study,) = sweep.query("SELECT value FROM meta WHERE key = 'study'")
    batch_size = json.loads(study["value"])["recipe"]["batch_size"]
    for row in hungry:
        assert int(row["architecture_id"], 16) % 3 == 0
        assert row["outcome"] == "failed"
        assert row["batch_size"] == (batch_size // 2 if allowed else None)
        assert row["user_failures"] == (2 if allowed else 1)
    return len(hungry)


def test_what_a_trial_prints_is_kept_within_bounds(sweep_cli, tmp_path):
    sweep = Sweep(tmp_path / "run", study_of("chatty", "trials_per_space=2"))
    sweep.finish()
    logs = list((sweep.run_dir / "logs").iterdir())
    assert len(logs) == 4
    assert all(path.stat().st_size < 300_000 for path in logs)
    text = sweep_cli("logs", sweep.run_dir, logs[0].stem).stdout
    assert "attempt 1 on" in text
    assert "red" in text
    assert "\x1b" not in text
    assert "\x00" not in text
