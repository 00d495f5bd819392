"""How soon the next seal comes: often enough to be fresh, seldom enough to be cheap."""

from __future__ import annotations

from collections.abc import Sequence

SHARE = 0.05
"""Of wall time that sealing may take, as long as the longest period allows it."""


def next_period_ms(costs_s: Sequence[float], *, shortest_ms: int, longest_ms: int) -> int:
    """Wall time from the start of one seal to that of the next, given what the last seals took.

    The mean cost is at most ``SHARE`` of it, within the bounds: where the two contradict each other the
    longest period wins, because it is a promise to readers. With no costs, after idling, the shortest.
    """
    if not costs_s:
        return min(shortest_ms, longest_ms)
    mean_ms = 1000 * sum(costs_s) / len(costs_s)
    return int(min(max(mean_ms / SHARE, shortest_ms), longest_ms))


def retry_after_ms(failures: int, *, first_ms: int, longest_ms: int) -> int:
    """Wait after so many failed seals in a row, >= 1: doubled each time, since each one holds up learning."""
    return max(first_ms, min(longest_ms, first_ms << min(failures - 1, 30)))
