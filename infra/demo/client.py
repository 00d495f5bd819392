"""What a product service does: asks for rankings, sends feedback, and looks at the next answer.

Two things are measured from outside, over real gRPC and a real log: how long a ranking of 200
candidates takes, and how long feedback takes to change a score.

A score moves all the time while others learn, so a probe compares twins: two items nobody has ever
seen, shown to a user nobody has ever seen. Their scores are equal until one of them gets feedback;
the first answer in which they differ is the answer that this feedback changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import NDArray

from recsys.interactions import Feedback
from serving.proto import recommender_pb2 as wire
from serving.proto import recommender_pb2_grpc
from streaming.events import encode_feedback
from streaming.sink import EventSink
from streaming.topics import FEEDBACK

EQUAL_WITHIN = 1e-5
PROBE_TIMEOUT_S = 20.0
LOOK_AGAIN_S = 0.05
GIVES_UP_AFTER = 50
FIRST_PROBE_ID = (1 << 20) - 2


@dataclass(slots=True)
class Measurements:
    """What was seen from outside; times in milliseconds."""

    rank_ms: list[float] = field(default_factory=list)
    staleness_ms: list[float] = field(default_factory=list)
    failed: int = 0
    parameter_age_ms: float = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductConfig:
    """Whom the product asks about what, and how often."""

    address: str
    """host:port of the server."""
    user_ids: NDArray[np.uint64]
    """Users who ask."""
    item_ids: NDArray[np.uint64]
    """Items to choose candidates from."""
    feedback_kind: str
    """The kind that decides the label."""
    positive_value: float
    """A value that makes it positive."""
    rank_period_s: float = 0.1
    """Between two rankings of ``candidates`` items."""
    candidates: int = 200
    probe_period_s: float = 0.5
    """Between two probes of freshness."""


class ProductService:
    """Two threads that call the server until stopped; measurements may be read at any time."""

    def __init__(self, config: ProductConfig, sink: EventSink, clock_ms: Callable[[], int]) -> None:
        self._config, self._sink, self._clock_ms = config, sink, clock_ms
        self._channel = grpc.insecure_channel(config.address)
        self._stub = recommender_pb2_grpc.RecommenderStub(self._channel)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._load, self._probe)]
        self.measured = Measurements()

    def start(self) -> None:
        """Begin to call; harmless when called again."""
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    @property
    def has_measured(self) -> bool:
        """Whether there is at least one of each measurement, or so many failures that none will come."""
        measured = self.measured
        return bool(measured.rank_ms and measured.staleness_ms) or measured.failed >= GIVES_UP_AFTER

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not been stopped, or has yet to begin."""
        return not self._stop.is_set()

    def stop(self) -> None:
        """Finish the calls in hand; harmless when called again."""
        if self.is_running:
            self._stop.set()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
            self._channel.close()

    def _load(self) -> None:
        rng = np.random.default_rng(7)
        config = self._config
        n_candidates = min(config.candidates, len(config.item_ids))
        while not self._stop.wait(config.rank_period_s):
            items = rng.choice(config.item_ids, n_candidates, replace=False)
            # Shadow: these candidates are shown to nobody, so they must not count as unanswered.
            request = wire.RankRequest(
                user_id=int(rng.choice(config.user_ids)), item_ids=items.tolist(), shadow=True
            )
            started = time.perf_counter()
            try:
                answer = self._stub.Rank(request, timeout=2.0)
            except grpc.RpcError:
                self.measured.failed += 1
                continue
            self.measured.rank_ms.append((time.perf_counter() - started) * 1000)
            self.measured.parameter_age_ms = answer.parameter_age_ms

    def _probe(self) -> None:
        number = 0
        while not self._stop.wait(self._config.probe_period_s):
            newcomer = FIRST_PROBE_ID - 2 * number
            number += 1
            try:
                staleness_ms = self._feedback_to_change(newcomer)
            except grpc.RpcError:
                self.measured.failed += 1
                continue
            if staleness_ms is not None:
                self.measured.staleness_ms.append(staleness_ms)

    def _feedback_to_change(self, newcomer: int) -> float | None:
        """Milliseconds from feedback in the log to a changed score; None when stopped before."""
        twins = [newcomer, newcomer + 1]
        shown = self._stub.Rank(wire.RankRequest(user_id=newcomer, item_ids=twins), timeout=2.0)
        now_ms = self._clock_ms()
        feedback = Feedback(
            event_id=newcomer,
            request_id=shown.request_id,
            user_id=newcomer,
            item_id=twins[0],
            kind=self._config.feedback_kind,
            value=self._config.positive_value,
            event_time_ms=now_ms,
        )
        self._sink.publish(FEEDBACK, str(newcomer).encode(), encode_feedback(feedback))
        self._sink.flush()
        started = time.perf_counter()
        while not self._stop.is_set() and time.perf_counter() - started < PROBE_TIMEOUT_S:
            answer = self._stub.Rank(
                wire.RankRequest(user_id=newcomer, item_ids=twins, shadow=True), timeout=2.0
            )
            if abs(answer.scores[0] - answer.scores[1]) > EQUAL_WITHIN:
                return (time.perf_counter() - started) * 1000
            time.sleep(LOOK_AGAIN_S)
        return None if self._stop.is_set() else PROBE_TIMEOUT_S * 1000
