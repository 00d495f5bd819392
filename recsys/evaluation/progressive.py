"""Progressive metrics: every example is predicted, counted here, and only then learned from.

AUC, log loss, normalised entropy and calibration over all that was seen and over fixed windows of
event time. The state is a histogram of predictions per label: it is small, adds up, can be saved,
and the difference of two states is the metric of what came between.

Where negatives are sampled or stated too early, each row counts as much of the whole stream as it
stands for, so that every sum is in expectation that of the stream in which nothing was left out:

    a kept negative of rate r                1/r negatives
    a negative taken back (weight -1)        -1/r negatives
    a positive, late or not                  1 positive
    a positive stated as a negative before   1 positive, -1 negative (fast emit: kept with rate r, 1/r each)

What is taken back counts at the prediction of that moment, the only one that is known then: a short
window may hold less than nothing in a bin, or less than no negatives, and then has no AUC.

Axes: B examples of a batch, S histogram bins.
Normalised entropy: He et al., "Practical Lessons from Predicting Clicks on Ads", ADKDD 2014, sec. 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.ranking.statements import Statements

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]

N_BINS = 1 << 14
MAX_LOGIT = 12.0


@dataclass(slots=True)
class Tally:
    """Sums from which each metric follows. One writer."""

    positives_S: Sums = field(default_factory=lambda: np.zeros(N_BINS))
    negatives_S: Sums = field(default_factory=lambda: np.zeros(N_BINS))
    loss_sum: float = 0.0
    prediction_sum: float = 0.0

    def add(self, prediction_B: Floats, label_B: Floats, stated: Statements | None = None) -> None:
        """Count one batch of probabilities and their 0/1 labels; a NaN label is passed over.

        ``stated`` says how the rows came to be, None that all are plain.
        """
        if prediction_B.shape != label_B.shape or prediction_B.ndim != 1:
            raise ShapeError(f"want one label per prediction; got {label_B.shape} for {prediction_B.shape}")
        if stated is not None and len(stated) != len(label_B):
            raise ShapeError(f"want one statement per prediction; got {len(stated)} for {label_B.shape}")
        is_known_B = ~np.isnan(label_B)
        if not is_known_B.all():
            prediction_B, label_B = prediction_B[is_known_B], label_B[is_known_B]
            stated = None if stated is None else stated.rows(is_known_B)
        p_B = np.clip(prediction_B.astype(np.float64), 1e-7, 1 - 1e-7)
        is_positive_B = label_B > 0.5
        if stated is None:
            self._count(p_B, is_positive_B.astype(np.float64), (~is_positive_B).astype(np.float64))
        else:
            self._count(p_B, *_shares(is_positive_B, stated))

    def _count(self, p_B: Sums, positives_B: Sums, negatives_B: Sums) -> None:
        bin_B = _bins(p_B)
        np.add.at(self.positives_S, bin_B, positives_B)
        np.add.at(self.negatives_S, bin_B, negatives_B)
        self.loss_sum -= float((positives_B * np.log(p_B) + negatives_B * np.log(1 - p_B)).sum())
        self.prediction_sum += float(((positives_B + negatives_B) * p_B).sum())

    def since(self, earlier: Tally) -> Tally:
        """What was counted after ``earlier``, a former state of this tally."""
        return Tally(
            self.positives_S - earlier.positives_S,
            self.negatives_S - earlier.negatives_S,
            self.loss_sum - earlier.loss_sum,
            self.prediction_sum - earlier.prediction_sum,
        )

    @property
    def stands_for(self) -> float:
        """How many examples of the whole stream the counted rows stand for."""
        return float(self.positives_S.sum()) + max(float(self.negatives_S.sum()), 0.0)

    def metrics(self) -> dict[str, float]:
        """examples, auc, log_loss, normalized_entropy, calibration; NaN where undefined.

        ``examples`` is how many the counted rows stand for.
        """
        n_positive, n = float(self.positives_S.sum()), self.stands_for
        rate = n_positive / n if n > 0 else np.nan
        log_loss = self.loss_sum / n if n > 0 else np.nan
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) if 0 < rate < 1 else np.nan
        return {
            "examples": n,
            "auc": auc_of_histogram(self.positives_S, self.negatives_S),
            "log_loss": float(log_loss),
            "normalized_entropy": float(log_loss / entropy),
            "calibration": self.prediction_sum / n_positive if n_positive > 0 else np.nan,
        }


def auc_of_histogram(positives_S: Sums, negatives_S: Sums) -> float:
    """Probability that a positive lies in a higher bin than a negative, equal bins counting half.

    NaN unless there is some of both. Off from the exact AUC by at most half the share of pairs that
    fall into one bin; clipped to [0, 1], which bins below zero could take it out of.
    """
    n_positive, n_negative = float(positives_S.sum()), float(negatives_S.sum())
    if n_positive <= 0 or n_negative <= 0:
        return float("nan")
    negatives_below_S = np.cumsum(negatives_S) - negatives_S
    n_ordered = float((positives_S * (negatives_below_S + 0.5 * negatives_S)).sum())
    return min(max(n_ordered / (n_positive * n_negative), 0.0), 1.0)


class ProgressiveMetrics:
    """A cumulative tally and one per finished window of event time. One writer."""

    def __init__(self, window_ms: int) -> None:
        if window_ms <= 0:
            raise ConfigError(f"window_ms must be > 0, got {window_ms}")
        self._window_ms = window_ms
        self.total = Tally()
        self._window = Tally()
        self._window_index = -1
        self.finished: list[dict[str, float]] = []

    def add(
        self,
        prediction_B: Floats,
        label_B: Floats,
        event_time_ms: int,
        *,
        stated: Statements | None = None,
    ) -> None:
        """Count a batch under the window of ``event_time_ms``, its newest event's time."""
        index = event_time_ms // self._window_ms
        if index > self._window_index:
            self._close_window()
            self._window_index = index
        self.total.add(prediction_B, label_B, stated)
        self._window.add(prediction_B, label_B, stated)

    def _close_window(self) -> None:
        if self._window.positives_S.any() or self._window.negatives_S.any():
            start_ms = float(self._window_index * self._window_ms)
            self.finished.append({"window_start_ms": start_ms, **self._window.metrics()})
        self._window = Tally()

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for a snapshot."""
        columns = ["window_start_ms", "examples", "auc", "log_loss", "normalized_entropy", "calibration"]
        rows = [[window[column] for column in columns] for window in self.finished]
        return {
            "window_index": np.array([self._window_index], np.int64),
            "finished": np.array(rows, np.float64).reshape(len(rows), len(columns)),
            **_tally_state("total", self.total),
            **_tally_state("window", self._window),
        }

    def load_state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what ``state`` gave."""
        columns = ["window_start_ms", "examples", "auc", "log_loss", "normalized_entropy", "calibration"]
        self._window_index = int(arrays["window_index"][0])
        self.finished = [dict(zip(columns, map(float, row), strict=True)) for row in arrays["finished"]]
        self.total, self._window = tally_of(arrays, "total"), tally_of(arrays, "window")


