"""The spaces that ship: AnyNet A to E, RegNet X and Y, ResNet blocks, the VioNet family, perceptrons, a transformer.

Out: `SPACES` by name, and `get_space`, which knows a user's own as well. Radosavovic et al. 2020 (sections 3.2, 3.3 and
4); VioNet is exercise 3 of d2l.ai 8.8: each of its spaces breaks one rule and keeps the others, and so is the matched
counterpart of the space that keeps them all.
"""

from collections.abc import Iterable

from sweep.spaces.anynet import AnyNetSpace
from sweep.spaces.checks import nearest
from sweep.spaces.mlp_space import MlpSpace
from sweep.spaces.rules import RULES
from sweep.spaces.space import Space
from sweep.spaces.vit_space import VitSpace

SE_RATIO = 0.25  # of RegNet Y

_STAGES = "per stage: depth log-uniform, (b, g) even among those that fit, width log-uniform among those that suit them"
_IN_ORDER = "as AnyNet C, then put in order"
_LINE = "(b, g) even; d, w_0, w_a, w_m log-uniform on the grid; those that give no member are rejected"
_ALIKE = "as AnyNet E in all that the broken rule leaves alone"

ANYNET_A = AnyNetSpace(
    name="anynet_a",
    title="AnyNet A",
    distribution=_STAGES,
    about="any stages of residual blocks: the space that the rules narrow",
    source="Radosavovic et al. 2020, Designing Network Design Spaces, section 3.2, AnyNetX_A",
    published_size=1.8e18,
)
ANYNET_B = AnyNetSpace(
    name="anynet_b",
    title="AnyNet B",
    parent=ANYNET_A,
    rule=RULES["shared_bottleneck_ratio"],
    bottleneck_ratios="shared",
    distribution="as AnyNet A, given that the stages share b",
    published_size=6.8e16,
)
ANYNET_C = AnyNetSpace(
    name="anynet_c",
    title="AnyNet C",
    parent=ANYNET_B,
    rule=RULES["shared_group_width"],
    bottleneck_ratios="shared",
    group_widths="shared",
    distribution="as AnyNet A, given that the stages share b and g",
    published_size=3.2e14,
)
ANYNET_D = AnyNetSpace(
    name="anynet_d",
    title="AnyNet D",
    parent=ANYNET_C,
    rule=RULES["widths_up"],
    bottleneck_ratios="shared",
    group_widths="shared",
    widths="up",
    distribution=_IN_ORDER,
    published_size=1.3e13,
)
ANYNET_E = AnyNetSpace(
    name="anynet_e",
    title="AnyNet E",
    parent=ANYNET_D,
    rule=RULES["depths_up"],
    bottleneck_ratios="shared",
    group_widths="shared",
    widths="up",
    depths="up",
    distribution=_IN_ORDER,
    published_size=5.5e11,
)


def _regnet(name: str, title: str, **traits) -> AnyNetSpace:
    return AnyNetSpace(
        name=name,
        title=title,
        bottleneck_ratios="shared",
        group_widths="shared",
        widths="up",
        depths="up",
        line="on",
        distribution=_LINE,
        **traits,
    )


REGNET_X = _regnet("regnet_x", "RegNet X", parent=ANYNET_E, rule=RULES["quantised_widths"], published_size=3.0e8)
REGNET_Y = _regnet(
    "regnet_y", "RegNet Y", parent=REGNET_X, rule=RULES["squeeze_excitation"], settings={"se_ratio": SE_RATIO}
)
RESNET_BOTTLENECK = _regnet(
    "resnet_bottleneck",
    "ResNet, bottleneck blocks",
    breaks=RULES["resnext_blocks"],
    counterpart=REGNET_X,
    settings={"group_widths": (0,)},
)
RESNET_BASIC = _regnet(
    "resnet_basic",
    "ResNet, basic blocks",
    breaks=RULES["resnext_blocks"],
    counterpart=REGNET_X,
    settings={"group_widths": (0,), "block": "basic", "bottleneck_ratios": (1,)},
)


