"""Impressions and later feedback become examples: event-time windows, no clock, no I/O of its own.

One LabelJoin serves one pair of partitions, impressions and feedback of the same requests. An impression
opens a window for each label of each of its items (streaming/join_rules.py draws it). When the watermark
passes the end of a label's wait, an unanswered item is a negative; labels that end together leave in one
row, which says nothing of the others.

Whether a feedback is in time, late or too late follows from its time and the impression's alone, so all
that arrives within the allowed disorder gives the same rows in any order of arrival. Where several
feedbacks of one item could decide and disagree, that holds "in_order" and for the largest and the sum;
"at_once", and among late ones, the first to arrive decides.

After Monolith, sec. 2.2 (arXiv:2209.07663); the windows are ours.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence

from recsys.interactions import Feedback
from streaming.errors import EventRejected, StateUnavailable, StreamingError
from streaming.held_back import HeldBack
from streaming.join_plan import Plan, find_item, new_states, plan_of
from streaming.join_rules import JoinConfig
from streaming.shown import Joined, Shown
from streaming.source import Partition
from streaming.verdicts import JoinCounters, Verdicts
from streaming.watermarks import Watermarks, decode_watermark, encode_watermark
from streaming.window_store import WindowStore
from streaming.windows import WAITING, Part, Window

__all__ = ["JoinCounters", "LabelJoin"]

_MAX_PARTS = 1_000
_VERSION = 1
_LEDGER = struct.Struct("<BIII")


class LabelJoin:
    """Windows of one pair of partitions, between a store and the rows they make. One caller at a time."""

    def __init__(self, config: JoinConfig, partitions: Sequence[Partition], store: WindowStore) -> None:
        """``partitions`` are all that events will come from; ``store`` is this join's alone."""
        self._config, self._store = config, store
        self._plan = plan_of(config.rules, config.remember_ms)
        self._plans = {name: plan_of(own, config.remember_ms) for name, own in config.by_domain.items()}
        self._kinds, self._skew_ms, self._max_ahead_ms = config.kinds, config.skew_ms, config.max_ahead_ms
        self._watermarks = Watermarks(
            partitions,
            allowed_disorder_ms=config.allowed_disorder_ms,
            idle_after_ms=config.idle_after_ms,
        )
        self._verdicts = Verdicts()
        self.counters = self._verdicts.counters
        store.bound_cache(config.cache_max_bytes)

    @property
    def watermark_ms(self) -> int:
        """Event time up to which everything is believed to have arrived."""
        return self._watermarks.watermark_ms

    @property
    def wants_commit(self) -> bool:
        """Whether a commit is due before its time, because what it would let go to disk fills the cache."""
        return self._store.wants_commit

    @property
    def longest_window_ms(self) -> int:
        """How long after its showing something may still be stated about an item, at most."""
        return self._config.longest_window_ms

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels of every row."""
        return self._config.label_names

    @property
    def windows_in_memory(self) -> int:
        """Requests that are known, in the cache."""
        return self._store.n_cached

    @property
    def windows_on_disk(self) -> int:
        """Requests that are known, on disk only."""
        return self._store.n_windows - self._store.n_cached

    def add_shown(self, partition: Partition, shown: Shown, *, received_at_ms: int) -> None:
        """Take one impression; of no items it is a heartbeat. Raises EventRejected."""
        self._observe(partition, shown.event_time_ms, received_at_ms)
        if shown.item_ids:
            self._open(shown)
        if self._store.next_due_ms <= self._watermarks.watermark_ms:
            self._advance()

    def add_feedback(self, partition: Partition, feedback: Feedback, *, received_at_ms: int) -> None:
        """Take one feedback; without a kind it is a heartbeat. Raises EventRejected."""
        self._observe(partition, feedback.event_time_ms, received_at_ms)
        if feedback.kind in self._kinds:
            self._answer(feedback)
        elif feedback.kind:
            self.counters.ignored += 1
        if self._store.next_due_ms <= self._watermarks.watermark_ms:
            self._advance()

    def pass_time(self, elapsed_ms: int, silent: Collection[Partition]) -> None:
        """Wall time went by in which these partitions, read to their end, brought nothing."""
        self._watermarks.pass_time(elapsed_ms, silent)
        self._advance()

    def take(self) -> list[Joined]:
        """The rows made since the last call, in the order in which they are to be learned."""
        rows, self._verdicts.rows = self._verdicts.rows, []
        return rows

    def hold_back(self, example_ids: set[int], keys: set[int] | None = None) -> None:
        """Make none of these rows: an earlier life of this join has. Replaces what was held back before.

        Where a negative is among them, feedback that would have come in time is late. ``keys`` are those of
        all items that the rows are about: with them, other items cost nothing.
        """
        self._verdicts.held = HeldBack(example_ids, keys) if example_ids else None

    @property
    def held_back(self) -> set[int]:
        """What is left of it: rows that have not come up again. Not to be changed."""
        held = self._verdicts.held
        return held.ids if held is not None else set()

    def commit(self, marks: bytes) -> None:
        """Make the state durable together with ``marks``, both or neither.

        Raises StreamingError where rows were not taken, StateUnavailable where the state cannot be written.
        """
        if self._verdicts.rows:
            raise StreamingError(
                f"{len(self._verdicts.rows)} rows were not taken before the commit that counts them as made; "
                "take and publish them first"
            )
        names = "\0".join(self._config.label_names).encode()
        watermark = encode_watermark(self._watermarks.state())
        head = _LEDGER.pack(_VERSION, len(names), len(watermark), len(marks))
        keep_from_ms = self._watermarks.watermark_ms - self._config.cache_horizon_ms
        self._store.commit(head + names + watermark + marks, keep_from_ms=keep_from_ms)

    def restore(self) -> bytes | None:
        """Stand as after the last commit, whose marks are returned; None where there is none.

        Before the first event. Raises StateUnavailable for the state of other labels.
        """
        ledger = self._store.restore()
        if ledger is None:
            return None
        version, n_names, n_watermark, n_marks = _LEDGER.unpack_from(ledger)
        names, watermark = ledger[_LEDGER.size :][:n_names], ledger[_LEDGER.size + n_names :][:n_watermark]
        wanted = "\0".join(self._config.label_names).encode()
        if version != _VERSION or names != wanted:
            raise StateUnavailable(
                f"the state is of version {version} and labels {names.split(bytes(1))}, want {_VERSION} and "
                f"{wanted.split(bytes(1))}; start with an empty state folder to join the log again"
            )
        self._watermarks.restore(decode_watermark(watermark))
        return ledger[len(ledger) - n_marks :] if n_marks else b""

    def close(self) -> None:
        """Give the state up as it was last committed."""
        self._store.close()

    def _observe(self, partition: Partition, event_time_ms: int, received_at_ms: int) -> None:
        if event_time_ms - received_at_ms > self._max_ahead_ms:
            raise EventRejected(
                f"event is dated {event_time_ms - received_at_ms} ms ahead of its arrival, want at most "
                f"{self._max_ahead_ms}; set the clock of what sent it"
            )
        self._watermarks.observe(partition, event_time_ms)

    def _open(self, shown: Shown) -> None:
        """Let the items of an impression wait that its request has not shown before."""
        plan = self._plans.get(shown.domain, self._plan)
        window = self._store.get(shown.request_id)
        is_known = window is not None
        if window is None:
            window = Window(shown.request_id)
        states, n_known = new_states(window, shown, plan.n_labels)
        n_new = len(shown.item_ids) - n_known
        self.counters.duplicates += n_known
        # What belonged to it may have been dropped as orphans, so nothing is known of it.
        if n_new and shown.event_time_ms + plan.first_wait_ms <= self._watermarks.watermark_ms:
            self.counters.late += n_new
            if not is_known:
                return
        elif n_new:
            if len(window.parts) == _MAX_PARTS:
                raise EventRejected(
                    f"request {shown.request_id!r} has shown items {_MAX_PARTS} times; give each "
                    "answer an id of its own"
                )
            part = Part(shown, states)
            window.parts.append(part)
            if plan.is_fast:
                self._state_fast(part, plan)
            if window.early:
                self._adopt(window)
        # A copy with a later time must not be taken for news: remember until it would be late.
        if window.parts:
            window.forget_ms = max(window.forget_ms, shown.event_time_ms + plan.forget_after_ms)
        window.due_ms = self._due(window)
        self._store.put(window)

    def _answer(self, feedback: Feedback) -> None:
        """Bring a feedback to its item, or let it wait for one."""
        window = self._store.get(feedback.request_id)
        if window is not None:
            if self._apply(window, feedback):
                self._store.put(window)
        elif self._may_find_item(feedback):
            window = Window(feedback.request_id, early=[feedback])
            window.due_ms = self._due(window)
            self._store.put(window)
        else:
            self.counters.orphans += 1

    def _state_fast(self, part: Part, plan: Plan) -> None:
        for position in range(len(part.shown.item_ids)):
            if part.states[position * plan.n_labels] == WAITING:
                self._verdicts.state_fast(part, plan, position)

    def _may_find_item(self, feedback: Feedback) -> bool:
        """Whether an impression may come yet that the feedback would belong to."""
        return feedback.event_time_ms + self._skew_ms >= self._watermarks.watermark_ms

    def _apply(self, window: Window, feedback: Feedback) -> bool:
        """Whether the feedback changed the window."""
        event_id = feedback.event_id
        # Without an id, a copy cannot be told from another one.
        if event_id and (
            event_id in window.event_ids or any(other.event_id == event_id for other in window.early)
        ):
            self.counters.duplicates += 1
            return False
        found = find_item(window, feedback.item_id)
        if found is not None:
            return self._decide(window, found[0], found[1], feedback)
        if not self._may_find_item(feedback):
            self.counters.orphans += 1
            return False
        window.early.append(feedback)
        window.due_ms = min(window.due_ms, feedback.event_time_ms + self._skew_ms + 1)
        return True

    def _adopt(self, window: Window) -> None:
        """Feedback that came before its impression."""
        early, window.early = window.early, []
        for feedback in early:
            found = find_item(window, feedback.item_id)
            if found is None:
                window.early.append(feedback)
            else:
                self._decide(window, found[0], found[1], feedback)

    def _decide(self, window: Window, part: Part, position: int, feedback: Feedback) -> bool:
        if feedback.event_time_ms - part.shown.event_time_ms < -self._skew_ms:
            self.counters.orphans += 1
            return False
        plan = self._plans.get(part.shown.domain, self._plan)
        if not self._verdicts.decide(part, plan, position, feedback):
            return False
        if feedback.event_id:
            window.event_ids.add(feedback.event_id)
        return True

    def _advance(self) -> None:
        """Let happen what the watermark has passed, in the order of its time."""
        while (window := self._store.pop_due(self._watermarks.watermark_ms)) is not None:
            self._pass_due(window)

    def _pass_due(self, window: Window) -> None:
        """What happens to a window at its due time, and no later: other windows may come in between."""
        now_ms = window.due_ms
        if window.early:
            stay = [one for one in window.early if one.event_time_ms + self._skew_ms >= now_ms]
            self.counters.orphans += len(window.early) - len(stay)
            window.early = stay
        for part in sorted(window.parts, key=_showing) if len(window.parts) > 1 else window.parts:
            plan = self._plans.get(part.shown.domain, self._plan)
            for group in plan.groups:
                if part.shown.event_time_ms + group.wait_ms > now_ms:
                    break
                if group.bits & ~part.closed:
                    self._verdicts.close(part, plan, group)
        if window.forget_ms <= now_ms and not window.early:
            self._store.remove(window)
        else:
            window.due_ms = self._due(window)
            self._store.put(window)

    def _due(self, window: Window) -> int:
        """When something happens to the window next."""
        dues = [one.event_time_ms + self._skew_ms + 1 for one in window.early]
        for part in window.parts:
            for group in self._plans.get(part.shown.domain, self._plan).groups:
                if group.bits & ~part.closed:
                    dues.append(part.shown.event_time_ms + group.wait_ms)
                    break
        return min(dues) if dues else window.forget_ms


def _showing(part: Part) -> tuple[int, tuple[int, ...]]:
    return part.shown.event_time_ms, part.shown.item_ids
