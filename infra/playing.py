"""Plays a data set into the topics as a product would fill them: impressions now, feedback a little later."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.events import (
    encode_feedback,
    encode_impression,
    feedback_at,
    feedback_of,
    impression_at,
    impression_of,
)
from streaming.sink import EventSink
from streaming.topics import FEEDBACK, IMPRESSIONS

LOOK_EVERY_ROWS = 200
WAIT_S = 0.005
ASK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayConfig:
    """How fast a log is played, and whose clock it shows."""

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


@dataclass(frozen=True, slots=True)
class Request:
    """One request's messages, encoded."""

    request_id: str
    key: bytes
    rows: int
    impression: bytes
    feedback: tuple[bytes, ...]


def encoded(
    requests: Iterable[tuple[Impression, list[Feedback]]], max_rows: int | None = None
) -> Iterator[Request]:
    """The messages of each request, up to ``max_rows`` shown items in all; the last page is cut to fit."""
    left = max_rows
    for impression, feedback in requests:
        if left is not None:
            if left <= 0:
                return
            impression, feedback = _first_items(impression, feedback, left)  # noqa: PLW2901
            left -= len(impression.item_ids_K)
        yield Request(
            impression.request_id,
            str(impression.user_id).encode(),
            len(impression.item_ids_K),
            encode_impression(impression),
            tuple(encode_feedback(one) for one in feedback),
        )


def repeated(requests: Sequence[Request], rounds: int) -> Iterator[Request]:
    """The requests over and over; from the second round on under ids of their own, so that they are new."""
    yield from requests
    for number in range(1, rounds):
        for request in requests:
            request_id = f"{request.request_id}/{number}"
            yield Request(
                request_id,
                request.key,
                request.rows,
                impression_of(request.impression, request_id),
                tuple(feedback_of(one, request_id) for one in request.feedback),
            )


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
        """``learned`` tells how many rows the trainer has learned so far, before this log too."""
        self._config, self._sink = config, sink
        self._clock_ms, self._learned = clock_ms, learned
        self._due: deque[tuple[int, bytes, bytes]] = deque()
        self._seen: set[str] = set()
        self._n_unique = 0
        self._learned_before = (float("-inf"), 0.0)
        self._learned_earlier = 0.0
        self._started_s = time.monotonic()
        self.rows = 0
        self.started_ms = 0
        """When ``play`` began; 0 before."""

    def play(self, requests: Iterable[Request]) -> None:
        """Send everything; returns when the log has it all."""
        next_look, self._started_s = 0, time.monotonic()
        self.started_ms = self._clock_ms()
        if self._config.max_in_flight:
            # A trainer that goes on from a snapshot counts what it learned before this log was played.
            self._learned_earlier = self._learned()
        for request in requests:
            if self.rows >= next_look:
                self._hold_back()
                next_look = self.rows + LOOK_EVERY_ROWS
            now_ms = self._clock_ms()
            self._send(request, now_ms)
            self._send_due(now_ms)
        while self._due:
            time.sleep(WAIT_S)
            self._send_due(self._clock_ms())
        self._sink.flush()

    def _send(self, request: Request, now_ms: int) -> None:
        impression, due_ms = request.impression, 0
        if not self._config.keep_times:
            impression = impression_at(impression, now_ms)
            due_ms = now_ms + self._config.feedback_delay_ms
        self._sink.publish(IMPRESSIONS, request.key, impression)
        self._due.extend((due_ms, request.key, feedback) for feedback in request.feedback)
        self.rows += request.rows
        # A message that the log holds twice is learned from once.
        if self._config.max_in_flight and request.request_id not in self._seen:
            self._seen.add(request.request_id)
            self._n_unique += request.rows

    def _send_due(self, now_ms: int) -> None:
        while self._due and self._due[0][0] <= now_ms:
            due_ms, key, feedback = self._due.popleft()
            message = feedback if self._config.keep_times else feedback_at(feedback, due_ms)
            self._sink.publish(FEEDBACK, key, message)

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
        return self._n_unique - (learned - self._learned_earlier)


def _first_items(
    impression: Impression, feedback: list[Feedback], n: int
) -> tuple[Impression, list[Feedback]]:
    """The first ``n`` items of a page with their feedback; the page as it is where it has no more."""
    if len(impression.item_ids_K) <= n:
        return impression, feedback
    keys = impression.keys
    shorter = dataclasses.replace(
        impression,
        item_ids_K=impression.item_ids_K[:n],
        scores_K=impression.scores_K[:n],
        propensities_K=impression.propensities_K[:n],
        keys=RaggedKeys(keys.keys_T[: keys.offsets[n]], keys.lengths_NF[:n]),
    )
    shown = set(shorter.item_ids_K.tolist())
    return shorter, [one for one in feedback if one.item_id in shown]
