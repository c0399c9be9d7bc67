"""I5: the sweep has the trials that its study asks for, each once, and MLflow knows them with the same configuration.

In: a `JournalRows`, `Records`. Out: a `Check` over the trials. That they are the very trials of an undisturbed sweep
shows only beside one: against.py.
"""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from sweep.verify.check import Check, some
from sweep.verify.journal import JournalRows, Row
from sweep.verify.mlflow import Records, Run

_PER_STAGE = {
    "depths": "depth", "widths": "width", "group_widths": "group_width", "bottleneck_ratios": "bottleneck_ratio",
}  # fmt: skip
# What tells a network of another family, and the params that tell it in MLflow.
_OF_FAMILY = {"mlp": ("widths",), "vit": ("num_blocks", "width", "num_heads", "patch")}
_SHOWN_AS = {"num_blocks": "depth"}
_PARTS_OF_SIZE = ("stages", "widths", "width", "num_heads", "num_blocks")  # of a network, what scaling changes
_FORM = re.compile(r"(?P<stratum>/\d+)?(?P<extension>/\+[1-9]\d*)?")

Place = tuple[str, str]
"""The names of a space and a scale."""


def check_population(journal: JournalRows, check: Check) -> None:
    """What the journal alone tells."""
    for trial in journal.trials:
        complaints = list(_complaints(journal, trial))
        check.ask(not complaints, f"{trial['trial_id']}: {'; '.join(complaints)}")
    for column in ("launch_order", "seed"):
        for value, count in Counter(trial[column] for trial in journal.trials).items():
            twins = [trial["trial_id"] for trial in journal.trials if trial[column] == value] if count > 1 else []
            check.require(count == 1, f"{some(twins)}: have the same {column}, {value}")
    orders = [trial["launch_order"] for trial in journal.trials]
    missing = set(range(len(orders))) - set(orders)
    check.require(not missing, f"no trial has the launch order {some(missing)}, of {len(orders)} trials")
    _check_numbers(journal, check)


def _check_numbers(journal: JournalRows, check: Check) -> None:
    """Each space has at each scale the trials that the study and its extensions say: those that are drawn from 0 on,
    those that are scaled from them by the numbers of their originals."""
    expected = expected_draws(journal)
    draws: dict[Place, list[int]] = defaultdict(list)
    for trial in journal.trials:
        draws[trial["space"], trial["scale"]].append(trial["draw"])
    for space, scale in sorted(expected.keys() | draws.keys()):
        wanted, found = expected.get((space, scale), []), sorted(draws[space, scale])
        check.require(
            len(found) == len(wanted),
            f"{space} at scale {scale} has {len(found)} trials, and the study asks for {len(wanted)}",
        )
        missing = set(wanted) - set(found)
        check.require(not missing, f"{space} at scale {scale} lacks the draws {some(missing)} of {len(wanted)}")


def expected_draws(journal: JournalRows) -> dict[Place, list[int]]:
    """The numbers of the trials, as the study and then each extension added them."""
    exempt = {(trial["space"], trial["scale"], trial["draw"]) for trial in journal.trials if trial["audited"]}
    expected: dict[Place, list[int]] = defaultdict(list)
    asked = [{"spaces": journal.study["spaces"], "trials": journal.study["trials_per_space"]}]
    for part in asked + journal.meta.get("extensions", []):
        for scale in journal.study["scale"]:
            name, of, most = scale["name"], scale.get("of"), scale.get("trials_per_space")
            for space in part["spaces"]:
                here = expected[space, name]
                if not of:
                    here += range(len(here), len(here) + part["trials"])
                    continue
                # Of a part of the originals: first those that the lottery exempted there, then in the order of draws.
                left = sorted(
                    ((space, of, draw) not in exempt, draw) for draw in expected[space, of] if draw not in set(here)
                )
                here += [draw for _, draw in left][: max(0, most - len(here)) if most else None]
    return expected


def _complaints(journal: JournalRows, trial: Row) -> Iterator[str]:
    name = f"{trial['space']}-{trial['scale']}-{trial['draw']:04d}"
    if trial["trial_id"] != name:
        yield f"its space, scale and draw make it {name}"
    found = hashlib.sha256(trial["architecture"].encode()).hexdigest()[:12]
    if found != trial["architecture_id"]:
        yield f"its architecture has the id {found}, not {trial['architecture_id']}"
    if _numbers(trial) is None:
        yield "its architecture is not the JSON of a network"
    if min(trial["flops"], trial["params"], trial["activations"]) <= 0:
        yield f"it has {trial['flops']} flops, {trial['params']} params and {trial['activations']} activations"
    if (trial["audited"], trial["audited_if_worst"]) not in ((0, 0), (0, 1), (1, 1)):
        yield f"its audited is {trial['audited']}, and its audited_if_worst {trial['audited_if_worst']}"
    if journal.is_repeat(trial["scale"]) and not trial["audited"]:
        yield f"the scale {trial['scale']} is a repeat, and it is not exempt from stopping"
    yield from _wrong_cohort(journal, trial)
    yield from _unlike_its_original(journal, trial)


