"""What was shown goes back to the stream, with features, scores and versions as served."""

from __future__ import annotations

import logging
import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from recsys.interactions import Impression
from serving.pipeline import RankQuery
from streaming.events import encode_impression
from streaming.sink import EventSink
from streaming.topics import IMPRESSIONS

log = logging.getLogger(__name__)


class ImpressionLog:
    """Publishes impressions in a thread of its own: no answer waits for the broker. Any number of callers.

    An impression that finds ``max_waiting`` others before it, or that the sink refuses, is dropped and
    counted: an answer that nothing is learned from is better than none.
    """

    def __init__(self, sink: EventSink, schema_fingerprint: int, *, max_waiting: int = 10_000) -> None:
        """Begin to publish what ``record`` is given. Raises ConfigError where nothing may wait."""
        if max_waiting < 1:
            raise ConfigError(f"max_waiting must be > 0, got {max_waiting}")
        self._sink, self._schema_fingerprint, self._max_waiting = sink, schema_fingerprint, max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        """(key, value), oldest first; the first may be on its way into the sink."""
        self._is_losing = self._is_closed = False
        self.lost = 0
        """Impressions that the sink never took; what it gives up later is not among them."""
        threading.Thread(target=self._run, name="impressions", daemon=True).start()

    def record(
        self,
        query: RankQuery,
        keys: RaggedKeys,
        shown_K: NDArray[np.int64],
        score_K: NDArray[np.float32],
        *,
        request_id: str,
        policy: str,
        model_version: str,
    ) -> None:
        """Keep one impression for the sink, without waiting; ``shown_K`` are places among the candidates."""
        impression = Impression(
            request_id=request_id,
            user_id=query.user_id,
            event_time_ms=query.request_time_ms,
            domain=query.domain,
            policy=policy,
            model_version=model_version,
            schema_fingerprint=self._schema_fingerprint,
            item_ids_K=query.item_ids_N[shown_K],
            scores_K=score_K,
            propensities_K=np.ones(len(shown_K), np.float32),
            keys=keys.take(shown_K),
        )
        entry = str(query.user_id).encode(), encode_impression(impression)
        with self._changed:
            if self._is_closed or len(self._waiting) >= self._max_waiting:
                self._lose(1, "closed" if self._is_closed else f"{self._max_waiting} wait already")
            else:
                self._waiting.append(entry)
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the sink was given all that was recorded; False where that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Give the sink what waits, for so long at most, drop the rest, and end. The sink stays open."""
        self.flush(timeout_s)
        with self._changed:
            self._is_closed = True
            if self._waiting:
                self._lose(len(self._waiting), f"not taken within {timeout_s:.0f} s of the end")
            self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            reason = ""
            try:
                self._sink.publish(IMPRESSIONS, *entry)
            except Exception as error:  # noqa: BLE001
                # The thread's outermost loop: the next impression may find the broker back.
                reason = str(error) or type(error).__name__
            self._passed(reason)

    def _next(self) -> tuple[bytes, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting[0] if self._waiting else None

    def _passed(self, refusal: str) -> None:
        """Go on from the oldest: it was published, or refused for a reason."""
        with self._changed:
            if self._is_closed:
                return
            self._waiting.popleft()
            if refusal:
                self._lose(1, refusal)
            elif self._is_losing and not self._waiting:
                self._is_losing = False
                log.info("impressions_kept_again", extra={"lost": self.lost})
            self._changed.notify_all()

    def _lose(self, count: int, reason: str) -> None:
        self.lost += count
        if not self._is_losing:
            self._is_losing = True
            log.warning("impressions_lost", extra={"reason": reason})
