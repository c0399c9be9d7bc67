"""How well a quantised line fits the widths of any AnyNet: e_fit, the measure by which DDS found RegNet.

In: networks of AnyNet. Out: for each the error of the best line of w_0, w_a, w_m, the mean over its blocks of
|log(width on the line / width)|, as in Radosavovic et al. 2020, section 3.3: 0 for a RegNet, about 0.1 where blocks are
10 % off. trends.py tells whether it goes with error.

    u_j = w_0 + w_a · j,   s_j = round(log(u_j / w_0) / log w_m),   w_j = w_0 · w_m^s_j    rounded to a multiple of 8

Each width is then made compatible with the groups of its block's stage, as in sweep/spaces/regnet.py. Unlike there a
line may skip a level, for it is fitted to blocks and not to stages. w_0 is a multiple of 8 and w_m lies between 1.5
and 3. The search: one grid for all networks, then two finer ones around the best of each network.
"""

from collections.abc import Sequence

import numpy as np

from sweep.spaces import Architecture
from sweep.spaces.ranges import MULTIPLIERS_PER_UNIT, SLOPES_PER_UNIT
from sweep.spaces.regnet import ANY_LINE, compatible_widths, follows_line
from sweep.statistics.bootstrap import Floats

_STEP = ANY_LINE.width_step
_LEAST_SLOPE = ANY_LINE.slopes[0] / SLOPES_PER_UNIT
_MULTIPLIERS = tuple(bound / MULTIPLIERS_PER_UNIT for bound in ANY_LINE.multipliers)
_COARSE, _FINE, _ROUNDS = (20, 40, 31), (9, 15, 15), 2  # first widths, slopes, multipliers
_HEADROOM = 4  # the widest level that is told apart, in widths of the widest stage


def fit_errors(networks: Sequence[Architecture]) -> Floats:
    """e_fit of each network, shape (n,), 0 or more; about 5 ms each. Raises `ValueError` for other families."""
    for network in networks:
        if not isinstance(network, Architecture):
            raise ValueError(f"networks: {type(network).__name__} has no stages of blocks; give networks of AnyNet")
    if not networks:
        return np.zeros(0)
    widest = max(max(network.widths) for network in networks)
    axes = (
        np.unique(_on_grid(np.geomspace(_STEP, widest, _COARSE[0]))),
        np.geomspace(_LEAST_SLOPE, widest, _COARSE[1]),
        np.linspace(_MULTIPLIERS[0], _MULTIPLIERS[1], _COARSE[2]),
    )
    lines = _lines(axes)
    levels = _levels(lines, max(network.depth for network in networks), _HEADROOM * widest // _STEP)
    return np.array([_fit_error(network, axes, lines, levels) for network in networks])


def _fit_error(network: Architecture, axes: tuple[Floats, ...], lines: Floats, levels: np.ndarray) -> float:
    if follows_line(network):
        return 0.0
    costs = _costs(network, levels.max())
    stage_of_block = np.repeat(np.arange(len(network.stages)), network.depths)
    lowest = np.inf
    for _ in range(_ROUNDS + 1):
        errors = costs[stage_of_block, levels[:, : network.depth]].mean(axis=1)
        best = int(np.argmin(errors))
        lowest = min(lowest, float(errors[best]))
        axes = tuple(_around(axis, value, num) for axis, value, num in zip(axes, lines[best], _FINE))
        axes = (np.unique(_on_grid(axes[0])), *axes[1:])
        lines = _lines(axes)
        levels = _levels(lines, network.depth, costs.shape[1] - 1)
    return lowest


def _on_grid(widths: Floats) -> Floats:
    return np.maximum(_STEP, np.rint(widths / _STEP) * _STEP)


def _around(axis: Floats, value: float, num: int) -> Floats:
    """`num` values between the neighbours of `value` on the axis, itself among them."""
    place = int(np.searchsorted(axis, value))
    low, high = axis[max(0, place - 1)], axis[min(len(axis) - 1, place + 1)]
    return np.unique(np.append(np.linspace(low, high, num), value))


def _lines(axes: tuple[Floats, ...]) -> Floats:
    """All (w_0, w_a, w_m), (lines, 3)."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)


def _levels(lines: Floats, depth: int, highest: int) -> np.ndarray:
    """The width of each line at each block, in steps, (lines, blocks); wider ones than `highest` count as that."""
    w_0, w_a, w_m = lines.T[:, :, None]
    exponents = np.rint(np.log1p(w_a * np.arange(depth) / w_0) / np.log(w_m))
    # In logarithms, for a steep line would overflow.
    steps = np.exp(np.minimum(np.log(w_0 / _STEP) + exponents * np.log(w_m), np.log(2.0 * highest)))
    return np.clip(np.rint(steps), 1, highest).astype(np.int32)


def _costs(network: Architecture, highest: int) -> Floats:
    """|log(width / width of the stage)| of each width in steps, made compatible with the stage, (stages, widths)."""
    widths = _STEP * np.arange(1, highest + 1)
    rows = [compatible_widths(widths, stage.bottleneck_ratio, stage.group_width)[0] for stage in network.stages]
    costs = [np.abs(np.log(row / stage.width)) for row, stage in zip(rows, network.stages)]
    return np.pad(np.stack(costs), ((0, 0), (1, 0)))  # there is no width of 0 steps
