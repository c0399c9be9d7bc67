"""A trial: it learns, is reproducible, resumes bit for bit at any step, and ends at once when a loss is not finite."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sweep.studies import PRESETS, Recipe, derive_seed
from sweep.training import trial as trial_module
from sweep.training.stochastic import is_stochastic
from sweep.training.trial import EpochResult, ForeignStateError, Tick, Trial

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
def test_resuming_gives_the_same_later_losses_bit_for_bit(network, fashion, precision, stop_after):
    recipe = RECIPE.model_copy(update={"precision": precision})
    whole = train(network, fashion, recipe=recipe)
    first = Trial(network, recipe, fashion, num_epochs=3, seed=1)
    for result in first.run():
        if result.epoch == stop_after:
            break
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    torch.manual_seed(99)  # whatever the process did in between must not matter
    second = Trial(network, recipe, fashion, num_epochs=3, seed=1)
    second.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
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


def test_normalised_images_are_channels_last(network, noise):
    trial = Trial(network, RECIPE, noise, num_epochs=1, seed=1)
    x = trial.normalised(torch.from_numpy(noise.images[:8]))
    assert x.shape == (8, 1, 12, 12)
    assert abs(float(x.mean())) < 0.1
    weights = [module.weight for module in trial.network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def seeded_ticks(num: int) -> list[int]:
    """Some ticks of a run of two epochs with sixteen steps and three chunks each, the first and the last among them."""
    return sorted({0, 37, *np.random.default_rng(4).integers(1, 37, num).tolist()})


def whole_state(trial):
    """Weights, running statistics and what the optimiser remembers, by name."""
    means = {
        f"{name} {number}": value
        for name, values in trial.optimizer.state_dict().items()
        if name != "num_steps"
        for number, value in enumerate(values)
    }
    return {**trial.network.state_dict(), **means}


def assert_equal_to_the_bit(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


SHORT_STEPS = Recipe(batch_size=16, warmup_steps=5)
VARIANTS = {
    "flips and crops": SHORT_STEPS,
    "no augmentation": SHORT_STEPS.model_copy(update={"flip": False, "crop_padding": 0}),
    "bf16": SHORT_STEPS.model_copy(update={"precision": "bf16"}),
    "adamw, mixup, erasing, one cycle": Recipe(
        batch_size=16, optimizer="adamw", learning_rate=0.01, schedule="one_cycle", mixup=0.4, random_erasing=0.5,
        gradient_clip=1.0, l1_decay=1e-4,
    ),
}  # fmt: skip


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(trial_module, "_EVAL_BATCH", 20)  # three chunks of the 44 validation images


@pytest.mark.parametrize("recipe", VARIANTS.values(), ids=VARIANTS.keys())
def test_ticks_change_no_bit_and_a_state_taken_at_one_goes_on_to_the_same_end(network, noise, small_chunks, recipe):
    plain = Trial(network, recipe, noise, num_epochs=2, seed=1)
    expected = figures(plain.run())
    ticking, seen, states, results = Trial(network, recipe, noise, num_epochs=2, seed=1), [], {}, []
    wanted = seeded_ticks(4)
    for event in ticking.run(pause_s=0):
        if isinstance(event, Tick):
            if len(seen) in wanted:
                buffer = io.BytesIO()
                torch.save(ticking.state_dict(), buffer)
                states[len(seen)] = buffer.getvalue()
            seen.append(event)
        else:
            results.append(event)
    per_epoch = [*range(1, 17), 16, 16, 16]
    assert seen == [Tick(epoch, step, 16) for epoch in (1, 2) for step in per_epoch]
    assert figures(results) == expected
    assert_equal_to_the_bit(whole_state(ticking), whole_state(plain))
    assert list(states) == wanted
    for number, content in states.items():
        torch.manual_seed(99)  # whatever the process did in between must not matter
        resumed = Trial(network, recipe, noise, num_epochs=2, seed=1)
        resumed.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
        assert (resumed.epoch, resumed.step) == (seen[number].epoch - 1, seen[number].step)
        assert figures(resumed.run()) == expected[seen[number].epoch - 1 :]
        assert_equal_to_the_bit(whole_state(resumed), whole_state(plain))


def test_a_trial_let_go_at_a_tick_goes_on_when_run_again(network, noise):
    expected = train(network, noise, recipe=SHORT_STEPS, num_epochs=2)
    trial = Trial(network, SHORT_STEPS, noise, num_epochs=2, seed=1)
    for tick in trial.run(pause_s=0):
        if tick.step == 5:
            break
    assert trial.step == 5
    assert figures(trial.run()) == figures(expected)
    assert trial.step == 0


@pytest.fixture
def clock(network, noise, monkeypatch):
    """A clock that each batch advances by a second, in training and in judging."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(monotonic=lambda: now.s))
    normalised = Trial.normalised

    def slow(self, images):
        now.s += 1
        return normalised(self, images)

    monkeypatch.setattr(Trial, "normalised", slow)
    return now


