"""A study with scaled scales, small enough to draw in no time: pairs, a part of them larger still, repeats of both."""

from typing import Any

from sweep.studies import Study, load_study, study_from_dict

SPACES = ("anynet_c", "anynet_d")
LARGE = {"name": "large", "of": "small", "width_factor": 2.0, "depth_factor": 1.5, "resolution": 28, "max_epochs": 12,
         "grace_epochs": 2, "num_train": 9000}  # fmt: skip
LARGER = {"name": "larger", "of": "large", "width_factor": 1.5, "trials_per_space": 3}
AGAIN = {"name": "again", "of": "small", "trials_per_space": 2}
LARGE_AGAIN = {"name": "large_again", "of": "large", "trials_per_space": 2}


def scaled_study(*scales: dict[str, Any], num: int = 5, **stopping: Any) -> Study:
    """The quickstart's scale, then the others: those above unless told."""
    table = load_study("quickstart").to_dict()
    small = {key: value for key, value in table["scale"][0].items() if value}
    return study_from_dict(
        table
        | {"name": "scaled", "spaces": list(SPACES), "trials_per_space": num}
        | {"scale": [small, *(scales or (LARGE, LARGER, AGAIN, LARGE_AGAIN))]}
        | {"stopping": table["stopping"] | {"audit_fraction": 0.3} | stopping}
    )
