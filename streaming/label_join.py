"""Impressions and later feedback become examples: event-time windows, no clock, no I/O.

An impression opens a window of ``wait_window_ms`` for each of its items. A feedback of the label's
kind belongs to an item of its request where

    -orphan_window_ms <= feedback time - impression time < wait_window_ms

so whether the two meet depends on their times alone, never on which came first. When the watermark
passes the end of a window, an unanswered item is a negative. All that arrives within the allowed
disorder therefore gives the same examples in any order of arrival ("at_once": as long as an item's
feedbacks of the label's kind agree; "in_order": always, and in the same sequence).

After Monolith, sec. 2.2.1 (arXiv:2209.07663); the windows are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from recsys.errors import ConfigError
from recsys.interactions import Feedback
from streaming.shown import Joined, Shown
from streaming.source import Partition
from streaming.watermarks import Watermarks, WatermarkState


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Which feedback is the label. Its first one decides, also when it says no."""

    kind: str
    """Feedback of any other kind is counted and left out."""
    at_least: float = 0.0
    """The label is 1 where the feedback's value reaches this, else 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinConfig:
    """Windows, in event time, and when examples leave."""

    label: LabelRule
    wait_window_ms: int
    """An item without feedback this long after it was shown is a negative; > 0."""
    allowed_disorder_ms: int = 0
    """How far behind its partition's newest event another one may come; >= 0."""
    orphan_window_ms: int = 0
    """How far ahead of its impression a feedback's time may lie (two machines' clocks); >= 0."""
    late_memory_ms: int = 0
    """How long after its window an item is still known, so that a copy with a later time is seen
    for what it is; >= 0."""
    idle_after_ms: int = 10_000
    """A partition silent for so long, by the wall clock, no longer holds the watermark; > 0."""
    emit: Literal["at_once", "in_order"] = "at_once"
    """"at_once": an example leaves the moment it is known. "in_order": it leaves when its window
    closes, by (time, request, position), so that nobody learns from the future of what follows."""

    def __post_init__(self) -> None:
        if self.wait_window_ms < 1:
            raise ConfigError(f"wait_window_ms must be > 0, got {self.wait_window_ms}")
        for name in ("allowed_disorder_ms", "orphan_window_ms", "late_memory_ms"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")


@dataclass(slots=True)
class JoinCounters:
    """What became of everything that arrived. Counts since the start of the process."""

    joined: int = 0
    """Examples made from a feedback."""
    positives: int = 0
    negatives: int = 0
    """Examples of label 0, answered or not."""
    duplicates: int = 0
    """Items shown and feedback that had come before."""
    orphans: int = 0
    """Feedback whose impression never came."""
    late: int = 0
    """Items and feedback whose window had closed."""
    ignored: int = 0
    """Feedback of another kind, or after the first that counts."""
    rejected: int = 0
    """Messages that could not be read."""


@dataclass(slots=True, eq=False)
class _Window:
    """Items of one impression that wait for feedback, or are remembered."""

    shown: Shown
    arrival: int
    forget_ms: int
    positions: list[int]
    """Items that had not been shown before."""
    labels: dict[int, float]
    """By position, of the items that were answered."""
    deciders: dict[int, tuple[int, int]]
    """By position: (time, event id) of the feedback that decided."""
    is_closed: bool = False


class LabelJoin:
    """Open windows and remembered ids. One caller at a time."""

    def __init__(self, config: JoinConfig, partitions: Sequence[Partition]) -> None:
        """``partitions`` are all that events will come from."""
        self._config = config
        self._in_order = config.emit == "in_order"
        self._hold_feedback_ms = config.orphan_window_ms + config.wait_window_ms + config.late_memory_ms
        self._watermarks = Watermarks(
            partitions,
            allowed_disorder_ms=config.allowed_disorder_ms,
            idle_after_ms=config.idle_after_ms,
        )
        self.counters = JoinCounters()
        self.arrivals = 0
        """Events given so far: the number that the next one gets."""
        self._ready: list[Joined] = []
        self._items: dict[tuple[str, int], tuple[_Window, int]] = {}
        self._orphans: dict[tuple[str, int], list[Feedback]] = {}
        self._seen: set[int] = set()
        # Arrival numbers of events that are still needed, in order (a dict keeps it).
        self._held: dict[int, None] = {}
        # Windows by (end, request, items): the order in which "in_order" lets them go.
        self._closing: list[tuple[int, str, tuple[int, ...], int, _Window]] = []
        self._forgetting: list[tuple[int, int, _Window | Feedback]] = []

    def add_shown(self, partition: Partition, shown: Shown) -> None:
        """Take one impression; of no items it is a heartbeat."""
        arrival, counters = self.arrivals, self.counters
        self.arrivals += 1
        self._watermarks.observe(partition, shown.event_time_ms)
        end_ms = shown.event_time_ms + self._config.wait_window_ms
        window = _Window(shown, arrival, end_ms + self._config.late_memory_ms, [], {}, {})
        is_late = end_ms <= self._watermarks.watermark_ms
        for position, item_id in enumerate(shown.item_ids):
            key = (shown.request_id, item_id)
            known = self._items.get(key)
            if known is not None:
                counters.duplicates += 1
                # A restart must not take a copy with a later time for news: remember until it is late.
                known[0].forget_ms = max(known[0].forget_ms, window.forget_ms)
            elif is_late:
                counters.late += 1
            else:
                self._items[key] = (window, position)
                window.positions.append(position)
        if window.positions:
            self._held[arrival] = None
            heappush(self._closing, (end_ms, shown.request_id, shown.item_ids, arrival, window))
            if self._orphans:
                self._adopt(window)
        self._advance()

    def add_feedback(self, partition: Partition, feedback: Feedback) -> None:
        """Take one feedback; without a kind it is a heartbeat."""
        arrival = self.arrivals
        self.arrivals += 1
        self._watermarks.observe(partition, feedback.event_time_ms)
        hold_ms = feedback.event_time_ms + self._hold_feedback_ms
        if not feedback.kind:
            pass
        elif feedback.kind != self._config.label.kind:
            self.counters.ignored += 1
        elif feedback.event_id in self._seen:
            self.counters.duplicates += 1
        elif hold_ms <= self._watermarks.watermark_ms:
            self.counters.late += 1
        else:
            self._seen.add(feedback.event_id)
            self._held[arrival] = None
            heappush(self._forgetting, (hold_ms, arrival, feedback))
            key = (feedback.request_id, feedback.item_id)
            known = self._items.get(key)
            if known is None:
                self._orphans.setdefault(key, []).append(feedback)
            else:
                self._decide(known[0], known[1], feedback)
        self._advance()

    def pass_time(self, elapsed_ms: int, silent: Collection[Partition]) -> None:
        """Wall time went by in which these partitions, read to their end, brought nothing."""
        self._watermarks.pass_time(elapsed_ms, silent)
        self._advance()

    def take(self) -> list[Joined]:
        """The examples made since the last call, in the order in which they are to be learned."""
        ready, self._ready = self._ready, []
        return ready

    def oldest_needed(self) -> int:
        """Arrival number of the oldest event that a restart would have to see again."""
        return next(iter(self._held), self.arrivals)

    def watermark_state(self) -> WatermarkState:
        """What ``restore`` needs."""
        return self._watermarks.state()

    def restore(self, state: WatermarkState) -> None:
        """Go on from this watermark, before the first event: what had closed by then stays closed."""
        self._watermarks.restore(state)

    def _adopt(self, window: _Window) -> None:
        """Feedback that came before its impression."""
        for position in window.positions:
            key = (window.shown.request_id, window.shown.item_ids[position])
            for feedback in self._orphans.pop(key, ()):
                self._decide(window, position, feedback)

    def _decide(self, window: _Window, position: int, feedback: Feedback) -> None:
        since_shown_ms = feedback.event_time_ms - window.shown.event_time_ms
        decider = (feedback.event_time_ms, feedback.event_id)
        if since_shown_ms < -self._config.orphan_window_ms:
            self.counters.orphans += 1
        elif window.is_closed or since_shown_ms >= self._config.wait_window_ms:
            self.counters.late += 1
        elif position not in window.labels:
            window.deciders[position] = decider
            window.labels[position] = float(feedback.value >= self._config.label.at_least)
            if not self._in_order:
                self._emit(window, position)
        else:
            self.counters.ignored += 1
            if self._in_order and decider < window.deciders[position]:
                window.deciders[position] = decider
                window.labels[position] = float(feedback.value >= self._config.label.at_least)

    def _emit(self, window: _Window, position: int) -> None:
        counters = self.counters
        label = window.labels.get(position)
        counters.joined += label is not None
        counters.positives += label == 1.0
        counters.negatives += label != 1.0
        self._ready.append(Joined(window.shown, position, label or 0.0))

    def _advance(self) -> None:
        """Close and forget what the watermark has passed."""
        now_ms = self._watermarks.watermark_ms
        while self._closing and self._closing[0][0] <= now_ms:
            window = heappop(self._closing)[-1]
            window.is_closed = True
            for position in window.positions:
                if self._in_order or position not in window.labels:
                    self._emit(window, position)
            heappush(self._forgetting, (window.forget_ms, window.arrival, window))
        while self._forgetting and self._forgetting[0][0] <= now_ms:
            _, arrival, remembered = heappop(self._forgetting)
            if isinstance(remembered, Feedback):
                self._forget_feedback(arrival, remembered)
            elif remembered.forget_ms > now_ms:
                heappush(self._forgetting, (remembered.forget_ms, arrival, remembered))
            else:
                self._forget_window(remembered)

    def _forget_window(self, window: _Window) -> None:
        del self._held[window.arrival]
        for position in window.positions:
            del self._items[window.shown.request_id, window.shown.item_ids[position]]

    def _forget_feedback(self, arrival: int, feedback: Feedback) -> None:
        del self._held[arrival]
        self._seen.discard(feedback.event_id)
        key = (feedback.request_id, feedback.item_id)
        waiting = self._orphans.get(key)
        if waiting is not None and feedback in waiting:
            self.counters.orphans += 1
            waiting.remove(feedback)
            if not waiting:
                del self._orphans[key]
