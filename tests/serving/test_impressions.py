"""Impressions reach the sink in their order, or are counted; nobody who records one waits for a sink."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from serving.impressions import ImpressionLog
from serving.pipeline import RankQuery
from streaming.errors import SinkUnavailable
from streaming.events import decode_impression
from streaming.memory_log import MemoryLog
from streaming.topics import IMPRESSIONS

AT = (IMPRESSIONS, 0)


class Sink(MemoryLog):
    """A log that keeps who publishes waiting while it is shut, and refuses when told to, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open, self.is_entered = threading.Event(), threading.Event()
        self.is_open.set()
        self.refusals: list[Exception] = []

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        self.is_entered.set()
        assert self.is_open.wait(30)
        if self.refusals:
            raise self.refusals.pop(0)
        super().publish(topic, key, value, partition=partition)

    def names(self) -> list[str]:
        return [decode_impression(record.value).request_id for record in self.read(AT, 0, self.end(AT))]


def record(log: ImpressionLog, *names: Any) -> None:
    query = RankQuery(
        user_id=7,
        domain="home",
        item_ids_N=np.array([3], np.uint64),
        context={},
        request_time_ms=5,
        top_k=1,
    )
    keys = RaggedKeys(np.array([1, 2], np.uint64), np.ones((1, 2), np.uint8))
    for name in names:
        shown_K, score_K = np.zeros(1, np.int64), np.zeros(1, np.float32)
        log.record(query, keys, shown_K, score_K, request_id=str(name), policy="p", model_version="m")


@given(st.integers(0, 12), st.integers(1, 6))
def test_what_finds_no_room_behind_a_stuck_sink_is_dropped_and_counted_and_the_rest_arrives(
    n: int, room: int
) -> None:
    sink = Sink()
    sink.is_open.clear()
    log = ImpressionLog(sink, 0, max_waiting=room)
    record(log, *range(n))
    assert log.lost == max(0, n - room)
    sink.is_open.set()
    log.close()
    assert sink.names() == [str(name) for name in range(min(n, room))]
    assert all(entry.key == b"7" for entry in sink.read(AT, 0, n))


@pytest.mark.parametrize("error", [SinkUnavailable("no broker"), RuntimeError("no promise covers this")])
def test_a_refusal_costs_one_impression_and_is_logged_with_its_end(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving.impressions")
    sink = Sink()
    sink.refusals += [error] * 3
    log = ImpressionLog(sink, 0)
    record(log, *range(5))
    assert log.flush(10)
    assert (sink.names(), log.lost) == (["3", "4"], 3)
    record(log, 5)
    log.close()
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("WARNING", "impressions_lost"),
        ("INFO", "impressions_kept_again"),
    ]


def test_closing_beside_a_stuck_sink_ends_in_time_and_counts_what_waited() -> None:
    sink = Sink()
    sink.is_open.clear()
    log = ImpressionLog(sink, 0)
    record(log, "first", "second")
    assert sink.is_entered.wait(10)
    assert not log.flush(0.01)
    log.close(timeout_s=0.01)
    assert log.lost == 2
    record(log, "late")
    assert log.lost == 3
    sink.is_open.set()


def test_a_queue_without_room_is_refused_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match="max_waiting must be > 0, got 0"):
        ImpressionLog(Sink(), 0, max_waiting=0)
