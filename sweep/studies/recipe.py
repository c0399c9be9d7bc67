"""How a network trains: optimiser, schedule, regularisation, augmentation and precision as the settings of a table.

In: the table `[recipe]`, or the name of one of `PRESETS` in its place. Out: a `Recipe`. Raises `ValueError` where
settings do not go together: one that would change nothing is refused, so that equal trainings have equal settings.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sweep.studies.settings import Count, Settings, Share

PRESETS: dict[str, dict[str, Any]] = {
    # d2l.ai 8.8 (SEED.md, row 15): `d2l.Trainer` and `d2l.FashionMNIST(batch_size=128)` with lr = 0.05. Its loader
    # keeps the last short batch. One thing is not of the recipe: d2l leaves pixels between 0 and 1, here they are
    # normalised.
    "seed": {
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_steps": 0,
        "label_smoothing": 0.0,
        "flip": False,
        "crop_padding": 0,
        "drop_last": False,
        "precision": "fp32",
    }
}

_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Inside = Annotated[float, Field(gt=0, lt=1)]

_WANTS = {
    "nesterov": ("optimizer", ("sgd",)),
    "beta2": ("optimizer", ("adam", "adamw")),
    "step_at": ("schedule", ("step",)),
    "step_factor": ("schedule", ("step",)),
    "cycle_rise": ("schedule", ("one_cycle",)),
}
"""Settings that only go with certain values of another one."""


class Recipe(Settings):
    """How a network trains; by default SGD with momentum, linear warm-up, one cosine over all its epochs to zero.

    `momentum` is beta1 of Adam. `weight_decay` is the L2 penalty, added to the gradients, but decoupled from them in
    "adamw". `l1_decay` times the sign of each parameter (0 at 0, the subgradient of an L1 penalty) is added to its
    gradient, whatever the optimiser. Both penalise all parameters, biases and norms too. `gradient_clip` is the
    largest norm that the loss's gradients have together, before penalties; 0 for none.

    `schedule`: "cosine" falls to zero over all epochs; "constant"; "step" falls by `step_factor` after each of the
    shares `step_at` of all steps; "one_cycle" rises by a cosine from a 25th for the share `cycle_rise` of all steps,
    then falls by another to about zero (Smith 2018). The first `warmup_steps` are a linear rise on top of it.

    `mixup` is alpha of the Beta distribution from which each batch draws how far its images are mixed with each other
    (Zhang et al. 2018); 0 for none. `random_erasing` is the probability that an image loses a rectangle (Zhong et al.
    2020). `drop_last`: whether the images left over after the last full batch of an epoch go unseen; else they are a
    batch too, but for a single one, which has no batch statistics.
    """

    batch_size: Count = 128
    drop_last: bool = True
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    l1_decay: _NotNegative = 0.0
    gradient_clip: _NotNegative = 0.0
    schedule: Literal["cosine", "constant", "step", "one_cycle"] = "cosine"
    step_at: Annotated[tuple[_Inside, ...], Field(min_length=1, strict=False)] = (0.5, 0.75)
    step_factor: _Inside = 0.1
    cycle_rise: _Inside = 0.3
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    mixup: _NotNegative = 0.0
    random_erasing: Share = 0.0
    flip: bool = True
    crop_padding: Annotated[int, Field(ge=0)] = 2
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="before")
    @classmethod
    def _defaults_that_fit(cls, table: Any) -> Any:
        """What another optimiser or schedule does without is off unless it is asked for."""
        if not isinstance(table, dict):
            return table
        if table.get("optimizer", "sgd") != "sgd":
            table = {"nesterov": False, **table}
        if table.get("schedule") == "one_cycle":
            table = {"warmup_steps": 0, **table}
        return table

    @model_validator(mode="after")
    def _go_together(self) -> "Recipe":
        for name, (other, values) in _WANTS.items():
            value, without = getattr(self, name), False if name == "nesterov" else type(self).model_fields[name].default
            if value != without and getattr(self, other) not in values:
                raise ValueError(
                    f"{name} = {value!r} goes with {other} = {' or '.join(map(repr, values))}, not with "
                    f"{getattr(self, other)!r}; leave it out, or change {other}"
                )
        if any(early >= late for early, late in zip(self.step_at, self.step_at[1:])):
            raise ValueError(f"step_at = {list(self.step_at)} does not rise; name each share once, the least first")
        if self.schedule == "one_cycle" and self.warmup_steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} with schedule = 'one_cycle', which rises by itself; "
                "leave it out, and set cycle_rise"
            )
        return self

    def num_steps(self, num_images: int) -> int:
        """Steps of an epoch on so many images."""
        full, rest = divmod(num_images, self.batch_size)
        return full + (0 if self.drop_last or rest <= 1 else 1)

    def smallest_batch(self, num_images: int) -> int:
        """Images of the smallest batch of an epoch that has one."""
        full = num_images // self.batch_size
        return self.batch_size if self.num_steps(num_images) == full else num_images % self.batch_size


def preset(name: str) -> dict[str, Any]:
    """The table that a name stands for. Raises `ValueError` where it stands for none."""
    if name not in PRESETS:
        raise ValueError(f"is no preset; name one ({', '.join(PRESETS)}), or write a table")
    return dict(PRESETS[name])
