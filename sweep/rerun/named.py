"""A network that the user names in place of the sweep's choice.

In: a text as `sweep show` takes it (a name, a YAML file, parameters). Out: a `Candidate` of no space and no trial,
whose images are those of the scale that the sweep's best was found at. Nothing of the sweep speaks of it, so there is
nothing to confirm.
"""

from sweep.records import Tables
from sweep.rerun.choose import Candidate, choose
from sweep.rerun.workplace import resolution_at_full_scale
from sweep.spaces import complexity, resolve
from sweep.studies import Study

OPTION = "--network"


def named_candidate(text: str, tables: Tables, study: Study) -> Candidate:
    """Raises `ValueError` where the text names no network, or one that cannot take the images."""
    (best,) = choose(tables, 1)
    data = study.data
    try:
        network = resolve(text)
        resolution = resolution_at_full_scale(study, best.scale)
        complexity(network, resolution=resolution, channels=data.num_channels, classes=data.num_classes)
    except ValueError as error:
        raise ValueError(f"{OPTION}: {error}") from error
    return Candidate(
        trial_id=text,
        space="",
        scale=best.scale,
        architecture_id=network.id,
        architecture=network.to_json(),
        sweep_error_pct=None,
    )
