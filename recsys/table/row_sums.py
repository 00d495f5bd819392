"""The sum of a row's squares in the one order that all forms of the table add in.

Sixteen lanes, as wide as the widest vector: lane j adds columns j, j + 16, … in order, then the upper
half of the lanes is added to the lower until one is left. Float addition is not associative, so
another order would give other bits.

Axes: D columns, L lanes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LANES = 16


def sum_of_squares(x_D: Floats) -> np.float32:
    """Sum of x², infinite where it overflows."""
    lane_L = np.zeros(LANES, dtype=np.float32)
    for begin in range(0, len(x_D), LANES):
        part = x_D[begin : begin + LANES]
        lane_L[: len(part)] += part * part
    half = LANES // 2
    while half:
        lane_L = lane_L[:half] + lane_L[half : 2 * half]
        half //= 2
    return np.float32(lane_L[0])
