"""Named networks, and how a text names a network.

In: a name, the path of a YAML file, or RegNet parameters as text. Out: an `Architecture`. The zoo holds the RegNetX
and RegNetY models published with Radosavovic et al. 2020 (parameters as in pycls' model zoo; `regnetx_4.0gf` is its
RegNetX-4.0GF) and RegNetX32 of d2l.ai, section 8.8.
"""

from pathlib import Path

from sweep.spaces.architecture import Architecture, Stage
from sweep.spaces.checks import nearest, refuse_unknown_keys
from sweep.spaces.regnet import regnet

SE_RATIO = 0.25  # of RegNetY

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

ZOO: dict[str, Architecture] = {
    **{f"regnetx_{name}": regnet(*line) for name, line in _X_MODELS.items()},
    **{f"regnety_{name}": regnet(*line, se_ratio=SE_RATIO) for name, line in _Y_MODELS.items()},
    "regnetx32": Architecture((Stage(4, 32, 16), Stage(6, 80, 16)), stem_width=32, conv_bias=True),
}

_FAMILIES = {"regnetx": 0.0, "regnety": SE_RATIO}
_REQUIRED = {"d": int, "w0": int, "wa": float, "wm": float, "g": int}
_PARAMETERS = {**_REQUIRED, "b": float, "stem_width": int, "num_stages": int}


def resolve(text: str) -> Architecture:
    """The network that a text names: `regnetx_400mf`, `net.yaml`, or `regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16`.

    Raises ValueError naming the nearest known name, the file's fault, or the parameter that is wrong.
    """
    if text in ZOO:
        return ZOO[text]
    family, colon, parameters = text.partition(":")
    if colon and family in _FAMILIES:
        return _from_parameters(family, parameters)
    path = Path(text)
    if path.is_file():
        return _from_file(path)
    if path.suffix in (".yaml", ".yml"):
        raise ValueError(f"architecture = {text!r} is no file; check the path")
    raise ValueError(
        f"architecture = {text!r} is neither a known network nor a YAML file nor like "
        f"'regnetx:d=22,w0=24,wa=24.48,wm=2.54,g=16'; {nearest(text, ZOO)}"
    )


def _from_file(path: Path) -> Architecture:
    try:
        return Architecture.from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_parameters(family: str, text: str) -> Architecture:
    given = {}
    for part in text.split(","):
        key, equals, value = (side.strip() for side in part.partition("="))
        if not equals:
            raise ValueError(f"{family}: {part!r} is not key=value; write for example d=22,w0=24")
        refuse_unknown_keys(family, [key], _PARAMETERS)
        if key in given:
            raise ValueError(f"{family}: {key} is given twice; give it once")
        try:
            given[key] = _PARAMETERS[key](value)
        except ValueError:
            kind = "whole number" if _PARAMETERS[key] is int else "number"
            raise ValueError(f"{family}: {key} = {value!r} is not a {kind}; write for example {key}=16") from None
    missing = [key for key in _REQUIRED if key not in given]
    if missing:
        raise ValueError(f"{family}: {', '.join(missing)} missing; give {', '.join(_REQUIRED)}")
    return regnet(**given, se_ratio=_FAMILIES[family])
