"""Progressive metrics: every example is predicted, counted here, and only then learned from.

AUC, log loss, normalised entropy and calibration over all that was seen and over fixed windows of
event time. The state is a histogram of predictions per label: it is small, adds up, can be saved,
and the difference of two states is the metric of what came between.

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

Floats = NDArray[np.float32]

N_BINS = 1 << 14
MAX_LOGIT = 12.0


@dataclass(slots=True)
class Tally:
    """Sums from which each metric follows. One writer."""

    positives_S: NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    negatives_S: NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    loss_sum: float = 0.0
    prediction_sum: float = 0.0

    def add(self, prediction_B: Floats, label_B: Floats) -> None:
        """Count one batch of probabilities and their 0/1 labels."""
        if prediction_B.shape != label_B.shape or prediction_B.ndim != 1:
            raise ShapeError(f"want one label per prediction; got {label_B.shape} for {prediction_B.shape}")
        p_B = np.clip(prediction_B.astype(np.float64), 1e-7, 1 - 1e-7)
        positive_B = label_B > 0.5
        bin_B = _bins(p_B)
        np.add.at(self.positives_S, bin_B[positive_B], 1)
        np.add.at(self.negatives_S, bin_B[~positive_B], 1)
        self.loss_sum -= float(np.log(np.where(positive_B, p_B, 1 - p_B)).sum())
        self.prediction_sum += float(p_B.sum())

    def since(self, earlier: Tally) -> Tally:
        """What was counted after ``earlier``, a former state of this tally."""
        return Tally(
            self.positives_S - earlier.positives_S,
            self.negatives_S - earlier.negatives_S,
            self.loss_sum - earlier.loss_sum,
            self.prediction_sum - earlier.prediction_sum,
        )

    def metrics(self) -> dict[str, float]:
        """examples, auc, log_loss, normalized_entropy, calibration; NaN where undefined."""
        n_positive, n_negative = int(self.positives_S.sum()), int(self.negatives_S.sum())
        n = n_positive + n_negative
        rate = n_positive / n if n else np.nan
        log_loss = self.loss_sum / n if n else np.nan
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) if 0 < rate < 1 else np.nan
        return {
            "examples": float(n),
            "auc": auc_of_histogram(self.positives_S, self.negatives_S),
            "log_loss": float(log_loss),
            "normalized_entropy": float(log_loss / entropy),
            "calibration": self.prediction_sum / n_positive if n_positive else np.nan,
        }


def auc_of_histogram(positives_S: NDArray[np.int64], negatives_S: NDArray[np.int64]) -> float:
    """Probability that a positive lies in a higher bin than a negative, equal bins counting half.

    NaN when one of the classes is empty. Off from the exact AUC by at most half the share of
    pairs that fall into one bin.
    """
    n_pairs = float(positives_S.sum()) * float(negatives_S.sum())
    if n_pairs == 0:
        return float("nan")
    negatives_below_S = np.cumsum(negatives_S) - negatives_S
    return float((positives_S * (negatives_below_S + 0.5 * negatives_S)).sum() / n_pairs)


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

    def add(self, prediction_B: Floats, label_B: Floats, event_time_ms: int) -> None:
        """Count a batch under the window of ``event_time_ms``, its newest event's time."""
        index = event_time_ms // self._window_ms
        if index > self._window_index:
            self._close_window()
            self._window_index = index
        self.total.add(prediction_B, label_B)
        self._window.add(prediction_B, label_B)

    def _close_window(self) -> None:
        if self._window.prediction_sum > 0:
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
    return Tally(
        arrays[f"{name}.positives"].copy(), arrays[f"{name}.negatives"].copy(), loss_sum, prediction_sum
    )


def _tally_state(name: str, tally: Tally) -> dict[str, NDArray[Any]]:
    return {
        f"{name}.positives": tally.positives_S.copy(),
        f"{name}.negatives": tally.negatives_S.copy(),
        f"{name}.sums": np.array([tally.loss_sum, tally.prediction_sum], np.float64),
    }


def _bins(p_B: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each probability: equal widths in log-odds, so that rare classes keep their order."""
    logit_B = np.clip(np.log(p_B) - np.log1p(-p_B), -MAX_LOGIT, MAX_LOGIT)
    bin_B: NDArray[np.int64] = ((logit_B + MAX_LOGIT) * ((N_BINS - 1) / (2 * MAX_LOGIT))).astype(np.int64)
    return bin_B
