"""Means over seeds with Student's interval, and paired differences of two models on the same seeds.

Axes: S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the 95 % interval around it; the bounds are NaN of one seed alone."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.low:.4f}, {self.high:.4f})"


def mean_interval(values_S: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean of independent values and Student's t interval around it. Raises ShapeError without values."""
    if not len(values_S):
        raise ShapeError("want at least one value to take the mean of")
    mean = float(np.mean(values_S))
    if len(values_S) < 2:
        return Interval(mean, float("nan"), float("nan"))
    error = float(np.std(values_S, ddof=1)) / np.sqrt(len(values_S))
    reach = float(stats.t.ppf(0.5 + level / 2, len(values_S) - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(mine_S: Sequence[float], others_S: Sequence[float]) -> Interval:
    """Mean of mine - other, seed by seed. Raises ShapeError unless there is one of each per seed."""
    if len(mine_S) != len(others_S):
        raise ShapeError(f"want one value of each per seed, got {len(mine_S)} and {len(others_S)}")
    return mean_interval([mine - other for mine, other in zip(mine_S, others_S, strict=True)])
