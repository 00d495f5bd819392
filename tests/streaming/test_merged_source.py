"""However records of several partitions arrive, they are given out in one order: the log's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from streaming.example_wire import ExampleMessage, encode_examples, no_examples
from streaming.memory_log import LogSource, MemoryLog
from streaming.merged_source import UNREADABLE, MergedSource, message_time_ms
from streaming.source import Partition, Record

TOPIC = "examples"
TIMES = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8), min_size=1, max_size=4)
END = 1_000
"""Later than all: the heartbeat that closes each partition."""


def log_of(times: list[list[int]]) -> MemoryLog:
    """One record for each time, which is its value."""
    log = MemoryLog()
    for number, column in enumerate(times):
        for time in [*column, END]:
            log.publish(TOPIC, b"", str(time).encode(), partition=number)
    return log


def time_of(record: Record) -> int:
    return int(record.value)


class Arriving(LogSource):
    """A source that has only what has arrived so far."""

    def __init__(self, log: MemoryLog, at: Partition) -> None:
        super().__init__(log, [at])
        self._at, self.arrived = at, 0

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        left = self.arrived - self.positions()[self._at]
        return super().poll(max_records=min(left, max_records), timeout_s=0) if left > 0 else []


class Readers:
    """A merged source over a log whose records arrive one by one."""

    def __init__(self, log: MemoryLog, n_partitions: int, **settings: int) -> None:
        self.now_ms = 0
        self.parts = {(TOPIC, n): Arriving(log, (TOPIC, n)) for n in range(n_partitions)}
        self.merged = MergedSource(self.parts, clock_ms=lambda: self.now_ms, time_of=time_of, **settings)

    def arrive(self, at: Partition) -> None:
        self.parts[at].arrived += 1

    def take(self, max_records: int = 100) -> list[tuple[int, int, int]]:
        """(time, partition, offset) of all that can be given out now."""
        found = []
        while records := self.merged.poll(max_records=max_records, timeout_s=0):
            found += [(time_of(record), record.partition, record.offset) for record in records]
        return found


def by_heads(times: list[list[int]]) -> list[tuple[int, int, int]]:
    """The order by definition: of the records that are next, always the smallest, while all have one."""
    queues = [[(t, n, i) for i, t in enumerate([*column, END])] for n, column in enumerate(times)]
    order = []
    while all(queues):
        queue = min(queues, key=lambda waiting: waiting[0][:2])
        order.append(queue.pop(0))
    return order


@given(TIMES, st.integers(1, 5), st.integers(1, 9), st.data())
def test_any_arrival_gives_the_same_order(
    times: list[list[int]], max_records: int, max_waiting: int, data: st.DataObject
) -> None:
    log = log_of(times)
    readers = Readers(log, len(times), max_waiting=max_waiting)
    arrivals = [(TOPIC, n) for n, column in enumerate(times) for _ in range(len(column) + 1)]
    found: list[tuple[int, int, int]] = []
    for at in data.draw(st.permutations(arrivals)):
        readers.arrive(at)
        if data.draw(st.booleans()):
            found += readers.take(max_records)
    found += readers.take(max_records)
    assert found == by_heads(times)


@given(TIMES, st.data())
def test_whoever_goes_on_from_the_same_offsets_goes_on_in_the_same_order(
    times: list[list[int]], data: st.DataObject
) -> None:
    log, wanted = log_of(times), by_heads(times)
    n_before = data.draw(st.integers(0, len(wanted)))
    first, second = Readers(log, len(times)), Readers(log, len(times))
    for readers in (first, second):
        for at, part in readers.parts.items():
            part.arrived = log.end(at)
    taken = 0
    while taken < n_before:
        taken += len(first.merged.poll(max_records=1, timeout_s=0))
    second.merged.seek(first.merged.positions())
    assert second.take() == first.take() == wanted[n_before:]


def test_a_silent_partition_is_gone_on_without_and_that_is_counted() -> None:
    readers = Readers(log_of([[1, 2], [5]]), 2, max_hold_ms=100)
    readers.parts[TOPIC, 0].arrived = 2
    assert readers.take() == []
    readers.now_ms = 99
    assert readers.take() == []
    readers.now_ms = 100
    assert readers.take() == [(1, 0, 0), (2, 0, 1)]
    assert readers.merged.skips == 1


def test_a_partition_that_speaks_again_is_waited_for_again() -> None:
    readers = Readers(log_of([[1, 2, 9], [5]]), 2, max_hold_ms=100)
    readers.parts[TOPIC, 0].arrived = 2
    readers.take()
    readers.now_ms = 100
    readers.take()
    readers.parts[TOPIC, 0].arrived = 3
    readers.parts[TOPIC, 1].arrived = 1
    assert readers.take() == [(5, 1, 0)], "9 waits for what comes after 5"


def test_one_that_holds_nobody_back_is_not_counted_as_silent() -> None:
    readers = Readers(log_of([[1], [5]]), 2, max_hold_ms=100)
    for now_ms in (0, 100, 1000):
        readers.now_ms = now_ms
        assert readers.take() == []
    assert readers.merged.skips == 0


def test_one_partition_passes_through() -> None:
    log = log_of([[7, 3, 5]])
    merged = MergedSource({(TOPIC, 0): log.source([(TOPIC, 0)])}, clock_ms=lambda: 0, time_of=time_of)
    assert [time_of(r) for r in merged.poll(max_records=9, timeout_s=0)] == [7, 3, 5, END]
    assert merged.positions() == merged.end_offsets() == {(TOPIC, 0): 4}


def test_the_time_of_a_message_is_its_watermark() -> None:
    value = encode_examples(ExampleMessage(batch=no_examples(), sequence=3, watermark_ms=77))
    assert message_time_ms(Record(TOPIC, 0, 0, b"", value)) == 77
    assert message_time_ms(Record(TOPIC, 0, 0, b"", b"noise")) == UNREADABLE


@pytest.mark.parametrize("settings", [{"max_hold_ms": 0}, {"max_waiting": 0}])
def test_holding_for_no_time_or_nothing_is_refused(settings: Mapping[str, int]) -> None:
    make: Callable[..., MergedSource] = MergedSource
    with pytest.raises(ConfigError, match="max_hold_ms > 0 and max_waiting > 0"):
        make({(TOPIC, 0): log_of([[1]]).source([(TOPIC, 0)])}, clock_ms=lambda: 0, **settings)