def test_ticks_come_as_often_as_asked_and_the_caller_s_time_is_not_the_trial_s(network, noise, clock):
    trial = Trial(network, SHORT_STEPS, noise, num_epochs=2, seed=1)
    ticks = []
    for event in trial.run(pause_s=3):
        clock.s += 1000
        if isinstance(event, Tick):
            ticks.append(event.step)
        else:
            assert (event.train_time_s, event.eval_time_s) == (16, 1)
    assert ticks == [3, 6, 9, 12, 15] * 2
    assert {type(event) for event in Trial(network, SHORT_STEPS, noise, num_epochs=2, seed=1).run()} == {EpochResult}


def test_seconds_before_an_interruption_count(network, noise, clock):
    first, second = (Trial(network, SHORT_STEPS, noise, num_epochs=1, seed=1) for _ in range(2))
    next(first.run(pause_s=7))
    second.load_state_dict(first.state_dict())
    clock.s += 1000
    assert next(second.run()).train_time_s == 16


@pytest.mark.parametrize("is_judged", [False, True])
def test_a_divergence_is_found_with_ticks_too(network, noise, is_judged):
    recipe = SHORT_STEPS if is_judged else SHORT_STEPS.model_copy(update={"learning_rate": 1e20})
    trial = Trial(network, recipe, noise, num_epochs=2, seed=1)
    if is_judged:
        for module in trial.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(math.nan)
    *ticks, last = trial.run(pause_s=0)
    assert last.diverged
    assert all(isinstance(tick, Tick) and tick.epoch == 1 for tick in ticks)


def test_an_epoch_begun_with_other_batches_is_refused_and_nothing_is_changed(network, noise):
    first, other = (
        Trial(network, Recipe(batch_size=size), noise, num_epochs=1, seed=seed) for size, seed in ((16, 1), (8, 2))
    )
    next(first.run(pause_s=0))
    before = {name: value.clone() for name, value in other.network.state_dict().items()}
    with pytest.raises(ForeignStateError, match="began with batches of 16 on cpu and cannot go on with batches of 8"):
        other.load_state_dict(first.state_dict())
    assert_equal_to_the_bit(before, other.network.state_dict())
    assert (other.epoch, other.step) == (0, 0)


# -- the last short batch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "num_steps"), [(100, 3), (51, 5), (300, 1)])
def test_the_images_left_over_are_a_batch_too_where_asked(network, noise, batch_size, num_steps):
    """256 images: 2 full batches and 56; 5 and one, which has no batch statistics and goes; none and all."""
    settings = {"batch_size": batch_size, "flip": False, "crop_padding": 0, "learning_rate": 1e-30, "warmup_steps": 0}
    trial = Trial(network, Recipe(drop_last=False, **settings), noise, num_epochs=1, seed=1)
    assert trial.steps_per_epoch == num_steps
    (result,) = trial.run()
    # The network stays what it was, so the epoch's loss is the mean over its images, batch by batch.
    still = Trial(network, Recipe(**settings), noise, num_epochs=1, seed=1)
    still.network.train()
    order = torch.randperm(256, generator=torch.Generator().manual_seed(derive_seed(1, "epoch", 1)))
    total, num = 0.0, 0
    for index in order.split(batch_size)[:num_steps]:
        logits = still.network(still.normalised(torch.from_numpy(noise.images)[index]))
        labels = torch.from_numpy(noise.labels)[index].long()
        total += functional.cross_entropy(logits, labels, label_smoothing=0.1).item() * len(index)
        num += len(index)
    assert num == (255 if batch_size == 51 else 256)
    assert result.train_loss == pytest.approx(total / num, rel=1e-5)


