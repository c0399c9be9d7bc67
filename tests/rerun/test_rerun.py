"""The way of the best networks of a sweep: confirmed side by side, trained by two workers, tested once, registered."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rerun.small_sweep import BEST, NUM_TRAIN_AT_FULL_SCALE, SECOND, network, study
from tracking.journal_maker import asking

import sweep
from cluster import Slots
from sweep.models import build
from sweep.rerun import confirm, full_scale, workplace
from sweep.rerun.choose import Candidate
from sweep.spaces import Architecture
from sweep.studies import derive_seed
from sweep.training.data import open_split, open_test, prepare
from sweep.training.store import FolderStore
from sweep.training.trial import Trial


def draw_of(trial_id: str) -> int:
    return int(trial_id[-4:])


def test_each_candidate_was_confirmed_with_its_own_fresh_seeds(rerun_done):
    stages = [stage for stage, _ in rerun_done.told if stage.startswith("confirm")]
    assert sorted(set(stages)) == sorted(
        f"confirm {trial_id}, seed {seed} of 2" for trial_id in (BEST, SECOND) for seed in (1, 2)
    )
    assert len(stages) == 4 * study().stopping.max_epochs
    kept = [json.loads(path.read_text()) for path in (rerun_done.run_dir / "rerun" / "confirmed").iterdir()]
    assert len({row["seed"] for row in kept}) == 4
    split = open_split(prepare(resolution=12), num_train=192, num_validation=250, seed=3)
    for row in kept:  # the recipe, budget and split of the sweep, to the last bit
        trial = Trial(network(draw_of(row["trial_id"])), study().recipe, split, num_epochs=3, seed=row["seed"])
        assert [result.train_loss for result in trial.run()] == [epoch["train_loss"] for epoch in row["history"]]


def test_the_lowest_mean_won_whatever_the_sweep_had_said(rerun_done):
    means = {c.trial_id: float(np.mean(c.confirmed_error_pct)) for c in rerun_done.result.candidates}
    assert means.keys() == {BEST, SECOND}
    assert rerun_done.result.candidate.trial_id == min(means, key=means.__getitem__)
    assert rerun_done.result.candidate == rerun_done.result.candidates[0]


def test_two_workers_gave_the_curve_of_one(rerun_done, alone):
    losses = [row["train_loss"] for row in rerun_done.result.history]
    expected = alone(draw_of(rerun_done.result.candidate.trial_id))
    assert losses == pytest.approx(expected, rel=2e-3)  # rounding, grown over 40 steps at a rate of 0.05
    assert losses[0] == pytest.approx(expected[0], rel=1e-4)


def test_epochs_were_told_and_written_as_they_came(rerun_done):
    stage = f"full scale {rerun_done.result.candidate.trial_id}"
    assert [epoch.epoch for told, epoch in rerun_done.told if told == stage] == [1, 2, 3, 4]
    log = Path(rerun_done.result.directory, "history.jsonl")
    assert [json.loads(line) for line in log.read_text().splitlines()] == list(rerun_done.result.history)


def test_nothing_is_left_but_results(rerun_done):
    found = {path.relative_to(rerun_done.run_dir / "rerun").as_posix() for path in
             (rerun_done.run_dir / "rerun").rglob("*") if path.is_file()}  # fmt: skip
    folder = rerun_done.result.candidate.architecture_id
    assert found == {
        f"{folder}/{name}"
        for name in ("result.json", "trained.json", "weights.pt", "architecture.yaml", "history.jsonl")
    } | {f"confirmed/{trial_id}-{seed}.json" for trial_id in (BEST, SECOND) for seed in (1, 2)}


def test_the_weights_have_the_test_error(rerun_done):
    result = rerun_done.result
    content = Path(result.directory, "weights.pt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == result.weights_sha256
    trained = build(Architecture.from_json(result.candidate.architecture), channels=1, classes=10)
    trained.load_state_dict(torch.load(Path(result.directory, "weights.pt"), weights_only=True))
    images, labels, _ = map(torch.from_numpy, open_test(prepare(resolution=12)))
    with torch.inference_mode():
        x_BCHW = (images.unsqueeze(1) / 255 - result.pixel_mean) / result.pixel_std
        wrong = int((trained.eval()(x_BCHW).argmax(1) != labels).sum())
    assert result.num_test == len(labels) == 10_000
    assert result.test_error_pct == pytest.approx(wrong / 100, abs=0.02)  # another batch size rounds otherwise
    assert result.num_train == NUM_TRAIN_AT_FULL_SCALE


def test_a_second_call_answers_what_the_first_found_and_opens_nothing(rerun_done, monkeypatch):
    def shut(*_, **__):
        raise AssertionError("opened again")

    monkeypatch.setattr("sweep.training.data.open_test", shut)
    monkeypatch.setattr(workplace, "ray_session", shut)
    result, registered = sweep.rerun(rerun_done.run_dir, best=2, seeds=2)
    assert result == rerun_done.result
    assert (registered.run_id, registered.version) == (rerun_done.registered.run_id, rerun_done.registered.version)
    assert asking(rerun_done.run_dir / "mlflow.db")("SELECT count(*) FROM model_versions") == [(1,)]


@pytest.mark.parametrize("option", ["best", "seeds", "workers"])
def test_numbers_below_one_are_refused(option, rerun_done):
    with pytest.raises(ValueError, match=f"--{option}: 0 is less than 1; name at least one"):
        sweep.rerun(rerun_done.run_dir, **{option: 0})


def place_of(workers_fit: int, **changes) -> workplace.Workplace:
    return workplace.Workplace(study(**changes), Path(), Slots(workers_fit, 1, 0), None, lambda name: None, 640)


def test_more_workers_than_images_or_slots_are_refused():
    full_scale.check_workers(2, place_of(2))
    with pytest.raises(ValueError, match=r"--workers: 3 do not fit, there is room for 2; name fewer"):
        full_scale.check_workers(3, place_of(2))
    with pytest.raises(ValueError, match=r"--workers: 5 is more than recipe\.batch_size = 4"):
        full_scale.check_workers(5, place_of(8, recipe={"batch_size": 4}))
    left_over = {"batch_size": 63, "drop_last": False}  # 640 = 10 · 63 + 10
    full_scale.check_workers(10, place_of(20, recipe=left_over))
    with pytest.raises(ValueError, match=r"--workers: 11 is more than the 10 images of an epoch's last batch"):
        full_scale.check_workers(11, place_of(20, recipe=left_over))


def test_candidates_are_confirmed_at_the_budget_of_their_scale(tmp_path):
    large = {"name": "large", "of": "small", "width_factor": 2.0, "max_epochs": 7, "num_train": 320}
    asked = study(scale=[*study().to_dict()["scale"], large])
    place = replace(place_of(1), study=asked, run_dir=tmp_path, store=lambda name: FolderStore(tmp_path / name))
    candidates = [
        Candidate("t", "anynet_d", scale, network(1).id, network(1).to_json(), 20.0) for scale in ("small", "large")
    ]
    jobs = [confirm._job(candidate, 0, place) for candidate in candidates]
    assert [(job.num_epochs, job.num_train) for job in jobs] == [(3, 192), (7, 320)]


def test_a_divergence_counts_as_chance(tmp_path):
    place = replace(place_of(1), run_dir=tmp_path, store=lambda name: FolderStore(tmp_path / name))
    candidate = Candidate(BEST, "anynet_d", "small", network(1).id, network(1).to_json(), 20.0)
    job = confirm._job(candidate, 0, place)
    assert job.seed == derive_seed(3, "confirm", BEST, 0)
    confirm._keep(place, candidate, 0, job, [{"epoch": 1, "diverged": True, "val_error_pct": None}])
    (found,) = confirm.confirmed([candidate], tmp_path, seeds=1)
    assert found.confirmed_error_pct == (90.0,)
    assert confirm.confirmed([candidate], tmp_path, seeds=2) is None
