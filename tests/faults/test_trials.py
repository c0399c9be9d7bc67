"""Trials that go wrong by their own doing: no number, always an error, no memory, too many words."""

import os
import random
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
    failed = sweep.query("SELECT * FROM trials WHERE outcome = 'failed'")
    assert code == (1 if failed else 0)
    assert summary["finished"]
    for row in failed:
        assert (row["attempts"], row["user_failures"], row["machine_failures"]) == (2, 2, 0)
        assert f"network {row['architecture_id']} cannot be trained" in row["failure"]
        assert "objectives.py" in row["failure"]
        artifacts = sweep.artifacts(row["run_id"])
        assert row["failure"] in (artifacts / "failure.txt").read_text()
        assert "cannot be trained" in (artifacts / "log.txt").read_text()
    assert f"{len(failed)} trials failed" in sweep.stderr or not failed
    sweep.check()
    injected(13, "a trial that always raises", times=len(failed))


def _limited(megabytes: int, name: str) -> Path:
    """A memory cgroup of its own (version 1), for root."""
    group = Path("/sys/fs/cgroup/memory") / name
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    return group


@pytest.mark.parametrize("seed", rounds())
def test_out_of_memory_is_told_apart(seed, tmp_path, injected):
    """The kernel ends the worker whose network takes too much; the others never notice."""
    group = _limited(3000, f"sweep-fault-{os.getpid()}-{seed}")
    chance = random.Random(f"{seed} memory")
    allowed = chance.random() < 0.5
    more = ["stopping.method=none", *(['out_of_memory="smaller_batch"'] if allowed else [])]
    sweep = Sweep(tmp_path / "run", study_of("hungry", f"seed={seed}", *more))
    try:
        sweep.start(prefix=["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"])
        code, _ = sweep.end()
    finally:
        group.rmdir()
    hungry = [row for row in sweep.query("SELECT * FROM trials") if int(row["architecture_id"], 16) % 3 == 0]
    assert hungry
    for row in hungry:
        assert (row["outcome"], row["failure_kind"]) == ("failed", "out_of_memory")
        assert row["attempts"] == (2 if allowed else 1)
        assert row["batch_size"] == (64 if allowed else None)
    assert code == 1
    sweep.check()
    injected(14, "out of memory in a small cgroup", times=len(hungry))


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
