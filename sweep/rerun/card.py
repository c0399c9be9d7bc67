"""The model card: what was trained and how, what its error is and on what grounds, how to load it, where it comes from.

In: a `RerunResult` and the sweep's metadata. Out: Markdown that lies beside the weights and describes the version in
the registry. The code in it is executed by a test.
"""

from collections.abc import Mapping
from typing import Any

from dashboards.words import signed
from sweep.rerun.result import RerunResult
from sweep.spaces import Mlp, Network, Vit, complexity, network_from_json, space_title
from sweep.statistics import Estimate, ensemble_gain, estimates, flattery_pct, over_images
from sweep.studies import Recipe, Study, study_from_dict

_DATA = {
    "fashion_mnist": (
        "[Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist) (Xiao, Rasul and Vollgraf 2017, "
        "arXiv:1708.07747), MIT licence: 28 × 28 pixels, grey, ten classes of clothing"
    ),
    "mnist": "MNIST (LeCun, Bottou, Bengio and Haffner 1998): 28 × 28 pixels, grey, handwritten digits",
    "cifar10": "CIFAR-10 (Krizhevsky 2009): 32 × 32 pixels, RGB, ten classes of things and animals",
    "cifar100": "CIFAR-100 (Krizhevsky 2009): 32 × 32 pixels, RGB, a hundred classes",
    "svhn": "SVHN (Netzer et al. 2011), cropped digits: 32 × 32 pixels, RGB, house numbers",
    "image_folder": "A folder of images of the user's own",
    "arrays": "Images of the user's own",
}
_DIGITS = "the digits 0 to 9"
_CLASSES = {
    "fashion_mnist": (
        "T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot (0 to 9, in this order)"
    ),
    "mnist": _DIGITS,
    "cifar10": "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck (0 to 9, in this order)",
    "cifar100": "those of the data set's fine labels",
    "svhn": _DIGITS,
    "image_folder": "numbered in the order of their folders' names",
    "arrays": "numbered as their labels are",
}


def model_card(result: RerunResult, metadata: Mapping[str, Any]) -> str:
    """The card of `weights.pt`, and of the ensemble's if there is one."""
    what, loading = "`architecture.yaml` holds it whole.", _loading(result, metadata)
    return card(result, metadata, what=what, loading=loading, ensemble=_ensemble(result))


def card(result: RerunResult, metadata: Mapping[str, Any], *, what: str, loading: str, ensemble: str = "") -> str:
    """A card of this network in any form: `what` says where it is, `loading` how it becomes a network again."""
    study = study_from_dict(metadata["study"])
    candidate, recipe = result.candidate, study.recipe
    network = network_from_json(candidate.architecture)
    channels, classes = study.data.num_channels, study.data.num_classes
    size = complexity(network, resolution=result.resolution, channels=channels, classes=classes)
    provenance = result.provenance
    machine, versions = provenance.get("machine") or {}, provenance.get("versions") or {}
    hosts = sorted({row["host"] for row in result.history})
    return f"""{candidate.architecture_id}: {_title(result, study)}.

# What it is

{_kind(network)}{_of_space(candidate.space)},
{size.flops / 1e6:.2f} million multiply-adds for one image of {result.resolution} × {result.resolution} pixels, {size.params / 1e3:.0f} thousand parameters.
{what} It tells {study.data.num_classes} classes apart: {_CLASSES[study.data.name]}.

# How good it is

{_estimates(result)}
{ensemble}
# How it was trained

{_optimizer(recipe)}; learning rate {result.learning_rate:g}, {_schedule(recipe)},
{_epochs(result.epochs)}{"" if recipe.drop_last else ", the last short batch of each too"}; {_augmentation(recipe)}; {recipe.precision}. Workers: {result.num_workers}.
The batch size of {result.batch_size} is that of all workers together, whatever their number. So the learning rate does not depend on
it either; batch statistics are those of the whole batch, and any number of workers gives the same curve within rounding.
{_began_from(result)}
# The data

{_DATA[study.data.name]}. Digest {(metadata.get("data") or {}).get("digest", "not recorded")}. All {result.num_train:,} training images, at {result.resolution} pixels.
Pixels from 0 to 1, less {_figures(result.pixel_mean)}, divided by {_figures(result.pixel_std)}{"" if channels == 1 else " (red, green, blue)"}.

# How to load it

{loading}
# Where it comes from

| | |
|---|---|
| study | {study.name}, hash {metadata.get("study_hash", "not recorded")} |
| trial | {_trial(result)} |
| seeds | study {study.seed}, this training {result.seed} |
| commit | {provenance.get("git_commit") or "not recorded"} |
| versions | {", ".join(f"{name} {number}" for name, number in versions.items())} |
| machine | {", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())}; trained on {", ".join(hosts)} |
| training time | {result.train_time_s:.0f} s |
| weights | SHA-256 {result.weights_sha256} |
"""  # noqa: E501


