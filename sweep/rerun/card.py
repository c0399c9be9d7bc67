"""The model card: what was trained and how, what its error is and on what grounds, how to load it, where it comes from.

In: a `RerunResult` and the sweep's metadata. Out: Markdown that lies beside the weights and describes the version in
the registry. The code in it is executed by a test.
"""

from collections.abc import Mapping
from typing import Any

from sweep.rerun.result import RerunResult
from sweep.spaces import Mlp, Network, Vit, complexity, network_from_json, space_title
from sweep.statistics import Estimate, estimates, flattery_pct
from sweep.studies import Recipe, study_from_dict

_DATA = {
    "fashion_mnist": (
        "[Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist) (Xiao, Rasul and Vollgraf 2017, "
        "arXiv:1708.07747), MIT licence: 28 × 28 pixels, grey, ten classes of clothing"
    )
}
_CLASSES = {
    "fashion_mnist": (
        "T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot (0 to 9, in this order)"
    )
}


def model_card(result: RerunResult, metadata: Mapping[str, Any]) -> str:
    study = study_from_dict(metadata["study"])
    candidate, recipe = result.candidate, study.recipe
    network = network_from_json(candidate.architecture)
    size = complexity(network, resolution=result.resolution, channels=1, classes=study.data.num_classes)
    in_sweep, confirmed, full_scale = estimates(result.to_dict())
    flattered = flattery_pct(result.to_dict())
    provenance = result.provenance
    machine, versions = provenance.get("machine") or {}, provenance.get("versions") or {}
    hosts = sorted({row["host"] for row in result.history})
    return f"""{candidate.architecture_id}: a network of {space_title(candidate.space)} for {study.data.name}, the choice of the sweep “{study.name}”.

# What it is

{_kind(network)} of the design space {space_title(candidate.space)},
{size.flops / 1e6:.2f} million multiply-adds for one image of {result.resolution} × {result.resolution} pixels, {size.params / 1e3:.0f} thousand parameters.
`architecture.yaml` holds it whole. It tells {study.data.num_classes} classes apart: {_CLASSES[study.data.name]}.

# How good it is

| estimate | error | {100 * result.confidence:g} % interval | grounds |
|---|---|---|---|
| in the sweep | {in_sweep.error_pct:.2f} % | {_interval(in_sweep)} | {result.num_validation:,} validation images, one seed, {_epochs(result.sweep_epochs)}; the best of many, so it flatters |
| confirmed | {_confirmed(confirmed)} | {_interval(confirmed)} | the same budget and images, {_seeds(confirmed)} |
| at full scale | {full_scale.error_pct:.2f} % | {_interval(full_scale)} | {result.num_test:,} test images, one seed, {_epochs(result.epochs)} on {result.num_train:,} images |

Chosen by validation error alone; the test images were opened once, after the last epoch. {_regression(flattered)}

# How it was trained

{_optimizer(recipe)}; learning rate {result.learning_rate:g}, {_schedule(recipe)},
{_epochs(result.epochs)}{"" if recipe.drop_last else ", the last short batch of each too"}; {_augmentation(recipe)}; {recipe.precision}. Workers: {result.num_workers}.
The batch size of {result.batch_size} is that of all workers together, whatever their number. So the learning rate does not depend on
it either; batch statistics are those of the whole batch, and any number of workers gives the same curve within rounding.

# The data

{_DATA[study.data.name]}. All {result.num_train:,} training images, at {result.resolution} pixels.
Pixels from 0 to 1, less {result.pixel_mean:.6f}, divided by {result.pixel_std:.6f}.

# How to load it

`weights.pt` is a state dict, and loading it runs no code. In the folder of this file:

```python
import hashlib
from pathlib import Path

import torch

from sweep.models import build
from sweep.spaces import resolve

assert hashlib.sha256(Path("weights.pt").read_bytes()).hexdigest() == "{result.weights_sha256}"
network = build(resolve("architecture.yaml"), resolution={result.resolution}, channels=1, classes={study.data.num_classes})
network.load_state_dict(torch.load("weights.pt", weights_only=True))
network.eval()


def predict(images):  # uint8, (batch, {result.resolution}, {result.resolution})
    with torch.inference_mode():
        return network((images.unsqueeze(1) / 255 - {result.pixel_mean!r}) / {result.pixel_std!r}).argmax(1)
```

# Where it comes from

| | |
|---|---|
| study | {study.name}, hash {metadata.get("study_hash", "not recorded")} |
| trial | {candidate.trial_id} of {result.num_networks} networks, scale {candidate.scale} |
| seeds | study {study.seed}, this training {result.seed} |
| commit | {provenance.get("git_commit") or "not recorded"} |
| versions | {", ".join(f"{name} {number}" for name, number in versions.items())} |
| machine | {", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())}; trained on {", ".join(hosts)} |
| training time | {result.train_time_s:.0f} s |
| weights | SHA-256 {result.weights_sha256} |
"""  # noqa: E501


