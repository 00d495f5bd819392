"""A source whose log need not be in reach when its reader starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from streaming.source import EventSource, Partition, Record


class OpenSource(EventSource, Protocol):
    """An EventSource that holds connections."""

    def close(self) -> None:
        """Give them back."""


class LateSource:
    """An EventSource that is opened when it is first read. One caller at a time.

    Whatever ``make`` raises, SourceUnavailable as a rule, comes out of the call that wanted it open; the
    next call tries again.
    """

    def __init__(self, make: Callable[[], OpenSource]) -> None:
        self._make = make
        self._opened: OpenSource | None = None

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says."""
        return self._source().poll(max_records=max_records, timeout_s=timeout_s)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says; raises SourceUnavailable while it cannot be opened."""
        self._source().seek(offsets)

    def positions(self) -> dict[Partition, int]:
        """As EventSource says; raises SourceUnavailable while it cannot be opened."""
        return self._source().positions()

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says."""
        return self._source().end_offsets()

    def close(self) -> None:
        """Close what was opened; it is opened anew when it is read again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _source(self) -> EventSource:
        if self._opened is None:
            self._opened = self._make()
        return self._opened
