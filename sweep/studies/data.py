"""The images of a study: which data set, and how many of its images train a trial and judge it.

In: the table `[data]` of a study. Out: `Data`. Its `num_classes` and `num_channels` decide the population, so they are
known before any machine is looked at: by the name of a published set, or because the study states them. What is found
on a machine is compared with them later (sweep/training/data).
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from sweep.studies.settings import Count, Settings, Share

DataName = Literal["fashion_mnist", "mnist", "cifar10", "cifar100", "svhn", "image_folder", "arrays"]


@dataclass(frozen=True)
class Published:
    """What everyone knows of a data set. `num_images` are those for training; `num_channels` 1 is grey, 3 is RGB."""

    title: str
    num_images: int
    num_classes: int
    num_channels: int


PUBLISHED = {
    "fashion_mnist": Published("Fashion-MNIST", 60_000, 10, 1),
    "mnist": Published("MNIST", 60_000, 10, 1),
    "cifar10": Published("CIFAR-10", 50_000, 10, 3),
    "cifar100": Published("CIFAR-100", 50_000, 100, 3),
    "svhn": Published("SVHN", 73_257, 10, 3),
}
_NUM_VALIDATION = 10_000


class Data(Settings):
    """The images: `num_train` of them train a trial, `num_validation` others judge it; the test set stays shut.

    `name`: a published set; "image_folder", the folder `path` with `train/<class>/…`; or "arrays", the user's own in
    the `.npz` or Parquet file `path`. The last two must state `num_classes`; their `num_channels` is 3 unless 1 is
    stated. Of them `max_bad_share` may be images that cannot be read: those are named and left out.
    """

    name: DataName = "fashion_mnist"
    path: str = ""
    num_train: Count = PUBLISHED["fashion_mnist"].num_images - _NUM_VALIDATION
    num_validation: Count = _NUM_VALIDATION
    max_bad_share: Share = 0.001
    # The labels of the cache have 16 bits.
    num_classes: Annotated[int, Field(ge=2, le=2**16)] = PUBLISHED["fashion_mnist"].num_classes
    num_channels: Literal[1, 3] = 1

    @model_validator(mode="before")
    @classmethod
    def _what_the_name_says(cls, given: Any) -> Any:
        if not isinstance(given, dict) or (name := given.get("name", "fashion_mnist")) not in get_args(DataName):
            return given
        if known := PUBLISHED.get(name):
            return {
                "num_train": known.num_images - _NUM_VALIDATION,
                "num_classes": known.num_classes,
                "num_channels": known.num_channels,
                **given,
            }
        if "num_classes" not in given:
            raise ValueError(
                f"num_classes is missing; add it: the networks of {name} are drawn for that many classes, before any "
                "machine looks at the images"
            )
        return {"num_channels": 3, **given}

    @model_validator(mode="after")
    def _fits(self) -> "Data":
        if not (known := PUBLISHED.get(self.name)):
            return self
        for field in ("num_classes", "num_channels"):
            given, right = getattr(self, field), getattr(known, field)
            if given != right:
                raise ValueError(f"{field} = {given}, but {self.name} has {right}; leave it out")
        wanted = self.num_train + self.num_validation
        if wanted > known.num_images:
            raise ValueError(
                f"num_train + num_validation = {wanted}, but {self.name} has {known.num_images} training images; "
                "lower one of them"
            )
        return self

    @property
    def title(self) -> str:
        """What people call it."""
        return PUBLISHED[self.name].title if self.name in PUBLISHED else self.name.replace("_", " ")

    @property
    def not_counted(self) -> set[str]:
        """Fields that no study's hash counts: where the images lie, what may be wrong with them, and what the name of
        a published set says already."""
        implied = {"num_classes", "num_channels"} if self.name in PUBLISHED else set()
        return {"path", "max_bad_share"} | implied
