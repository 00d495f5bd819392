"""Replay G's second half: what feedback that is still on its way does to each way of joining.

Axes: N rows of the stream.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from replays.following import follow
from replays.models import Model
from replays.stream import Doubles, Floats, Mask, Stream
from replays.told import Told, emitted_fast, waited, waited_at_most

MINUTE_S, HOUR_S = 60, 3600
DELAYS_S = {"none": 0, "10min": 10 * MINUTE_S, "1h": HOUR_S, "6h": 6 * HOUR_S, "1d": 24 * HOUR_S}
WAIT_S = HOUR_S
YOUNG_S = 6 * HOUR_S
CHUNK = 2048
POLICIES = ("drop", "emit_positive", "retract")


def delays(n: int, mean_s: float, seed: int) -> Doubles:
    """Exponential delay of each row's feedback, (N,), in seconds."""
    return np.random.default_rng([seed, 12]).exponential(1.0, n) * mean_s


def young_items(stream: Stream) -> Mask:
    """Rows whose item was first shown less than six hours before, (N,); none that begins with the stream."""
    _, first, item_N = np.unique(stream.item_N, return_index=True, return_inverse=True)
    first_s_N = stream.time_s_N[first][item_N]
    is_born_N = first_s_N > stream.time_s_N[0] + YOUNG_S
    young_N: Mask = is_born_N & (stream.time_s_N - first_s_N < YOUNG_S)
    return young_N


def delay_scores(stream: Stream, model: Model, seed: int) -> dict[str, float]:
    """Fast emit under each mean delay against the truth; beside it, labels known at once (``waited``), and
    fast emit whose loss does not allow for it (``uncorrected``)."""
    whole_N, draw_N = np.ones(len(stream)), np.zeros(len(stream))
    arms = {
        f"fast_emit_{name}": emitted_fast(stream, whole_N, draw_N, delays(len(stream), mean_s, seed))
        for name, mean_s in DELAYS_S.items()
    }
    arms["waited"] = waited(stream, whole_N, draw_N)
    arms["uncorrected_1h"] = _without_marks(arms["fast_emit_1h"])
    young_N, late_N = young_items(stream), second_half(stream)
    found = {}
    for name, told in arms.items():
        served_N = follow(stream, told, model, chunk=CHUNK)
        for part, part_N in (("all", late_N), ("young", late_N & young_N)):
            found[f"{name}.{part}.calibration_to_truth"] = ratio_to_truth(stream, served_N, part_N)
    return found


def policy_scores(stream: Stream, model: Model, *, policy: str, rate: float, seed: int) -> dict[str, float]:
    """A wait of an hour under a mean delay of an hour, in which 37 % of the positives come late."""
    delay_s_N, rate_N = delays(len(stream), HOUR_S, seed), np.full(len(stream), rate)
    draw_N = np.random.default_rng([seed, 13]).random(len(stream))
    told = waited_at_most(stream, rate_N, draw_N, delay_s_N, WAIT_S, policy=policy)
    served_N = follow(stream, told, model, chunk=CHUNK)
    return {"calibration_to_truth": ratio_to_truth(stream, served_N, second_half(stream))}


def second_half(stream: Stream) -> Mask:
    """Which rows are scored, (N,)."""
    return np.arange(len(stream)) >= len(stream) // 2


def ratio_to_truth(stream: Stream, served_N: Floats, part_N: Mask) -> float:
    """Mean p over mean true probability of some rows. The stream must know its probabilities."""
    if stream.probability_N is None:
        raise ValueError("want a stream that knows its probabilities; take a synthetic one")
    return float(served_N[part_N].sum(dtype=np.float64) / stream.probability_N[part_N].sum())


def _without_marks(told: Told) -> Told:
    return replace(told, is_fast_M=np.zeros(len(told), np.bool_))