def tally_of(arrays: Mapping[str, NDArray[Any]], name: str) -> Tally:
    """One tally out of a saved state."""
    loss_sum, prediction_sum = map(float, arrays[f"{name}.sums"])
    # Snapshots from before sampled streams hold whole numbers.
    positives_S, negatives_S = (
        arrays[f"{name}.{which}"].astype(np.float64) for which in ("positives", "negatives")
    )
    return Tally(positives_S, negatives_S, loss_sum, prediction_sum)


def _tally_state(name: str, tally: Tally) -> dict[str, NDArray[Any]]:
    return {
        f"{name}.positives": tally.positives_S.copy(),
        f"{name}.negatives": tally.negatives_S.copy(),
        f"{name}.sums": np.array([tally.loss_sum, tally.prediction_sum], np.float64),
    }


def _shares(is_positive_B: NDArray[np.bool_], stated: Statements) -> tuple[Sums, Sums]:
    """How many positives and how many negatives of the whole stream each row stands for, (B,) each."""
    weight_B = stated.weight_B.astype(np.float64)
    positives_B = np.where(is_positive_B, weight_B, 0.0)
    withdrawn_B = np.where(stated.is_fast_B, -positives_B, 0.0)
    return positives_B, np.where(is_positive_B, withdrawn_B, weight_B / stated.sample_rate_B)


def _bins(p_B: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each probability: equal widths in log-odds, so that rare classes keep their order."""
    logit_B = np.clip(np.log(p_B) - np.log1p(-p_B), -MAX_LOGIT, MAX_LOGIT)
    bin_B: NDArray[np.int64] = ((logit_B + MAX_LOGIT) * ((N_BINS - 1) / (2 * MAX_LOGIT))).astype(np.int64)
    return bin_B
