"""Studies: what is asked, validated before anything starts; and those that ship."""

from sweep.studies.data import PUBLISHED, Data
from sweep.studies.reading import load_study, shipped_studies, study_from_dict
from sweep.studies.recipe import PRESETS, Recipe
from sweep.studies.scale import Scale
from sweep.studies.seeds import derive_seed, draw_share
from sweep.studies.study import (
    MAX_TRIALS,
    TRAIN,
    Rerun,
    Stopping,
    Study,
)

__all__ = [
    "MAX_TRIALS",
    "PRESETS",
    "PUBLISHED",
    "TRAIN",
    "Data",
    "Recipe",
    "Rerun",
    "Scale",
    "Stopping",
    "Study",
    "derive_seed",
    "draw_share",
    "load_study",
    "shipped_studies",
    "study_from_dict",
]