def test_the_seed_s_recipe_is_the_plain_loop_of_d2l_bit_for_bit(network, noise):
    """d2l's `Trainer.fit_epoch` over its loader: every image once an epoch, SGD of lr = 0.05 and nothing else."""
    recipe = Recipe(**{**PRESETS["seed"], "batch_size": 100})
    trial = Trial(network, recipe, noise, num_epochs=2, seed=1)
    list(trial.run())
    plain = Trial(network, recipe, noise, num_epochs=2, seed=1)
    images, labels = torch.from_numpy(noise.images), torch.from_numpy(noise.labels).long()
    optimizer = torch.optim.SGD(plain.network.parameters(), lr=0.05)
    plain.network.train()
    for epoch in (1, 2):
        order = torch.randperm(256, generator=torch.Generator().manual_seed(derive_seed(1, "epoch", epoch)))
        for index in order.split(100):
            optimizer.zero_grad()
            functional.cross_entropy(plain.network(plain.normalised(images[index])), labels[index]).backward()
            optimizer.step()
    assert_equal_to_the_bit(trial.network.state_dict(), plain.network.state_dict())


# -- networks that draw ------------------------------------------------------------------------------------------


@pytest.fixture
def dropout(monkeypatch):
    """Every network ends with dropout."""
    build = trial_module.build
    monkeypatch.setattr(
        trial_module,
        "build",
        lambda *given, **options: torch.nn.Sequential(build(*given, **options), torch.nn.Dropout()),
    )


def test_dropout_is_the_trial_s_own_also_beside_another_and_after_a_resume(network, noise, dropout):
    expected = figures(train(network, noise, recipe=SHORT_STEPS, num_epochs=2))
    assert expected != figures(train(network, noise, recipe=SHORT_STEPS, num_epochs=2, seed=2))
    trial = Trial(network, SHORT_STEPS, noise, num_epochs=2, seed=1)
    other = Trial(network, SHORT_STEPS, noise, num_epochs=2, seed=2).run(pause_s=0)
    results, buffer = [], io.BytesIO()
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for event in trial.run(pause_s=0):
        next(other, None)  # two in one process, by turns
        if isinstance(event, EpochResult):
            results.append(event)
        elif (event.epoch, event.step) == (2, 5):
            torch.save(trial.state_dict(), buffer)
    assert figures(results) == expected
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    resumed = Trial(network, SHORT_STEPS, noise, num_epochs=2, seed=1)
    resumed.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert figures(resumed.run()) == expected[1:]
    assert_equal_to_the_bit(whole_state(resumed), whole_state(trial))


def test_each_step_drops_other_values(network, noise, dropout):
    """Only the seed differs from step to step: the same images, a rate too small to move anything."""
    recipe = Recipe(batch_size=16, learning_rate=1e-30, flip=False, crop_padding=0)
    same = replace(noise, train=np.zeros(64, dtype=int))
    trial, seen = Trial(network, recipe, same, num_epochs=2, seed=1), []
    trial.network.register_forward_hook(lambda module, given, logits: seen.append(logits.detach().clone()))
    trial.network[0].eval()  # its batch statistics must not differ either
    trial.network.train = lambda mode=True: trial.network  # type: ignore[method-assign]
    list(trial.run())
    assert len({tuple((logits == 0).flatten().tolist()) for logits in seen[:4]}) == 4


@pytest.mark.parametrize(
    ("module", "draws"),
    [
        (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout2d()), True),
        (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm2d(2)), False),
    ],
)
def test_networks_that_draw_are_told_apart(module, draws):
    assert is_stochastic(module) is draws
    module[0].is_stochastic = True
    assert is_stochastic(module)
