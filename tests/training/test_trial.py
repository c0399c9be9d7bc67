"""A trial: it learns, it is reproducible, it resumes bit for bit, and it ends at once when a loss is not finite."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sweep.studies import Recipe
from sweep.training import checkpoint
from sweep.training.store import FolderStore
from sweep.training.trial import Trial, augment

RECIPE = Recipe(batch_size=64, warmup_steps=5)


def train(architecture, split, *, recipe=RECIPE, num_epochs=3, seed=1):
    return list(Trial(architecture, recipe, split, num_epochs=num_epochs, seed=seed).run())


def figures(results):
    return [(r.epoch, r.train_loss, r.val_loss, r.val_error_pct, r.learning_rate) for r in results]


def test_it_learns(network, fashion):
    results = train(network, fashion, num_epochs=4)
    assert [result.epoch for result in results] == [1, 2, 3, 4]
    assert results[-1].train_loss < results[0].train_loss
    assert results[-1].val_error_pct < 60  # chance is 90
    assert all(result.train_time_s > 0 and result.eval_time_s > 0 for result in results)


def test_same_seed_same_curve_bit_for_bit(network, fashion):
    assert figures(train(network, fashion)) == figures(train(network, fashion))
    assert figures(train(network, fashion)) != figures(train(network, fashion, seed=2))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_resuming_gives_the_same_later_losses_bit_for_bit(network, fashion, tmp_path, precision, stop_after):
    recipe = RECIPE.model_copy(update={"precision": precision})
    whole = train(network, fashion, recipe=recipe)
    first = Trial(network, recipe, fashion, num_epochs=3, seed=1)
    for result in first.run():
        checkpoint.save(FolderStore(tmp_path), first, result)
        if result.epoch == stop_after:
            break
    torch.manual_seed(99)  # whatever the process did in between must not matter
    second = Trial(network, recipe, fashion, num_epochs=3, seed=1)
    repeated = checkpoint.load_newest(FolderStore(tmp_path), second)
    assert figures([repeated]) == figures(whole[stop_after - 1 : stop_after])
    assert figures(second.run()) == figures(whole[stop_after:])


def test_training_leaves_the_global_generator_alone(network, noise):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    train(network, noise, num_epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_thread_a_trial(network, noise):
    train(network, noise, num_epochs=1)
    assert torch.get_num_threads() == 1


def test_a_loss_that_is_not_finite_ends_the_trial_at_once(network, noise):
    results = train(network, noise, recipe=RECIPE.model_copy(update={"learning_rate": 1e20}), num_epochs=5)
    assert len(results) == 1
    assert results[0].diverged
    assert math.isnan(results[0].train_loss)
    assert math.isnan(results[0].val_error_pct)


def test_a_validation_loss_that_is_not_finite_is_a_divergence_too(network, noise):
    trial = Trial(network, RECIPE, noise, num_epochs=2, seed=1)
    with torch.no_grad():  # batch statistics hide it in training, running statistics do not
        for module in trial.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(math.nan)
    assert next(trial.run()).diverged


def test_learning_rate_warms_up_and_ends_near_zero(network, noise):
    trial = Trial(network, RECIPE, noise, num_epochs=10, seed=1)
    rates = [trial.learning_rate(step) for step in range(10 * trial.steps_per_epoch)]
    assert rates[0] == pytest.approx(RECIPE.learning_rate / 5)
    assert max(rates) <= RECIPE.learning_rate
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < RECIPE.learning_rate / 100


def test_no_validation_images_is_a_full_scale_rerun(network, noise):
    results = train(network, replace(noise, validation=np.array([], dtype=int)), num_epochs=1)
    assert not results[0].diverged
    assert math.isnan(results[0].val_error_pct)


def test_augmentation_flips_and_shifts_each_image_by_itself():
    image = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4).expand(200, 1, 4, 4)
    moved = augment(image, Recipe(crop_padding=1, flip=True), torch.Generator().manual_seed(0))
    seen = {tuple(one.flatten().tolist()) for one in moved}
    padded = torch.nn.functional.pad(image[:1], (1, 1, 1, 1), value=1.0)
    possible = set()
    for row in range(3):
        for column in range(3):
            crop = padded[0, 0, row : row + 4, column : column + 4]
            possible |= {tuple(crop.flatten().tolist()), tuple(crop.flip(1).flatten().tolist())}
    assert seen == possible  # 9 shifts, each also mirrored, and nothing else


def test_no_augmentation_changes_nothing():
    images = torch.rand(5, 1, 6, 6)
    same = augment(images, Recipe(crop_padding=0, flip=False), torch.Generator().manual_seed(0))
    assert torch.equal(same, images)


def test_normalised_images_are_channels_last(network, noise):
    trial = Trial(network, RECIPE, noise, num_epochs=1, seed=1)
    x = trial.normalised(torch.from_numpy(noise.images[:8]))
    assert x.shape == (8, 1, 12, 12)
    assert abs(float(x.mean())) < 0.1
    weights = [module.weight for module in trial.network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
