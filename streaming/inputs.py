"""Which input partitions a joiner reads: all of a list, or those that its consumer group gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streaming.source import EventSource, Partition, Record


class Assignment(Protocol):
    """Who is told, from within a poll and in its caller's thread, what is read from now on."""

    def gained(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        """Offsets to start from; what is left out starts at its oldest record."""

    def lost(self, partitions: list[Partition]) -> None:
        """Another member may start once this returns: state must be given up now."""


class InputSource(EventSource, Protocol):
    """An EventSource whose partitions may change from one poll to the next."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group how far these partitions are done with.

        Raises SourceUnavailable unless they are this member's still.
        """


class FixedInputs:
    """An InputSource over the partitions of one EventSource, for good. One caller at a time."""

    def __init__(self, source: EventSource, assignment: Assignment) -> None:
        self._source, self._assignment = source, assignment
        self._is_started = False

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says; the first one starts them."""
        if not self._is_started:
            self._source.seek(self._assignment.gained(list(self._source.positions())))
            self._is_started = True
        return self._source.poll(max_records=max_records, timeout_s=timeout_s)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says."""
        self._source.seek(offsets)

    def positions(self) -> dict[Partition, int]:
        """As EventSource says."""
        return self._source.positions()

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says."""
        return self._source.end_offsets()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """As InputSource says: they cannot be taken away."""