def _wrong_cohort(journal: JournalRows, trial: Row) -> Iterator[str]:
    start = f"{trial['space']}/{trial['scale']}"
    form = _FORM.fullmatch(trial["cohort"].removeprefix(start)) if trial["cohort"].startswith(start) else None
    if form is None:
        yield f"its cohort is {trial['cohort']}, not {start} or a part of it"
        return
    stratum = _stratum(journal, trial)
    if form["stratum"] != stratum:
        yield f"its cohort is {trial['cohort']}, and its {trial['flops']} flops put it in {start}{stratum or ''}"
    number = int((form["extension"] or "/+0")[2:])
    extensions = len(journal.meta.get("extensions", [])) if journal.stopping["method"] == "synchronous" else 0
    if number > extensions:
        yield f"its cohort is {trial['cohort']}, of {extensions} extensions"


def _stratum(journal: JournalRows, trial: Row) -> str | None:
    """The band of flops, of equal ratio, where the study asks for several: that of the network which was drawn."""
    num_strata = journal.stopping.get("flops_strata", 1)
    while (original := journal.original_of(trial)) is not None:
        trial = original
    scale = journal.scales.get(trial["scale"])
    if num_strata == 1 or scale is None or scale["flops_min"] is None or trial["flops"] <= 0:
        return None
    low, high = scale["flops_min"], scale["flops_max"]
    share = math.log(trial["flops"] / low) / math.log(high / low)
    return f"/{min(int(share * num_strata), num_strata - 1)}"


def _unlike_its_original(journal: JournalRows, trial: Row) -> Iterator[str]:
    """A scaled network has its original's parts, and as many blocks as the factor says (widths are rounded to what
    groups allow, which is not worked out here); where both factors are 1 it is the same."""
    original = journal.original_of(trial)
    if original is None:
        return
    name, scale = original["trial_id"], journal.scales[trial["scale"]]
    try:
        mine, its = (json.loads(row["architecture"]) for row in (trial, original))
        depths = [max(1, math.floor(depth * scale["depth_factor"] + 0.5)) for depth in _depths(its)]
        if (scale["width_factor"], scale["depth_factor"]) == (1, 1) and mine != its:
            yield f"its network is not that of {name}"
        elif _depths(mine) != depths:
            yield f"its network has {_depths(mine)} blocks, and {name} scaled has {depths}"
        elif _parts(mine) != _parts(its):
            yield f"its network has other parts than {name}"
    except (ValueError, KeyError, TypeError, AttributeError):  # said already
        return


def _depths(network: dict[str, Any]) -> list[int]:
    if "stages" in network:
        return [stage["depth"] for stage in network["stages"]]
    return [network["num_blocks"] if "num_blocks" in network else len(network["widths"])]


def _parts(network: dict[str, Any]) -> dict[str, Any]:
    ratios = [stage["bottleneck_ratio"] for stage in network.get("stages", [])]
    return {key: value for key, value in network.items() if key not in _PARTS_OF_SIZE} | {"bottleneck_ratios": ratios}


def _numbers(trial: Row) -> dict[str, list[Any]] | None:
    """By the param that shows them: the numbers that tell a network, one for each stage or layer."""
    try:
        network = json.loads(trial["architecture"])
        if "family" in network:
            told = {key: network[key] for key in _OF_FAMILY[network["family"]]}
            return {_SHOWN_AS.get(key, key): v if isinstance(v, list) else [v] for key, v in told.items()}
        columns = {key: [stage[column] for stage in network["stages"]] for key, column in _PER_STAGE.items()}
        return columns if network["stages"] else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


# -- MLflow ------------------------------------------------------------------------------------------------------------


def check_configurations(journal: JournalRows, records: Records, at_work: bool, check: Check) -> None:
    """The params and tags of each run are those of its trial."""
    for run in records.active:
        trial = journal.trial_of.get(run.trial_id)
        if run.kind == "trial" and trial is not None and (trial["delivered_outcome"] is not None or not at_work):
            wrong = list(_differences(trial, run))
            check.ask(not wrong, f"{run}: {'; '.join(wrong)}")


def _differences(trial: Row, run: Run) -> Iterator[str]:
    audited = "yes" if trial["audited"] else "no"
    tags = {name: trial[name] for name in ("space", "scale", "cohort", "architecture_id")} | {"audited": audited}
    params = {"space": trial["space"], "scale": trial["scale"], "seed": str(trial["seed"]), "audited": audited}
    for what, wanted, found in (("tag", tags, run.tags), ("param", params, run.params)):
        for key, value in wanted.items():
            if found.get(key) != value:
                yield f"its {what} {key} is {found.get(key)!r}, and the trial's {value!r}"
    for key, numbers in (_numbers(trial) or {}).items():
        if not _same(run.params.get(key), numbers):
            yield f"its param {key} is {run.params.get(key)!r}, and the trial's {some_numbers(numbers)!r}"


def some_numbers(numbers: list[Any]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _same(told: str | None, numbers: list[Any]) -> bool:
    """A param shows six digits of a number."""
    try:
        found = [float(word) for word in (told or "").split(", ")]
        return len(found) == len(numbers) and all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(found, numbers))
    except (ValueError, TypeError):
        return False
