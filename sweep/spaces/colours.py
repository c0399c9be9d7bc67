"""One colour a space, the same in every figure, table and MLflow run of a study.

In: the names of a study's spaces. Out: a colour for each. `SPACE_COLOURS`, from A to E and X, and `MORE_COLOURS` were
found by search, and are held to it by a test: each has a contrast of 3 to 1 on a white and on a near-black page
(#111418), and any two of the first differ by 25 or more in CIELAB, of all by 17 or more, as seen with full colour
vision and with none of one kind of cone.
"""

from collections.abc import Sequence

SPACE_COLOURS: dict[str, str] = {
    "anynet_a": "#626262",
    "anynet_b": "#2d69ff",
    "anynet_c": "#9f2ea8",
    "anynet_d": "#e17a00",
    "anynet_e": "#00aa63",
    "regnet_x": "#c01b1f",
}
MORE_COLOURS = ("#bc80bc", "#9880ec", "#74988c", "#f85050", "#8c508c", "#38742c")


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """By name. A to E and X keep their colours; the others take, in their order, the first that are still free.

    A study of more than twelve spaces repeats the last of them.
    """
    free = [
        colour for colour in (*SPACE_COLOURS.values(), *MORE_COLOURS) if colour not in map(SPACE_COLOURS.get, names)
    ]
    return {name: SPACE_COLOURS.get(name) or (free.pop(0) if len(free) > 1 else free[0]) for name in names}