def _vionet(name: str, title: str, breaks: str, **traits) -> AnyNetSpace:
    """AnyNet E in all but what breaks the rule."""
    kept = {"bottleneck_ratios": "shared", "group_widths": "shared", "widths": "up", "depths": "up"}
    return AnyNetSpace(
        name=f"vionet_{name}",
        title=f"VioNet, {title}",
        breaks=RULES[breaks],
        **{"counterpart": ANYNET_E, "distribution": _ALIKE, **kept, **traits},
    )


VIONETS = (
    _vionet("widths_down", "widths fall", "widths_up", widths="down"),
    _vionet("widths_equal", "widths equal", "widths_up", widths="equal"),
    _vionet("depths_down", "depths fall", "depths_up", depths="down"),
    _vionet("depths_equal", "depths equal", "depths_up", depths="equal"),
    _vionet("unshared_b", "b not shared", "shared_bottleneck_ratio", bottleneck_ratios="differ"),
    _vionet("unshared_g", "g not shared", "shared_group_width", group_widths="differ"),
    _vionet("inverted", "inverted bottleneck", "no_inverted_bottleneck", settings={"bottleneck_ratios": (0.5, 0.25)}),
    _vionet("depthwise", "depthwise", "no_depthwise_groups", settings={"group_widths": (1,)}),
    _vionet(
        "unquantised",
        "widths not quantised",
        "quantised_widths",
        line="off",
        counterpart=REGNET_X,
        distribution="as AnyNet E; those on a line are rejected",
    ),
)

_LAYERS = "depth and the width of each layer log-uniform, norm, skips and the other parts even"
MLP_A = MlpSpace(
    name="mlp_a",
    title="MLP A",
    distribution=_LAYERS,
    about="perceptrons whose layers have a width each: the space that the rules narrow",
    source="d2l.ai 8.8, exercise 4",
)
MLP_B = MlpSpace(
    name="mlp_b",
    title="MLP B",
    parent=MLP_A,
    rule=RULES["layers_narrow"],
    narrowing=True,
    distribution="as MLP A, the widths put in falling order",
)
_NORMED = {"norm": ("batch", "layer")}
MLP_C = MlpSpace(
    name="mlp_c",
    title="MLP C",
    parent=MLP_B,
    rule=RULES["layers_normed"],
    narrowing=True,
    settings=_NORMED,
    distribution="as MLP B, with a norm",
)
MLP_D = MlpSpace(
    name="mlp_d",
    title="MLP D",
    parent=MLP_C,
    rule=RULES["layers_skipped"],
    narrowing=True,
    settings={**_NORMED, "skip": (True,)},
    distribution="as MLP C, with skips",
)
VIT = VitSpace(
    name="vit",
    title="ViT",
    distribution="blocks and width log-uniform, patches and ratios even",
    about="transformers do as well as convolutional networks at equal flops",
    source="Dosovitskiy et al. 2021, An Image is Worth 16x16 Words",
)

SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        *(ANYNET_A, ANYNET_B, ANYNET_C, ANYNET_D, ANYNET_E),
        *(REGNET_X, REGNET_Y, RESNET_BOTTLENECK, RESNET_BASIC),
        *VIONETS,
        *(MLP_A, MLP_B, MLP_C, MLP_D),
        VIT,
    )
}


def get_space(name: str, own: Iterable[Space] = ()) -> Space:
    """One of those that ship, or of a study's own. Raises ValueError naming the nearest known space."""
    known = {**SPACES, **{space.name: space for space in own}}
    if name not in known:
        raise ValueError(f"space = {name!r} is not known; {nearest(str(name), known)}")
    return known[name]


def space_title(name: str) -> str:
    """What people read: the title of one that ships; of a study's own, its name with blanks."""
    return SPACES[name].title if name in SPACES else name.replace("_", " ")
