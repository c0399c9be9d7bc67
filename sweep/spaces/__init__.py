"""Design spaces as data: networks, the spaces that hold them, the rules that tell spaces apart. NumPy only.

The way through: `Ranges` bound a `Space`; `sample_population` draws its `Architecture`s within a band of flops;
`complexity` says what one costs; `rule_pairs` names which spaces put which rule to the test.
"""

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.colours import SPACE_COLOURS
from sweep.spaces.complexity import Complexity, LayerRow, complexity, layer_table
from sweep.spaces.ranges import Ranges
from sweep.spaces.regnet import regnet
from sweep.spaces.rules import RULES, Rule
from sweep.spaces.sampling import Population, sample_population
from sweep.spaces.space import SPACES, RulePair, Space, get_space, rule_pairs
from sweep.spaces.zoo import ZOO, resolve

__all__ = [
    "RULES",
    "SPACES",
    "SPACE_COLOURS",
    "ZOO",
    "Architecture",
    "Complexity",
    "LayerRow",
    "Population",
    "Ranges",
    "Rule",
    "RulePair",
    "Space",
    "Stage",
    "complexity",
    "get_space",
    "layer_table",
    "regnet",
    "resolve",
    "rule_pairs",
    "sample_population",
]
