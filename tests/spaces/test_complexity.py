"""The closed form against published and hand-counted numbers; its table; its batches.

That it equals what hooks count on the modules themselves is tested in tests/models/test_count.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces.strategies import architectures, small

from sweep.spaces import SPACES, ZOO, Architecture, Complexity, Stage, complexity, layer_table
from sweep.spaces.complexity import StageArrays, batch_complexity
from sweep.spaces.cost import Image
from sweep.spaces.space import MEMBER

# Published by pycls, at 224 pixels: flops, parameters, activations.
PUBLISHED = {
    "regnetx_200mf": (199040872, 2684792, 2164056),
    "regnetx_400mf": (397678568, 5157512, 3143272),
    "regnetx_600mf": (600891112, 6196040, 3975096),
    "regnetx_800mf": (799700712, 7259656, 5148744),
    "regnetx_1.6gf": (1602850792, 9190136, 7933512),
    "regnetx_4.0gf": (3964499816, 22118248, 12201608),
    "regnetx_8.0gf": (7995133416, 39572648, 14059688),
    "regnetx_16gf": (15940756456, 54278536, 25515496),
    "regnetx_32gf": (31735930792, 107811560, 36302160),
    "regnety_200mf": (199519076, 3162996, 2168052),
    "regnety_400mf": (401849056, 4344144, 3892496),
    "regnety_800mf": (797183328, 6263168, 5249888),
    "regnety_3.2gf": (3176496162, 19436338, 11263418),
    "regnety_8.0gf": (7963074196, 39180068, 17968916),
    "regnety_32gf": (32279583362, 145046770, 30261570),
}
# The others, as the model zoo rounds them: 10^9 flops, 10^6 parameters, 10^6 activations.
PUBLISHED_ROUNDED = {
    "regnetx_3.2gf": (3.2, 15.3, 11.4),
    "regnetx_6.4gf": (6.5, 26.2, 16.4),
    "regnetx_12gf": (12.1, 46.1, 21.4),
    "regnety_600mf": (0.6, 6.1, 4.3),
    "regnety_1.6gf": (1.6, 11.2, 8.0),
    "regnety_4.0gf": (4.0, 20.6, 12.3),
    "regnety_6.4gf": (6.4, 30.6, 16.4),
    "regnety_12gf": (12.1, 51.8, 21.4),
    "regnety_16gf": (15.9, 83.6, 23.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_exact(name):
    assert complexity(ZOO[name]) == Complexity(*PUBLISHED[name])


@pytest.mark.parametrize("name", PUBLISHED_ROUNDED)
def test_published_networks_round_to_the_zoo(name):
    cost = complexity(ZOO[name])
    millions = (cost.flops / 1e9, cost.params / 1e6, cost.activations / 1e6)
    assert tuple(round(value, 1) for value in millions) == PUBLISHED_ROUNDED[name]


def test_the_d2l_network_is_exact_layer_by_layer():
    image = {"resolution": 96, "channels": 1, "classes": 10}
    assert complexity(ZOO["regnetx32"], **image) == Complexity(40_915_242, 179_290, 622_090)
    rows = layer_table(ZOO["regnetx32"], **image)
    assert [row.name for row in rows] == ["stem", "stage 1", "stage 2", "head"]
    assert [row.output_shape for row in rows] == [(32, 48, 48), (32, 24, 24), (80, 12, 12), (10,)]


def test_a_network_counted_by_hand():
    """One block: 1 channel → 4 (stem) → bottleneck 8 in groups of 2 → 16, on 5×5 pixels; squeeze to 2; 3 classes."""
    network = Architecture((Stage(1, 16, 2, 2),), stem_width=4, stem_stride=1, se_ratio=0.5, conv_bias=True)
    rows = layer_table(network, resolution=5, channels=1, classes=3)
    stem_flops, stem_params = (9 + 1) * 4 * 25, (9 + 1) * 4 + 8
    flops = (4 + 1) * 8 * 25 + (9 * 2 + 1) * 8 * 9 + (8 + 1) * 16 * 9 + (4 + 1) * 16 * 9 + (8 + 1) * 2 + (2 + 1) * 8
    params = (5 * 8 + 16) + (19 * 8 + 16) + (9 * 16 + 32) + (5 * 16 + 32) + 9 * 2 + 3 * 8
    activations = 8 * 25 + 8 * 9 + 16 * 9 + 16 * 9 + 2 + 8
    assert [(row.flops, row.params, row.activations) for row in rows] == [
        (stem_flops, stem_params, 100),
        (flops, params, activations),
        (17 * 3, 17 * 3, 3),
    ]


@given(architectures(), st.integers(1, 65), st.sampled_from([1, 3]), st.integers(1, 20))
def test_the_table_adds_up(network, resolution, channels, classes):
    image = {"resolution": resolution, "channels": channels, "classes": classes}
    rows, total = layer_table(network, **image), complexity(network, **image)
    assert total.flops == sum(row.flops for row in rows)
    assert total.params == sum(row.params for row in rows)
    assert total.activations == sum(row.activations for row in rows)
    assert len(rows) == len(network.stages) + 2
    assert all(type(value) is int for value in (total.flops, total.params, total.activations))


@given(architectures(), st.integers(1, 65), st.sampled_from([1, 3]))
def test_a_batch_of_one_equals_the_scalar(network, resolution, channels):
    costs = batch_complexity(
        [StageArrays(*np.array([[s.depth], [s.width], [s.bottleneck_width], [s.group_width]])) for s in network.stages],
        network,
        Image(resolution, channels, 10),
    )
    image = {"resolution": resolution, "channels": channels, "classes": 10}
    assert Complexity(*(int(cost[0]) for cost in costs)) == complexity(network, **image)


@pytest.mark.parametrize("space", SPACES)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32))
def test_a_batch_of_draws_equals_the_scalars(space, seed):
    draws = SPACES[space].draw(small(SPACES[space]), np.random.default_rng(seed), 400)
    rows = np.flatnonzero(draws.reasons == MEMBER)[:25]
    costs = draws.weigh(rows, Image(33, 3, 7))
    for position, row in enumerate(rows):
        cost = Complexity(*(int(column[position]) for column in costs))
        assert cost == complexity(draws.network(row), resolution=33, channels=3, classes=7)


@pytest.mark.parametrize("field", ["resolution", "channels", "classes"])
def test_impossible_images_are_refused(field):
    with pytest.raises(ValueError, match=f"^{field} = 0 is not a positive whole number"):
        complexity(ZOO["regnetx32"], **{field: 0})
