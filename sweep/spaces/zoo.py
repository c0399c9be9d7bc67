"""Named networks, and how a text names a network.

In: a name, the path of a YAML file, or parameters as text. Out: a network. The zoo holds the RegNetX and RegNetY models
published with Radosavovic et al. 2020 (parameters as in pycls' model zoo; `regnetx_4.0gf` is its RegNetX-4.0GF); those
that torchvision builds, under its own names with `torchvision:` before them, because it rounds the widths of three
models otherwise; RegNetX32 of d2l.ai, section 8.8, with its Xavier initialisation; and two transformers of Touvron et
al. 2021 (DeiT-Ti and DeiT-S, without their class token).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.checks import nearest, refuse_unknown_keys
from sweep.spaces.cost import Image
from sweep.spaces.families import network_from_yaml
from sweep.spaces.mlp import Mlp
from sweep.spaces.network import Network
from sweep.spaces.regnet import regnet, torchvision_widths
from sweep.spaces.shipped import SE_RATIO
from sweep.spaces.vit import Vit

# name: d, w_0, w_a, w_m, g
_X_MODELS = {
    "200mf": (13, 24, 36.44, 2.49, 8),
    "400mf": (22, 24, 24.48, 2.54, 16),
    "600mf": (16, 48, 36.97, 2.24, 24),
    "800mf": (16, 56, 35.73, 2.28, 16),
    "1.6gf": (18, 80, 34.01, 2.25, 24),
    "3.2gf": (25, 88, 26.31, 2.25, 48),
    "4.0gf": (23, 96, 38.65, 2.43, 40),
    "6.4gf": (17, 184, 60.83, 2.07, 56),
    "8.0gf": (23, 80, 49.56, 2.88, 120),
    "12gf": (19, 168, 73.36, 2.37, 112),
    "16gf": (22, 216, 55.59, 2.1, 128),
    "32gf": (23, 320, 69.86, 2.0, 168),
}
_Y_MODELS = {
    "200mf": (13, 24, 36.44, 2.49, 8),
    "400mf": (16, 48, 27.89, 2.09, 8),
    "600mf": (15, 48, 32.54, 2.32, 16),
    "800mf": (14, 56, 38.84, 2.4, 16),
    "1.6gf": (27, 48, 20.71, 2.65, 24),
    "3.2gf": (21, 80, 42.63, 2.66, 24),
    "4.0gf": (22, 96, 31.41, 2.24, 64),
    "6.4gf": (25, 112, 33.22, 2.27, 72),
    "8.0gf": (17, 192, 76.82, 2.19, 56),
    "12gf": (19, 168, 73.36, 2.37, 112),
    "16gf": (18, 200, 106.23, 2.48, 112),
    "32gf": (20, 232, 115.89, 2.53, 232),
}

# As torchvision names and builds them: every size of its own.
_TORCHVISION = {
    "x_400mf": _X_MODELS["400mf"],
    "x_800mf": _X_MODELS["800mf"],
    "x_1_6gf": _X_MODELS["1.6gf"],
    "x_3_2gf": _X_MODELS["3.2gf"],
    "x_8gf": _X_MODELS["8.0gf"],
    "x_16gf": _X_MODELS["16gf"],
    "x_32gf": _X_MODELS["32gf"],
    "y_400mf": _Y_MODELS["400mf"],
    "y_800mf": _Y_MODELS["800mf"],
    "y_1_6gf": _Y_MODELS["1.6gf"],
    "y_3_2gf": _Y_MODELS["3.2gf"],
    "y_8gf": _Y_MODELS["8.0gf"],
    "y_16gf": _Y_MODELS["16gf"],
    "y_32gf": _Y_MODELS["32gf"],
    "y_128gf": (27, 456, 160.83, 2.52, 264),
}
TORCHVISION_PREFIX = "torchvision:"


ZOO: dict[str, Network] = {
    **{f"regnetx_{name}": regnet(*line) for name, line in _X_MODELS.items()},
    **{f"regnety_{name}": regnet(*line, se_ratio=SE_RATIO) for name, line in _Y_MODELS.items()},
    **{
        f"{TORCHVISION_PREFIX}regnet_{name}": regnet(
            *line, se_ratio=SE_RATIO if name.startswith("y") else 0.0, compatible=torchvision_widths
        )
        for name, line in _TORCHVISION.items()
    },
    "regnetx32": Architecture(
        (Stage(4, 32, 16), Stage(6, 80, 16)), stem_width=32, conv_bias=True, initialisation="xavier"
    ),
    "vit_tiny": Vit(patch=16, width=192, num_blocks=12, num_heads=3),
    "vit_small": Vit(patch=16, width=384, num_blocks=12, num_heads=6),
}


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _widths(text: str) -> tuple[int, ...]:
    return tuple(int(width) for width in text.split("-"))


_LINE: dict[str, Callable[[str], Any]] = {"d": int, "w0": int, "wa": float, "wm": float, "g": int}
_REGNET: dict[str, Callable[[str], Any]] = {**_LINE, "b": float, "stem_width": int, "num_stages": int}
_KIND = {
    int: "a whole number",
    float: "a number",
    _flag: "true or false",
    _widths: "widths like 256-128",
    str: "a word",
}


class _Family(NamedTuple):
    """How the text after a family's colon is read: each key's type, those that must be there, and what it builds."""

    types: Mapping[str, Callable[[str], Any]]
    required: tuple[str, ...]
    build: Callable[..., Network]
    example: str


_FAMILIES = {
    "regnetx": _Family(_REGNET, tuple(_LINE), regnet, "d=22,w0=24"),
    "regnety": _Family(_REGNET, tuple(_LINE), partial(regnet, se_ratio=SE_RATIO), "d=22,w0=24"),
    "mlp": _Family(
        {"widths": _widths, "skip": _flag, "norm": str, "activation": str, "dropout": float, "initialisation": str},
        ("widths",),
        Mlp,
        "widths=256-128,norm=batch",
    ),
    "vit": _Family(
        {"patch": int, "width": int, "num_blocks": int, "num_heads": int, "mlp_ratio": int, "dropout": float},
        ("patch", "width", "num_blocks", "num_heads"),
        Vit,
        "patch=4,width=64,num_blocks=6,num_heads=4",
    ),
}


def image_of(text: str) -> Image:
    """What the network that a text names was made for: ImageNet, but for the network of d2l.ai, section 8.8."""
    return Image(resolution=96, channels=1, classes=10) if text == "regnetx32" else Image(224, 3, 1000)


def resolve(text: str) -> Network:
    """The network that a text names: `regnetx_400mf`, `net.yaml`, `regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16`,
    `mlp:widths=256-128,norm=batch` or `vit:patch=4,width=64,num_blocks=6,num_heads=4`.

    Raises ValueError naming the nearest known name, the file's fault, or the parameter that is wrong.
    """
    if (named := named_network(text)) is not None:
        return named
    path = Path(text)
    if path.is_file():
        return _from_file(path)
    if path.suffix in (".yaml", ".yml"):
        raise ValueError(f"architecture = {text!r} is no file; check the path")
    raise ValueError(
        f"architecture = {text!r} is neither a known network nor a YAML file nor like "
        f"'regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16'; {nearest(text, ZOO)}"
    )


def named_network(text: str) -> Network | None:
    """As `resolve`, but for files: what the text means on every machine, or None."""
    if text in ZOO:
        return ZOO[text]
    family, colon, parameters = text.partition(":")
    return _from_parameters(family, parameters) if colon and family in _FAMILIES else None


def _from_file(path: Path) -> Network:
    try:
        return network_from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_parameters(name: str, text: str) -> Network:
    family, given = _FAMILIES[name], {}
    for part in text.split(","):
        key, equals, value = (side.strip() for side in part.partition("="))
        if not equals:
            raise ValueError(f"{name}: {part!r} is not key=value; write for example {family.example}")
        refuse_unknown_keys(name, [key], family.types)
        if key in given:
            raise ValueError(f"{name}: {key} is given twice; give it once")
        try:
            given[key] = family.types[key](value)
        except ValueError:
            kind = _KIND[family.types[key]]
            raise ValueError(f"{name}: {key} = {value!r} is not {kind}; write for example {family.example}") from None
    missing = [key for key in family.required if key not in given]
    if missing:
        raise ValueError(f"{name}: {', '.join(missing)} missing; give {', '.join(family.required)}")
    return family.build(**given)
