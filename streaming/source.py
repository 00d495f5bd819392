"""Where records are read from: a partitioned log that keeps its order within a partition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

Partition = tuple[str, int]
"""(topic, partition number)."""


class Record(NamedTuple):
    """One message of a log, where it stands and what it holds."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes


class EventSource(Protocol):
    """A cursor over some partitions of a log. One caller at a time."""

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """The next records, in order within each partition; waits up to ``timeout_s`` for the first.

        Empty means that every partition is read to its end. Raises SourceUnavailable.
        """

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Read on from these offsets; other partitions stay where they are.

        Raises OffsetLost where the log does not reach that far.
        """

    def positions(self) -> dict[Partition, int]:
        """Offset of the next record, by partition."""

    def end_offsets(self) -> dict[Partition, int]:
        """Offset after the newest record, by partition. Raises SourceUnavailable."""