def _loading(result: RerunResult, metadata: Mapping[str, Any]) -> str:
    data = study_from_dict(metadata["study"]).data
    channels, classes = data.num_channels, data.num_classes
    return f"""`weights.pt` is a state dict, and loading it runs no code. In the folder of this file:

```python
import hashlib
from pathlib import Path

import torch

from sweep.models import build
from sweep.spaces import resolve

assert hashlib.sha256(Path("weights.pt").read_bytes()).hexdigest() == "{result.weights_sha256}"
network = build(
    resolve("architecture.yaml"), resolution={result.resolution}, channels={channels}, classes={classes}
)
network.load_state_dict(torch.load("weights.pt", weights_only=True))
network.eval()


def predict(images):  # uint8, (batch, {result.resolution}, {result.resolution}{"" if channels == 1 else f", {channels}"})
    pixels = {"images.unsqueeze(1)" if channels == 1 else "images.permute(0, 3, 1, 2)"} / 255
    with torch.inference_mode():
        return network((pixels - {per_channel(result.pixel_mean)}) / {per_channel(result.pixel_std)}).argmax(1)
```
"""  # noqa: E501


def _title(result: RerunResult, study: Study) -> str:
    if result.named:
        return (
            f"{result.named}, which a user named, trained for {study.data.name} as the networks of the sweep "
            f"“{study.name}” were"
        )
    of_space = space_title(result.candidate.space)
    return f"a network of {of_space} for {study.data.name}, the choice of the sweep “{study.name}”"


def _of_space(space: str) -> str:
    return f" of the design space {space_title(space)}" if space else ""


def _trial(result: RerunResult) -> str:
    if result.named:
        return f"none: named by a user in place of the choice among {result.num_networks} networks"
    return f"{result.candidate.trial_id} of {result.num_networks} networks, scale {result.candidate.scale}"


def _estimates(result: RerunResult) -> str:
    in_sweep, confirmed, full_scale = estimates(result.to_dict())
    rows = [
        f"| estimate | error | {100 * result.confidence:g} % interval | grounds |",
        "|---|---|---|---|",
    ]
    if in_sweep is not None:
        rows += [
            f"| in the sweep | {in_sweep.error_pct:.2f} % | {_interval(in_sweep)} | {result.num_validation:,} "
            f"validation images, one seed, {_epochs(result.sweep_epochs)}; the best of many, so it flatters |",
            f"| confirmed | {_confirmed(confirmed)} | {_interval(confirmed)} | the same budget and images, "
            f"{_seeds(confirmed)} |",
        ]
    rows.append(
        f"| at full scale | {full_scale.error_pct:.2f} % | {_interval(full_scale)} | {result.num_test:,} test images, "
        f"one seed, {_epochs(result.epochs)} on {result.num_train:,} images |"
    )
    if result.named:
        rows += [
            "",
            "No validation chose it; the test images were opened once, after the last epoch. Whoever names several and "
            "keeps the best has chosen by the test images.",
        ]
    else:
        flattered = _regression(flattery_pct(result.to_dict()))
        rows += [
            "",
            f"Chosen by validation error alone; the test images were opened once, after the last epoch. {flattered}",
        ]
    return "\n".join(rows) + "\n"


def _ensemble(result: RerunResult) -> str:
    """What several networks together cost, and what they gain."""
    ensemble = result.ensemble
    if ensemble is None:
        return ""
    gain, own = ensemble_gain(result.to_dict()), ensemble.members[0]
    together = over_images(ensemble.test_error_pct, result.num_test, confidence=result.confidence)
    members = "\n".join(
        f"| {'this one' if member is own else f'`ensemble/{member.folder}`'} | {member.trial_id} | "
        f"{member.validation_error_pct:.2f} % | {member.flops / 1e6:.2f} M | {member.params / 1e3:.0f} k | "
        f"{member.seed} | {member.weights_sha256} |"
        for member in ensemble.members
    )
    known = (
        " The error of this network alone was known when the ensemble was asked for."
        if ensemble.single_was_known
        else ""
    )
    return f"""
# As the first of an ensemble

The best {len(ensemble.members)} by validation error, each trained at full scale with a seed of its own, answer together by the mean of their
softmax probabilities: {together.error_pct:.2f} % error on the same {result.num_test:,} test images ({100 * result.confidence:g} % interval {_interval(together)}), {signed(gain.points)} points
against this network alone ({signed(gain.low)} to {signed(gain.high)}: paired, adjusted Wald of Bonett and Price 2012; {ensemble.num_only_single_wrong} images only this network has wrong,
{ensemble.num_only_ensemble_wrong} only the ensemble). It costs {ensemble.flops / 1e6:.2f} million multiply-adds an image and {ensemble.params / 1e3:.0f} thousand parameters, {ensemble.flops / own.flops:.1f} and {ensemble.params / own.params:.1f} times
those of this network. The interval is that of the choice of images; another training of the same networks differs too.{known}

| weights | trial | validation error | multiply-adds | parameters | seed | SHA-256 |
|---|---|---|---|---|---|---|
{members}
"""  # noqa: E501


def _began_from(result: RerunResult) -> str:
    start = result.warm_start
    if start is None:
        return ""
    return (
        f"It began from the weights of {start.source} ({start.architecture_id}, SHA-256 {start.weights_sha256}): "
        f"{start.num_whole} of its tensors taken whole, {start.num_part} into their leading channels, "
        f"{start.num_fresh} fresh.\n"
    )


def _figures(value: Any) -> str:
    """A number, or one for each channel."""
    return ", ".join(f"{number:.6f}" for number in value) if isinstance(value, tuple | list) else f"{value:.6f}"


def per_channel(value: Any) -> str:
    """As Python that broadcasts over (batch, channels, height, width)."""
    return f"torch.tensor({list(value)!r})[:, None, None]" if isinstance(value, tuple | list) else repr(value)


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
