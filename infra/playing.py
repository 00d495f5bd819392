"""Plays a data set into the topics as a product would fill them: impressions now, feedback a little later."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from recsys.errors import ConfigError
from recsys.interactions import Feedback, Impression
from streaming.events import encode_feedback, encode_impression
from streaming.sink import EventSink
from streaming.topics import FEEDBACK, IMPRESSIONS

LOOK_EVERY_ROWS = 200
WAIT_S = 0.005
ASK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayConfig:
    max_rows: int | None = None
    """Stop after so many rows of the log; None: all."""
    rows_per_s: float = 0.0
    """Not faster than this; 0 is as fast as ``max_in_flight`` allows."""
    max_in_flight: int = 0
    """Rows sent but not learned; beyond it the player waits. 0: no limit."""
    keep_times: bool = False
    """Send the log's own event times instead of the time of sending."""
    feedback_delay_ms: int = 100
    """Between an impression and its feedback, when times are those of sending."""

    def __post_init__(self) -> None:
        if self.rows_per_s < 0 or self.max_in_flight < 0 or self.feedback_delay_ms < 0:
            raise ConfigError("rows_per_s, max_in_flight and feedback_delay_ms must be >= 0")


class Player:
    """Sends requests in the order of the log. One caller."""

    def __init__(
        self,
        config: PlayConfig,
        sink: EventSink,
        *,
        clock_ms: Callable[[], int],
        learned: Callable[[], float],
    ) -> None:
        """``learned`` tells how many rows have been learned so far."""
        self._config, self._sink = config, sink
        self._clock_ms, self._learned = clock_ms, learned
        self._due: deque[tuple[int, Feedback]] = deque()
        self._seen: set[str] = set()
        self._n_unique = 0
        self._learned_before = (float("-inf"), 0.0)
        self._started_s = time.monotonic()
        self.rows = 0
        self.event_time_ms = 0

    def play(self, requests: Iterable[tuple[Impression, list[Feedback]]]) -> None:
        """Send everything; returns when the log has it all."""
        next_look = 0
        for impression, feedback in _first_rows(requests, self._config.max_rows):
            if self.rows >= next_look:
                self._hold_back()
                next_look = self.rows + LOOK_EVERY_ROWS
            self._send(impression, feedback)
            self._send_due(self._clock_ms())
        while self._due:
            time.sleep(WAIT_S)
            self._send_due(self._clock_ms())
        self._sink.flush()

    def _send(self, impression: Impression, feedback: list[Feedback]) -> None:
        if self._config.keep_times:
            sent, due_ms = impression, 0
        else:
            sent = dataclasses.replace(impression, event_time_ms=self._clock_ms())
            due_ms = sent.event_time_ms + self._config.feedback_delay_ms
            feedback = [dataclasses.replace(one, event_time_ms=due_ms) for one in feedback]
        self._sink.publish(IMPRESSIONS, str(sent.user_id).encode(), encode_impression(sent))
        self._due.extend((due_ms, one) for one in feedback)
        self.rows += len(sent.item_ids_K)
        # A message that the log holds twice is learned from once.
        if sent.request_id not in self._seen:
            self._seen.add(sent.request_id)
            self._n_unique += len(sent.item_ids_K)
        self.event_time_ms = sent.event_time_ms

    def _send_due(self, now_ms: int) -> None:
        while self._due and self._due[0][0] <= now_ms:
            feedback = self._due.popleft()[1]
            self._sink.publish(FEEDBACK, str(feedback.user_id).encode(), encode_feedback(feedback))

    def _hold_back(self) -> None:
        """Wait while too much is under way or the pace is too high; feedback goes out meanwhile."""
        limit, pace = self._config.max_in_flight, self._config.rows_per_s
        while (limit and self._in_flight() >= limit) or (
            pace and self.rows > pace * (time.monotonic() - self._started_s)
        ):
            time.sleep(WAIT_S)
            self._send_due(self._clock_ms())

    def _in_flight(self) -> float:
        """Rows sent but not learned. Asking costs the trainer time, so it is asked ten times a second."""
        asked_s, learned = self._learned_before
        if time.monotonic() - asked_s > ASK_EVERY_S:
            learned = self._learned()
            self._learned_before = (time.monotonic(), learned)
        return self._n_unique - learned


def _first_rows(
    requests: Iterable[tuple[Impression, list[Feedback]]], max_rows: int | None
) -> Iterator[tuple[Impression, list[Feedback]]]:
    """Requests up to ``max_rows`` items; the last page is cut to fit."""
    if max_rows is None:
        yield from requests
        return
    left = max_rows
    for impression, feedback in requests:
        if left <= 0:
            return
        n = len(impression.item_ids_K)
        if n > left:
            impression, feedback = _cut(impression, feedback, left)  # noqa: PLW2901
        left -= n
        yield impression, feedback


def _cut(impression: Impression, feedback: list[Feedback], n: int) -> tuple[Impression, list[Feedback]]:
    kept = impression.item_ids_K[:n]
    keys = impression.keys
    end = keys.offsets[n]
    shorter = dataclasses.replace(
        impression,
        item_ids_K=kept,
        scores_K=impression.scores_K[:n],
        propensities_K=impression.propensities_K[:n],
        keys=type(keys)(keys.keys_T[:end], keys.lengths_NF[:n]),
    )
    items = set(kept.tolist())
    return shorter, list(islice((one for one in feedback if one.item_id in items), None))
