"""The parts that all stages of an AnyNet share: its stem, its kind of block, norm, activation, regularisation.

In: values as a study, a YAML file or a caller gives them. Out: a frozen, validated `Parts`, which both a single
network (architecture.py) and the ranges of a space (ranges.py) build on. The defaults are the X block of Radosavovic
et al. 2020; the others are the choices that the literature varies, named after it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sweep.spaces.checks import choice_of, plain_number, positive_int, refusal

BLOCKS = ("bottleneck", "basic")  # ResNeXt or ResNet with 1×1, k×k, 1×1; ResNet with two k×k (He et al. 2016)
ACTIVATION_ORDERS = ("post", "pre")  # conv → norm → activation; norm → activation → conv (He et al. 2016, Identity …)
DOWNSAMPLINGS = ("stride", "pool")  # the first block of a stage strides, or a 2×2 max-pooling stands before it
NORMS = ("batch", "layer", "group", "none")
ACTIVATIONS = ("relu", "gelu", "silu", "leaky_relu", "elu", "tanh", "sigmoid")
INITIALISATIONS = ("he", "xavier", "zero_last_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`stem_width` channels leave the stem, a convolution of `stem_kernel` pixels, with norm and activation after it,
    or before it where `stem_order` is "pre"; then a 3×3 max-pooling of stride 2 where `stem_pool` says so (large
    images).

    `se_ratio` 0 means no squeeze-and-excitation; otherwise each block squeezes to that share of its *input* width
    (RegNetY: 0.25). `conv_bias` keeps a bias beside the norm, as d2l.ai does. `dropout` is the rate before the
    classifier, `stochastic_depth` the chance that the last block is skipped in training (Huang et al. 2016; it rises
    linearly from zero). Of `initialisation`, "he" is for convolutions over the fan-out, "xavier" uniform (d2l.ai), and
    "zero_last_norm" is He's with each block's last scale at zero (with `activation_order` "pre", its last convolution,
    which no norm follows). Raises ValueError naming field, value and remedy.
    """

    stem_width: int = 32
    stem_stride: int = 2
    stem_kernel: int = 3
    stem_order: str = "post"
    stem_pool: bool = False
    block: str = "bottleneck"
    kernel_size: int = 3
    activation_order: str = "post"
    downsampling: str = "stride"
    norm: str = "batch"
    activation: str = "relu"
    se_ratio: float = 0.0
    conv_bias: bool = False
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    initialisation: str = "he"

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if self.norm == "none" and self.initialisation == "zero_last_norm":
            raise refusal("initialisation", self.initialisation, "has no norm to set to zero", "use he or xavier")

    def parts(self) -> dict[str, Any]:
        """Each part by its name, as plain values."""
        values = {name: getattr(self, name) for name in CHECKS}
        return {name: plain_number(value) if isinstance(value, float) else value for name, value in values.items()}


def squeeze_width(width: int, se_ratio: float) -> int:
    """Channels between the two convolutions of squeeze-and-excitation, for a block of that *input* width.

    Half-even rounding, as pycls has it.
    """
    return round(width * se_ratio)


def checked_share(field: str, value: Any) -> float:
    """A rate from 0 up to, not including, 1."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or not 0 <= float(value) < 1:
        raise refusal(field, value, "is not a rate from 0 to below 1", "use 0 for none, or for example 0.1")
    return float(value)


def checked_flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refusal(field, value, "is neither true nor false", "write true or false")
    return value


def _stem_stride(field: str, value: Any) -> int:
    stride = positive_int(field, value)
    if stride > 2:
        raise refusal(field, value, "is neither 1 nor 2", "use 2 (the paper), or 1 for small images")
    return stride


def _odd_kernel(field: str, value: Any) -> int:
    kernel = positive_int(field, value)
    if kernel % 2 == 0:
        raise refusal(field, value, "is even, and would move the image", "use 1, 3, 5 or 7")
    return kernel


def _se_ratio(field: str, value: Any) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or not 0 <= float(value) <= 1:
        raise refusal(field, value, "is not between 0 and 1", "use 0 for none, 0.25 for RegNetY")
    return float(value)


def one_of(choices: Iterable[str]) -> Callable[[str, Any], str]:
    """The check of a part that is one of these words."""
    known = tuple(choices)
    return lambda field, value: choice_of(field, value, known)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "stem_width": positive_int,
    "stem_stride": _stem_stride,
    "stem_kernel": _odd_kernel,
    "stem_order": one_of(ACTIVATION_ORDERS),
    "stem_pool": checked_flag,
    "block": one_of(BLOCKS),
    "kernel_size": _odd_kernel,
    "activation_order": one_of(ACTIVATION_ORDERS),
    "downsampling": one_of(DOWNSAMPLINGS),
    "norm": one_of(NORMS),
    "activation": one_of(ACTIVATIONS),
    "se_ratio": _se_ratio,
    "conv_bias": checked_flag,
    "dropout": checked_share,
    "stochastic_depth": checked_share,
    "initialisation": one_of(INITIALISATIONS),
}

ALWAYS_TOLD = ("stem_width", "stem_stride", "se_ratio", "conv_bias")
"""The others go untold in a network's text where they have their default, so that the ids of networks stay."""
