"""Random networks and the ranges of studies, for property tests (import as `spaces.strategies`).

Importing it makes Hypothesis repeatable and free of deadlines, for machines that are busy with other things.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sweep.spaces import SPACES, Architecture, Mlp, MlpRanges, Ranges, Space, Stage, Vit, VitRanges
from sweep.spaces.mlp import MLP_INITIALISATIONS, MLP_NORMS
from sweep.spaces.parts import ACTIVATION_ORDERS, ACTIVATIONS, DOWNSAMPLINGS, INITIALISATIONS, NORMS

settings.register_profile("sweep", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sweep")

SMALL = Ranges(num_stages=3, width_max=128, depth_max=8, stem_width=16)
"""The ranges of a laptop study: 28 pixels, one channel, ten classes."""

PAPER = Ranges()
SMALL_MLP = MlpRanges(width_max=512, activation=("relu", "gelu"))
SMALL_VIT = VitRanges(width_max=128)
CONVOLUTIONAL = [name for name in SPACES if SPACES[name].RANGES is Ranges]
CHAIN = CONVOLUTIONAL[:6]
"""AnyNet A to E and RegNet X, each inside the one before."""
SMALL_IMAGE = {"resolution": 28, "channels": 1, "classes": 10}
SMALL_BAND = {"flops_min": 4e5, "flops_max": 8e5}
PAPER_BAND = {"flops_min": 360e6, "flops_max": 440e6}


def small(space: Space) -> Ranges | MlpRanges | VitRanges:
    return {Ranges: SMALL, MlpRanges: SMALL_MLP, VitRanges: SMALL_VIT}[space.RANGES]


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    group_width = draw(st.sampled_from([1, 2, 3, 8]))
    bottleneck_width = group_width * draw(st.integers(1, 3)) * 16
    ratio = draw(st.sampled_from([0.25, 0.5, 1, 2, 4]))
    return Stage(draw(st.integers(1, 2)), int(bottleneck_width * ratio), group_width, ratio)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    norm = draw(st.sampled_from(NORMS))
    basic = draw(st.sampled_from([False, False, True]))
    found = draw(st.lists(stages(), min_size=1, max_size=4))
    if basic:
        found = [Stage(s.depth, s.width, s.bottleneck_width, s.bottleneck_ratio) for s in found]
    return Architecture(
        tuple(found),
        stem_width=draw(st.integers(4, 40)),
        stem_stride=draw(st.sampled_from([1, 2])),
        stem_kernel=draw(st.sampled_from([1, 3, 7])),
        stem_order=draw(st.sampled_from(ACTIVATION_ORDERS)),
        stem_pool=draw(st.booleans()),
        block="basic" if basic else "bottleneck",
        kernel_size=draw(st.sampled_from([1, 3, 5])),
        activation_order=draw(st.sampled_from(ACTIVATION_ORDERS)),
        downsampling=draw(st.sampled_from(DOWNSAMPLINGS)),
        norm=norm,
        activation=draw(st.sampled_from(ACTIVATIONS)),
        se_ratio=draw(st.sampled_from([0.0, 0.25, 0.3, 1.0])),
        conv_bias=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        stochastic_depth=draw(st.sampled_from([0.0, 0.2])),
        initialisation=draw(st.sampled_from(INITIALISATIONS[:2] if norm == "none" else INITIALISATIONS)),
    )


@st.composite
def mlps(draw: st.DrawFn) -> Mlp:
    return Mlp(
        tuple(draw(st.lists(st.sampled_from([1, 8, 8, 13, 64]), min_size=1, max_size=5))),
        skip=draw(st.booleans()),
        norm=draw(st.sampled_from(MLP_NORMS)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        initialisation=draw(st.sampled_from(MLP_INITIALISATIONS)),
    )


@st.composite
def vits(draw: st.DrawFn) -> Vit:
    """For images of 8 pixels or more."""
    num_heads = draw(st.integers(1, 4))
    return Vit(
        patch=draw(st.integers(1, 8)),
        width=num_heads * draw(st.sampled_from([1, 3, 8])),
        num_blocks=draw(st.integers(1, 3)),
        num_heads=num_heads,
        mlp_ratio=draw(st.integers(1, 4)),
        dropout=draw(st.sampled_from([0.0, 0.1])),
    )
