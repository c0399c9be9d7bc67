"""One rerun over two workers that nobody disturbed, and what a single worker without Ray makes of the same."""

from types import SimpleNamespace

import pytest
from rerun.small_sweep import NUM_TRAIN_AT_FULL_SCALE, make_sweep, network, study

import sweep
from sweep.rerun import workplace
from sweep.studies import derive_seed
from sweep.training.data import open_split, prepare
from sweep.training.trial import Trial


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(workplace, "num_train_images", lambda files: NUM_TRAIN_AT_FULL_SCALE)


@pytest.fixture(scope="session")
def rerun_done(tmp_path_factory) -> SimpleNamespace:
    run_dir = make_sweep(tmp_path_factory.mktemp("awkward ’ names") / "run with space")
    told: list = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workplace, "num_train_images", lambda files: NUM_TRAIN_AT_FULL_SCALE)
        result, registered = sweep.rerun(
            run_dir, best=2, seeds=2, workers=2, progress=lambda *message: told.append(message)
        )
    return SimpleNamespace(run_dir=run_dir, result=result, registered=registered, told=told)


@pytest.fixture(scope="session")
def alone():
    """`alone(draw)`: the losses of the full-scale training of that network in this process, by epoch."""

    def train(draw: int) -> list[float]:
        split = open_split(prepare(resolution=12), num_train=NUM_TRAIN_AT_FULL_SCALE, num_validation=0, seed=3)
        trial = Trial(
            network(draw), study().recipe, split, num_epochs=4, seed=derive_seed(3, "rerun", network(draw).id)
        )
        return [result.train_loss for result in trial.run()]

    return train
