"""An objective of the user's own: found by its name, called once an epoch, and taken at its word or refused."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from sweep.training import checkpoint
from sweep.training.objective import ObjectiveTrial, load_objective
from sweep.training.store import FolderStore

MODULE = """
number = 3
def error_pct(architecture, *, seed, epoch):
    return 50 / epoch
class Curves:
    def __call__(self, architecture, *, seed, epoch):
        return "many"
curves = Curves()
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules of the user's own by name."""
    for name, text in {
        "my_curves": MODULE,
        "my_broken": "1 / 0",
        "my_needy": "import a_package_that_is_not_there",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def trial_of(function, num_epochs=3):
    return ObjectiveTrial(function, "an architecture", num_epochs=num_epochs, seed=7)


def one_result(answer):
    (result,) = trial_of(lambda architecture, seed, epoch: answer, num_epochs=1).run(pause_s=0)
    return result


def test_a_function_is_found_and_called_once_an_epoch(modules):
    results = list(trial_of(load_objective("my_curves:error_pct")).run())
    assert [(result.epoch, result.val_error_pct) for result in results] == [(1, 50), (2, 25), (3, 50 / 3)]


def test_it_is_called_with_architecture_seed_and_epoch():
    seen = []

    def objective(architecture, *, seed, epoch):
        seen.append((architecture, seed, epoch))
        return 1

    list(trial_of(objective, num_epochs=2).run(pause_s=1))
    assert seen == [("an architecture", 7, 1), ("an architecture", 7, 2)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("error_pct", "is not module:function"),
        ("my_curves:", "is not module:function"),
        ("no_such_module:f", "there is no module 'no_such_module'; install it on all hosts"),
        ("my_curves.sub:f", "there is no module 'my_curves.sub'"),
        ("no_such_package.sub:f", "there is no module 'no_such_package'"),
        ("my_needy:f", "importing my_needy raised ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("my_broken:f", "importing my_broken raised ZeroDivisionError: division by zero; mend the module"),
        ("my_curves:error", "my_curves has no 'error'; name a function of it"),
        ("my_curves:number", "is a int and cannot be called; name a function"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(modules, name, message):
    with pytest.raises(ValueError) as caught:
        load_objective(name)
    assert str(caught.value).startswith(f"objective = {name!r}: {message}")


@pytest.mark.parametrize("answer", [9.5, np.float32(9.5), np.float64(9.5), Fraction(19, 2), {"val_error_pct": 9.5}])
def test_a_number_is_the_validation_error(answer):
    result = one_result(answer)
    assert result.val_error_pct == 9.5
    assert type(result.val_error_pct) is float
    assert math.isnan(result.train_loss)
    assert math.isnan(result.val_loss)
    assert not result.diverged
    assert math.isfinite(result.learning_rate)


@pytest.mark.parametrize("answer", [0, 100, np.int64(3)])
def test_the_ends_of_the_range_and_whole_numbers_are_fine(answer):
    assert one_result(answer).val_error_pct == answer


def test_a_mapping_may_hold_losses():
    result = one_result({"val_error_pct": 9.5, "train_loss": 0.5, "val_loss": np.float32(0.25)})
    assert (result.val_error_pct, result.train_loss, result.val_loss) == (9.5, 0.5, 0.25)
    assert math.isnan(one_result({"val_error_pct": 9.5, "train_loss": 0.5}).val_loss)


NO_NUMBERS = [None, math.nan, math.inf, -math.inf, np.float32("nan")]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("key", ["", "val_error_pct", "train_loss", "val_loss"])
def test_what_is_no_number_is_a_divergence_and_the_last_epoch(value, key):
    answer = {"val_error_pct": 9.5, "val_loss": 0.1} | {key: value} if key else value
    trial = trial_of(lambda architecture, seed, epoch: answer if epoch == 2 else 8.0)
    results = list(trial.run())
    assert [result.diverged for result in results] == [False, True]
    assert math.isnan(results[-1].val_error_pct)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ("9.5", TypeError, "answered '9.5' for epoch 1, but a str is no number"),
        (True, TypeError, "answered True for epoch 1, but a bool is no number"),
        (np.bool_(True), TypeError, "but a bool"),
        ([9.5], TypeError, "answered [9.5] for epoch 1, but a list is no number"),
        (1j, TypeError, "but a complex is no number"),
        (torch.tensor(9.5), TypeError, "but a Tensor is no number"),
        ({"val_error_pct": "9.5"}, TypeError, "but a str is no number"),
        (100.01, ValueError, "answered 100.01 for epoch 1, but an error in percent lies between 0 and 100"),
        (-0.5, ValueError, "answered -0.5 for epoch 1, but an error in percent lies between 0 and 100"),
        ({"val_error_pct": 101}, ValueError, "lies between 0 and 100"),
        ({"error": 9.5}, ValueError, "but it lacks 'val_error_pct'"),
        ({}, ValueError, "answered {} for epoch 1, but it lacks 'val_error_pct'"),
        ({"val_error_pct": 9.5, "loss": 1}, ValueError, "but loss is not known beside train_loss, val_loss"),
        ("x" * 100_000, TypeError, "but a str is no number"),
    ],
)
def test_any_other_answer_is_refused_by_name_and_value(answer, kind, message):
    with pytest.raises(kind) as caught:
        one_result(answer)
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"objective = '{__name__}:one_result.<locals>.<lambda>': answered ")
    assert text.endswith("let it answer the validation error in percent, or a mapping with val_error_pct")
    assert len(text) < 600


def test_an_object_that_can_be_called_is_named_too(modules):
    with pytest.raises(TypeError, match=r"objective = 'my_curves:Curves': answered 'many'"):
        list(trial_of(load_objective("my_curves:curves")).run())


def test_what_it_raises_passes_and_the_epoch_is_not_done():
    def objective(architecture, seed, epoch):
        raise ZeroDivisionError("its own")

    trial = trial_of(objective)
    with pytest.raises(ZeroDivisionError, match="its own"):
        list(trial.run())
    assert trial.epoch == 0


def test_it_goes_on_from_a_checkpoint(tmp_path):
    def objective(architecture, seed, epoch):
        return epoch

    store, known, trial = FolderStore(tmp_path), {}, trial_of(objective, num_epochs=5)
    for result in trial.run():
        known[result.epoch] = checkpoint.save(store, trial, result, attempt=1)
        if result.epoch == 3:
            break
    resumed = trial_of(objective, num_epochs=5)
    assert checkpoint.load(store, resumed, last_epoch=3, known=known).epoch == 3
    assert [result.val_error_pct for result in resumed.run()] == [4, 5]
