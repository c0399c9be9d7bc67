"""A study of 100,000 trials: planned, drawn and written to a journal within bounded time and memory."""

import json
import subprocess
import sys

import pytest

from sweep.studies import MAX_TRIALS, load_study

# A band in which every space has ample members, RegNet X too.
WIDE = ["scale.ranges={}", "scale.flops_min=1e6", "scale.flops_max=1e9"]
PER_SPACE = 16_667
LIMIT_S = 240
"""Of a core that is busy with other things; on a quiet one all of it takes 20 s."""

# What a process needs for itself is left out: numpy, pydantic, sweep.
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from sweep.records import Journal
from sweep.scheduling.forecast import forecast
from sweep.scheduling.population import draw_population
from sweep.studies import load_study

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

study, at_start_mb = load_study("rules_small", sys.argv[2:]), peak_mb()
trials, draws = draw_population(study)
forecast(study, trials)
planned_mb = peak_mb() - at_start_mb
Journal.create(Path(sys.argv[1]), {"study": study.to_dict()}, trials).close()
print(json.dumps({"trials": len(trials), "planned_mb": planned_mb, "written_mb": peak_mb() - at_start_mb}))
"""


def measure(folder, *overrides: str) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, folder, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("method", ["asha", "asha_promotion", "synchronous"])
def test_memory_grows_by_about_a_kilobyte_a_trial(tmp_path, method):
    """Six thousand trials; the slow test below has a hundred thousand."""
    used = measure(tmp_path, *WIDE, "trials_per_space=1000", f'stopping.method="{method}"')
    assert used["trials"] == 6000
    assert used["written_mb"] < 40  # some of it is what a block of draws takes, whatever the study


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_a_hundred_thousand_trials(tmp_path):
    used = measure(tmp_path, *WIDE, f"trials_per_space={PER_SPACE}")
    assert used["trials"] == 6 * PER_SPACE > 100_000
    assert used["planned_mb"] < 180
    assert used["written_mb"] < 200
    assert (tmp_path / "journal.sqlite").stat().st_size < 1000 * used["trials"]


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_a_hundred_thousand_trials_are_planned(sweep_cli):
    settings = [word for override in [*WIDE, f"trials_per_space={PER_SPACE}"] for word in ("--set", override)]
    done = sweep_cli("plan", "rules_small", "--json", *settings, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert cost["num_trials"] == 6 * PER_SPACE
    assert cost["epochs_low"] < cost["epochs_mean"] < cost["epochs_high"] < 1.05 * cost["epochs_low"]


def test_a_hundred_thousand_trials_are_allowed():
    assert 6 * PER_SPACE < MAX_TRIALS
    load_study("rules_small", [f"trials_per_space={PER_SPACE}"])
