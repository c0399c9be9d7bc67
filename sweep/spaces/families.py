"""The families of networks, and how a text or a table finds its own.

In: what `to_dict`, `to_json` or `to_yaml` of a network gave. Out: the network. A table that names no `family` is of
AnyNet, whose texts are older than the others.
"""

from collections.abc import Mapping
from typing import Any

from sweep.spaces.architecture import Architecture
from sweep.spaces.checks import nearest, refusal
from sweep.spaces.mlp import Mlp
from sweep.spaces.network import Network, parse_json, parse_yaml
from sweep.spaces.vit import Vit

ANYNET = "anynet"
FAMILIES: dict[str, type[Architecture] | type[Mlp] | type[Vit]] = {ANYNET: Architecture, "mlp": Mlp, "vit": Vit}


def network_from_dict(data: Any) -> Network:
    """Raises ValueError naming the family or the field that is wrong."""
    if not isinstance(data, Mapping):
        return Architecture.from_dict(data)
    family = data.get("family", ANYNET)
    if family not in FAMILIES:
        raise refusal("family", family, "is not known", nearest(str(family), FAMILIES))
    if family == ANYNET:
        data = {key: value for key, value in data.items() if key != "family"}
    return FAMILIES[family].from_dict(data)


def network_from_json(text: str) -> Network:
    return network_from_dict(parse_json(text))


def network_from_yaml(text: str) -> Network:
    return network_from_dict(parse_yaml(text))


def columns_of(network: Network) -> dict[str, Any]:
    """What a person filters and sorts by: numbers, words, and for AnyNet a tuple with a number for each stage."""
    if isinstance(network, Architecture):
        return {
            "depths": network.depths,
            "widths": network.widths,
            "group_widths": network.group_widths,
            "bottleneck_ratios": network.bottleneck_ratios,
            **network.parts(),
        }
    told = network.to_dict()
    told.pop("family")
    return {"depth": network.depth} | {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
