"""What a joiner tells of a stream: which rows, when, as what, and how the learner is to take it.

Each function is a small joiner over a whole stream. The real one is streaming.label_join; here a policy
is ten lines, so that many can be compared on the same draws.

Axes: N rows of the stream, M statements in the order in which they are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys.ranking.statements import Statements
from replays.stream import Doubles, Floats, Ids, Mask, Stream


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """Statements by the time at which they are made. Immutable: any number of readers."""

    row_M: Ids
    """Which row of the stream."""
    label_M: Floats
    """0 or 1."""
    at_s_M: Doubles
    """When it is stated; never falls."""
    sample_rate_M: Floats
    """As Statements says."""
    is_fast_M: Mask
    """As Statements says."""
    weight_M: Floats
    """As Statements says."""

    def __len__(self) -> int:
        return len(self.row_M)

    def statements(self, part: slice) -> Statements:
        """How a run of statements was made."""
        return Statements(
            sample_rate_B=self.sample_rate_M[part],
            is_fast_B=self.is_fast_M[part],
            weight_B=self.weight_M[part],
        )

    def with_rate(self, rate_M: Floats) -> Told:
        """The same statements under other recorded rates."""
        return replace(self, sample_rate_M=rate_M.astype(np.float32))


def waited(stream: Stream, rate_N: Doubles, draw_N: Doubles) -> Told:
    """All positives and the share ``rate_N`` of the negatives, each known when it is shown."""
    kept = np.flatnonzero((stream.label_N > 0.5) | (draw_N < rate_N))
    return _told(kept, stream.label_N[kept], stream.time_s_N[kept], rate_N)


def emitted_fast(stream: Stream, rate_N: Doubles, draw_N: Doubles, delay_s_N: Doubles) -> Told:
    """Every row as a negative at once, kept with its rate; positives again when they are known."""
    negative, positive = np.flatnonzero(draw_N < rate_N), np.flatnonzero(stream.label_N > 0.5)
    row_M = np.concatenate([negative, positive])
    at_s_M = np.concatenate([stream.time_s_N[negative], (stream.time_s_N + delay_s_N)[positive]])
    label_M = np.repeat([0.0, 1.0], [len(negative), len(positive)])
    return _told(row_M, label_M, at_s_M, rate_N, is_fast=True)


def waited_at_most(
    stream: Stream, rate_N: Doubles, draw_N: Doubles, delay_s_N: Doubles, wait_s: float, *, policy: str
) -> Told:
    """Positives within ``wait_s``; at its end a negative, kept with its rate, for all that is open.

    A later positive is dropped ("drop"), stated ("emit_positive"), or stated and the negative that was
    kept for it taken back ("retract").
    """
    is_late_N = (stream.label_N > 0.5) & (delay_s_N >= wait_s)
    in_time = np.flatnonzero((stream.label_N > 0.5) & ~is_late_N)
    negative = np.flatnonzero(((stream.label_N < 0.5) | is_late_N) & (draw_N < rate_N))
    late = np.flatnonzero(is_late_N) if policy != "drop" else np.empty(0, np.int64)
    back = np.flatnonzero(is_late_N & (draw_N < rate_N)) if policy == "retract" else np.empty(0, np.int64)
    known_s_N = stream.time_s_N + delay_s_N
    sizes = [len(in_time), len(negative), len(late), len(back)]
    at_s_M = [known_s_N[in_time], stream.time_s_N[negative] + wait_s, known_s_N[late], known_s_N[back]]
    return _told(
        np.concatenate([in_time, negative, late, back]),
        np.repeat([1.0, 0.0, 1.0, 0.0], sizes),
        np.concatenate(at_s_M),
        rate_N,
        weight_M=np.repeat([1.0, 1.0, 1.0, -1.0], sizes),
    )


def _told(
    row_M: Ids,
    label_M: Doubles | Floats,
    at_s_M: Doubles | Ids,
    rate_N: Doubles,
    *,
    is_fast: bool = False,
    weight_M: Doubles | None = None,
) -> Told:
    order_M = np.argsort(at_s_M, kind="stable")
    row_M = row_M[order_M]
    weight_M = np.ones(len(row_M)) if weight_M is None else weight_M[order_M]
    return Told(
        row_M=row_M,
        label_M=label_M[order_M].astype(np.float32),
        at_s_M=at_s_M[order_M].astype(np.float64),
        sample_rate_M=rate_N[row_M].astype(np.float32),
        is_fast_M=np.full(len(row_M), is_fast),
        weight_M=weight_M.astype(np.float32),
    )
