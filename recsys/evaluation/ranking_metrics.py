"""How well predictions order and fit their labels: exact, on rows that are all at hand.

``progressive`` keeps the same metrics of a stream, to within a histogram's bins.

Axes: N rows, G groups (domains or users).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError

Floats = NDArray[np.floating[Any]]
Groups = NDArray[Any]


def auc(prediction_N: Floats, label_N: Floats) -> float:
    """Probability that a positive is predicted above a negative, ties counting half; NaN without both.

    Mann & Whitney's U by mean ranks. Labels above one half are positive.
    """
    _check(prediction_N, label_N)
    is_positive_N = np.asarray(label_N) > 0.5
    n_positive = int(is_positive_N.sum())
    n_negative = len(is_positive_N) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, place_N, counts = np.unique(prediction_N, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    rank_sum = float(mean_rank[place_N[is_positive_N]].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)


def group_aucs(prediction_N: Floats, label_N: Floats, group_N: Groups) -> dict[Any, float]:
    """AUC within each group, by the group's value, for those that have labels of both kinds."""
    order_N = np.argsort(group_N, kind="stable")
    groups, starts = np.unique(np.asarray(group_N)[order_N], return_index=True)
    found: dict[Any, float] = {}
    for group, rows in zip(groups.tolist(), np.split(order_N, starts[1:]), strict=True):
        value = auc(prediction_N[rows], label_N[rows])
        if not np.isnan(value):
            found[group] = value
    return found


def gauc(prediction_N: Floats, label_N: Floats, group_N: Groups) -> float:
    """Mean of the groups' AUC, each weighted by its rows; NaN where no group has labels of both kinds.

    Zhou et al., "Deep Interest Network", KDD 2018, sec. 6.2, with users as groups.
    """
    values = group_aucs(prediction_N, label_N, group_N)
    if not values:
        return float("nan")
    groups, counts = np.unique(group_N, return_counts=True)
    rows_of = dict(zip(groups.tolist(), counts.tolist(), strict=True))
    weights = [rows_of[group] for group in values]
    return float(np.average(list(values.values()), weights=weights))


def log_loss(prediction_N: Floats, label_N: Floats) -> float:
    """Mean of -(y log p + (1 - y) log(1 - p)), in nats; p is kept within 1e-7 of 0 and 1."""
    _check(prediction_N, label_N)
    p_N = np.clip(np.asarray(prediction_N, np.float64), 1e-7, 1.0 - 1e-7)
    return float(-np.mean(label_N * np.log(p_N) + (1.0 - label_N) * np.log1p(-p_N)))


def calibration(prediction_N: Floats, label_N: Floats) -> float:
    """Predicted over seen positives; 1 is right, NaN where none was seen."""
    _check(prediction_N, label_N)
    seen = float(np.sum(label_N, dtype=np.float64))
    return float(np.sum(prediction_N, dtype=np.float64)) / seen if seen else float("nan")


def _check(prediction_N: Floats, label_N: Floats) -> None:
    if prediction_N.shape != label_N.shape or prediction_N.ndim != 1:
        raise ShapeError(f"want one label per prediction; got {label_N.shape} for {prediction_N.shape}")
