"""One colour a space, the same in every figure, table and MLflow run.

Out: `SPACE_COLOURS`, from A to E and X. Found by search, and held to it by a test: each has a contrast of 3 to 1 on a
white and on a near-black page (#111418), and any two differ by 25 or more in CIELAB, as seen with full colour vision
and with none of one kind of cone.
"""

SPACE_COLOURS: dict[str, str] = {
    "anynet_a": "#626262",
    "anynet_b": "#2d69ff",
    "anynet_c": "#9f2ea8",
    "anynet_d": "#e17a00",
    "anynet_e": "#00aa63",
    "regnet_x": "#c01b1f",
}
