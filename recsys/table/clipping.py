"""Bounds on the summed gradient of one slice of a row; ``cpp/optimizers.h`` gives the same bits.

Axes: D columns of one slice.
Reference: Pascanu, Mikolov & Bengio, ICML 2013 (by norm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.table.row_sums import sum_of_squares
from recsys.table.setting_checks import check_positive

Floats = NDArray[np.float32]

# A power of two, so that scaling by it is exact; the squares of what it scales cannot overflow.
_SHRINK = np.float32(2.0**-80)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipByValue:
    """Each column is cut to [-limit, limit]."""

    limit: float
    """Largest absolute value; > 0."""

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipByNorm:
    """A slice whose Euclidean norm is above the limit is scaled down to it, up to rounding."""

    limit: float
    """Largest norm; > 0."""

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)


Clip = ClipByValue | ClipByNorm

CLIPS: dict[str, type[Clip]] = {"clip_by_value": ClipByValue, "clip_by_norm": ClipByNorm}
"""Names in JSON."""


def clip(rule: Clip | None, g_D: Floats) -> Floats:
    """The gradient within the rule's bound; None bounds nothing. Any finite gradient stays finite."""
    if rule is None:
        return g_D
    limit = np.float32(rule.limit)
    if isinstance(rule, ClipByValue):
        return np.minimum(np.maximum(g_D, -limit), limit)
    with np.errstate(over="ignore", under="ignore"):
        bound, x_D = limit, g_D
        norm = np.sqrt(sum_of_squares(x_D))
        if np.isinf(norm):
            bound, x_D = limit * _SHRINK, g_D * _SHRINK
            norm = np.sqrt(sum_of_squares(x_D))
        return g_D if norm <= bound else x_D * (limit / norm)
