"""A partitioned log in memory: the loop without a broker, for replays and tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from streaming.errors import OffsetLost
from streaming.source import Partition, Record


class Entry(NamedTuple):
    """One message as it was published."""

    topic: str
    partition: int
    key: bytes
    value: bytes


class MemoryLog:
    """A partitioned log in memory: an EventSink, and sources over it. Any number of threads."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._changed = threading.Condition()
        self._records: dict[Partition, list[Record]] = {}
        for topic, partition, key, value in entries:
            self.publish(topic, key, value, partition=partition)

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        """As EventSink says; there is one partition unless the caller names others."""
        at = (topic, partition or 0)
        with self._changed:
            records = self._records.setdefault(at, [])
            records.append(Record(topic, at[1], len(records), key, value))
            self._changed.notify_all()

    def flush(self) -> None:
        """As EventSink says: all has arrived."""

    def position(self, topic: str, partition: int) -> int:
        """As EventSink says."""
        return self.end((topic, partition))

    def end(self, partition: Partition) -> int:
        """Offset after the newest record."""
        return len(self._records.get(partition, ()))

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        """Records of an offset range, cut at the end."""
        return self._records.get(partition, [])[start:stop]

    def source(self, partitions: Sequence[Partition]) -> LogSource:
        """A cursor of its own over these partitions, at their beginning."""
        return LogSource(self, partitions)

    def wait(self, positions: Mapping[Partition, int], timeout_s: float) -> None:
        """Return once there is more than ``positions``, or in time."""
        with self._changed:
            self._changed.wait_for(lambda: any(self.end(at) > p for at, p in positions.items()), timeout_s)


class LogSource:
    """An EventSource over a MemoryLog. One caller at a time."""

    def __init__(self, log: MemoryLog, partitions: Sequence[Partition]) -> None:
        self._log = log
        self._positions = dict.fromkeys(partitions, 0)

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says; each partition gives an equal share."""
        self._log.wait(self._positions, timeout_s)
        share = max(1, max_records // len(self._positions))
        records: list[Record] = []
        for partition, position in self._positions.items():
            taken = self._log.read(partition, position, position + min(share, max_records - len(records)))
            self._positions[partition] = position + len(taken)
            records.extend(taken)
        return records

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says."""
        for partition, offset in offsets.items():
            if offset > self._log.end(partition):
                raise OffsetLost(f"{partition}: offset {offset} is beyond the end {self._log.end(partition)}")
            self._positions[partition] = offset

    def positions(self) -> dict[Partition, int]:
        """As EventSource says."""
        return dict(self._positions)

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says."""
        return {partition: self._log.end(partition) for partition in self._positions}

    def close(self) -> None:
        """A log in memory holds no connections."""
