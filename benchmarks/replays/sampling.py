"""Replay G's arms: how negatives are kept, how the learner takes them, and how right what it serves is.

Axes: N rows of the stream, S strata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from recsys.evaluation.progressive import Tally
from replays.following import follow
from replays.models import Model
from replays.stream import Doubles, Floats, Ids, Stream
from replays.told import Told, emitted_fast, waited

Style = Literal["train_time", "serve_time", "fast_emit", "rate_1_on_positives", "corrected_twice"]

STRATA = ("head", "middle", "tail")
STRATUM_SHARES = (0.5, 0.3, 0.2)
"""Of the events, the most popular items first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to sample and to correct."""

    style: Style
    """The first three are right; the others are mistakes that a replay must notice."""
    rates: tuple[float, ...]
    """Of each stratum, or one for all."""

    @property
    def name(self) -> str:
        """In figures."""
        return f"{self.style}.r_{'_'.join(f'{rate:g}' for rate in self.rates)}"

    def told(self, stream: Stream, stratum_N: Ids, draw_N: Doubles) -> Told:
        """What is stated of the stream, nothing of it late."""
        rate_N = np.array(self.rates)[stratum_N if len(self.rates) > 1 else np.zeros_like(stratum_N)]
        if self.style == "fast_emit":
            return emitted_fast(stream, rate_N, draw_N, np.zeros(len(stream)))
        told = waited(stream, rate_N, draw_N)
        if self.style == "rate_1_on_positives":
            return told.with_rate(np.where(told.label_M > 0.5, np.float32(1.0), told.sample_rate_M))
        return told

    def served(self, stream: Stream, told: Told, model: Model) -> Floats:
        """Probability of each row, (N,), before it was told of."""
        is_shifted = self.style in ("serve_time", "corrected_twice")
        return follow(
            stream,
            told,
            model,
            corrects=self.style != "serve_time",
            shift=self.rates[0] if is_shifted else 1.0,
        )


def strata(stream: Stream) -> Ids:
    """Stratum of each row, (N,), by how often its item occurs."""
    items, item_N, count_I = np.unique(stream.item_N, return_inverse=True, return_counts=True)
    order_I = np.argsort(-count_I, kind="stable")
    before_I = np.empty(len(items))
    before_I[order_I] = (np.cumsum(count_I[order_I]) - count_I[order_I]) / len(stream)
    ends = np.cumsum(STRATUM_SHARES)[:-1]
    stratum_N: Ids = np.searchsorted(ends, before_I, side="right")[item_N]
    return stratum_N


def scores(stream: Stream, served_N: Floats, stratum_N: Ids, since: int) -> dict[str, float]:
    """Calibration, log loss and AUC over the rows from ``since`` on, all of them and each stratum's."""
    late_N = np.arange(len(stream)) >= since
    found = _calibration("", stream, served_N, late_N)
    label_L, served_L = stream.label_N[late_N], served_N[late_N].astype(np.float64)
    found["log_loss"] = float(log_loss(label_L, served_L))
    found["auc"] = float(roc_auc_score(label_L, served_L))
    for number, name in enumerate(STRATA):
        found |= _calibration(f"{name}.", stream, served_N, late_N & (stratum_N == number))
    return found


def _calibration(prefix: str, stream: Stream, served_N: Floats, part_N: Ids) -> dict[str, float]:
    served = float(served_N[part_N].sum(dtype=np.float64))
    found = {f"{prefix}calibration": served / float(stream.label_N[part_N].sum())}
    if stream.probability_N is not None:
        found[f"{prefix}calibration_to_truth"] = served / float(stream.probability_N[part_N].sum())
    return found


def sampled_metrics(told: Told, served_N: Floats, since: int) -> dict[str, float]:
    """What the progressive metrics say from the statements alone, of the same predictions."""
    late = np.flatnonzero(told.row_M >= since)
    tally = Tally()
    tally.add(served_N[told.row_M[late]], told.label_M[late], told.statements(slice(None)).rows(late))
    return tally.metrics()


def label_noise(stream: Stream, since: int) -> float:
    """Standard deviation of mean p / mean y that the labels alone make, were every p right."""
    p_L = stream.label_N[since:].mean() if stream.probability_N is None else stream.probability_N[since:]
    n = len(stream) - since
    variance = float(np.sum(np.broadcast_to(p_L * (1.0 - p_L), n)))
    return float(np.sqrt(variance) / stream.label_N[since:].sum())
