"""Design spaces as data: networks, the spaces that hold them, the rules that tell spaces apart. NumPy only.

The way through: `Ranges` bound a `Space`; `sample_population` draws its networks within a band of flops; `complexity`
says what one costs; `rule_pairs` names which spaces put which rule to the test.
"""

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.colours import colours_of
from sweep.spaces.complexity import complexity, layer_table
from sweep.spaces.cost import Complexity, LayerRow
from sweep.spaces.families import columns_of, network_from_dict, network_from_json, network_from_yaml
from sweep.spaces.mlp import Mlp
from sweep.spaces.mlp_space import MlpRanges
from sweep.spaces.network import Network
from sweep.spaces.ranges import Ranges
from sweep.spaces.regnet import regnet
from sweep.spaces.rules import RULES, Rule
from sweep.spaces.sampling import Population, sample_population
from sweep.spaces.scaling import scaled
from sweep.spaces.shipped import SPACES, get_space, space_title
from sweep.spaces.space import RulePair, Space, rule_pairs
from sweep.spaces.vit import Vit
from sweep.spaces.vit_space import VitRanges
from sweep.spaces.zoo import ZOO, resolve

__all__ = [
    "RULES",
    "SPACES",
    "ZOO",
    "Architecture",
    "Complexity",
    "LayerRow",
    "Mlp",
    "MlpRanges",
    "Network",
    "Population",
    "Ranges",
    "Rule",
    "RulePair",
    "Space",
    "Stage",
    "Vit",
    "VitRanges",
    "colours_of",
    "columns_of",
    "complexity",
    "get_space",
    "layer_table",
    "network_from_dict",
    "network_from_json",
    "network_from_yaml",
    "regnet",
    "resolve",
    "rule_pairs",
    "sample_population",
    "scaled",
    "space_title",
]
