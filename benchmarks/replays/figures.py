"""Figures of the replays: means over seeds with Student's 95 % interval, and bars on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from collisions.report import figure, mean_figure
from document import Figure

__all__ = ["difference_figures", "figure", "mean_figure", "score_figures", "within"]

Scores = Mapping[str, float]
"""One arm, one seed: what was measured, by name."""


def score_figures(prefix: str, scores_S: Sequence[Scores], units: Mapping[str, str]) -> list[Figure]:
    """The mean of each score over seeds; ``units`` gives the unit by the name's last word."""
    return [
        mean_figure(f"{prefix}.{name}", [scores[name] for scores in scores_S], units[name.rpartition(".")[2]])
        for name in scores_S[0]
    ]


def difference_figures(
    prefix: str, scores_S: Sequence[Scores], than: str, others_S: Sequence[Scores], units: Mapping[str, str]
) -> list[Figure]:
    """Mean difference of the scores named in ``units``, seed by seed."""
    return [
        mean_figure(
            f"{prefix}.{name}_minus_{than}",
            [mine[name] - other[name] for mine, other in zip(scores_S, others_S, strict=True)],
            unit,
        )
        for name, unit in units.items()
    ]


def within(name: str, values_S: Sequence[float], low: float, high: float, unit: str = "ratio") -> Figure:
    """The mean over seeds, which is asked to lie in [low, high]."""
    made = mean_figure(name, values_S, unit)
    made["bar"], made["holds"] = f"{low:g} to {high:g}", bool(low <= np.mean(values_S) <= high)
    return made
