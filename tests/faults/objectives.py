"""Objectives for the fault tests: an error that depends on the network and the epoch alone, in a set time.

Workers import them by `objective = "objectives:steady"`; FAULT_EPOCH_S says how long an epoch takes, and none ends
while the file that FAULT_HOLD names is there.
"""

import math
import os
import sys
import time
from typing import Any


def steady(architecture: Any, *, seed: int, epoch: int) -> float:
    """A learning curve that comes down to the network's own quality, in percent; curves of two networks may cross."""
    time.sleep(float(os.environ.get("FAULT_EPOCH_S", "0.3")))
    while os.path.exists(os.environ.get("FAULT_HOLD", "")):
        time.sleep(0.05)
    number = int(architecture.id, 16)
    quality, slowness = 5 + 50 * (number % 9973) / 9973, 1 + 3 * (number // 9973 % 997) / 997
    return quality + 30 * math.exp(-epoch / slowness)


def chatty(architecture: Any, *, seed: int, epoch: int) -> float:
    """Prints what nobody should print."""
    sys.stdout.write(f"epoch {epoch} \x1b[31mred\x1b[0m \x00 ü " + "x" * 20_000 + "\n")
    return steady(architecture, seed=seed, epoch=epoch)


def raising(architecture: Any, *, seed: int, epoch: int) -> float:
    """Every fourth network fails in its second epoch, always."""
    if int(architecture.id, 16) % 4 == 0 and epoch == 2:
        raise RuntimeError(f"network {architecture.id} cannot be trained")
    return steady(architecture, seed=seed, epoch=epoch)


def not_a_number(architecture: Any, *, seed: int, epoch: int) -> float | None:
    """Some networks diverge: as NaN, as an infinity, as None, some in the first epoch."""
    number = int(architecture.id, 16)
    if number % 5 < 3 and epoch == 1 + number // 5 % 3:
        return (math.nan, math.inf, None)[number % 5]
    return steady(architecture, seed=seed, epoch=epoch)


def hungry(architecture: Any, *, seed: int, epoch: int) -> float:
    """Every third network takes four gigabytes in its second epoch."""
    if int(architecture.id, 16) % 3 == 0 and epoch == 2:
        block = bytearray(4 << 30)
        for page in range(0, len(block), 4096):
            block[page] = 1
    return steady(architecture, seed=seed, epoch=epoch)


def troubled(architecture: Any, *, seed: int, epoch: int) -> float | None:
    """By turns: one that fails, one that diverges, one that is hungry, and some that are well."""
    turn = (raising, not_a_number, hungry, steady)[int(architecture.id, 16) // 60 % 4]
    return turn(architecture, seed=seed, epoch=epoch)