def _kind(network: Network) -> str:
    if isinstance(network, Mlp):
        return f"A multilayer perceptron of {network.depth} hidden layers"
    if isinstance(network, Vit):
        return f"A vision transformer of {network.depth} blocks"
    return f"A convolutional network of {network.depth} blocks"


def _optimizer(recipe: Recipe) -> str:
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[recipe.optimizer]
    nesterov = " (Nesterov)" if recipe.nesterov and recipe.momentum else ""
    momentum = f"momentum {recipe.momentum:g}{nesterov}" if recipe.momentum else "no momentum"
    means = momentum if name == "SGD" else f"betas {recipe.momentum:g} and {recipe.beta2:g}"
    amounts = {
        "weight decay": recipe.weight_decay,
        "L1 decay": recipe.l1_decay,
        "gradients clipped to norm": recipe.gradient_clip,
        "label smoothing": recipe.label_smoothing,
    }
    return ", ".join([f"{name} with {means}", *_named(amounts)])


def _schedule(recipe: Recipe) -> str:
    shares = ", ".join(f"{100 * share:g} %" for share in recipe.step_at)
    course = {
        "cosine": "one cosine to zero",
        "constant": "constant",
        "step": f"times {recipe.step_factor:g} after {shares} of all steps",
        "one_cycle": f"one cycle that rises for {100 * recipe.cycle_rise:g} % of all steps",
    }[recipe.schedule]
    return f"linear warm-up over {recipe.warmup_steps} steps, {course}" if recipe.warmup_steps else course


def _augmentation(recipe: Recipe) -> str:
    amounts = {
        "random erasing with probability": recipe.random_erasing,
        "mixup with alpha": recipe.mixup,
    }
    shifts = [f"shifts by up to {recipe.crop_padding} pixels"] if recipe.crop_padding else []
    return ", ".join([*(["random flips"] if recipe.flip else []), *shifts, *_named(amounts)]) or "no augmentation"


def _named(amounts: Mapping[str, float]) -> list[str]:
    return [f"{name} {amount:g}" for name, amount in amounts.items() if amount]


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low_pct is None or estimate.high_pct is None:
        return "–"
    return f"{estimate.low_pct:.2f} to {estimate.high_pct:.2f}, over {estimate.spread}"


def _confirmed(estimate: Estimate | None) -> str:
    return "not confirmed" if estimate is None else f"{estimate.error_pct:.2f} %"


def _epochs(number: int) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"


def _seeds(estimate: Estimate | None) -> str:
    num = 0 if estimate is None else estimate.num
    return f"{num} fresh seed{'' if num == 1 else 's'}"


def _regression(points: float | None) -> str:
    if points is None:
        return "No fresh seed confirms the sweep's estimate."
    return f"The sweep's best looked {points:.2f} points better than fresh seeds confirm." if points > 0 else ""
