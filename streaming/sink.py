"""Where records are written to."""

from __future__ import annotations

from typing import Protocol


class EventSink(Protocol):
    """The writing end of a partitioned log."""

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        """Hand over one record without waiting; without ``partition``, equal keys share one.

        Raises SinkUnavailable where this or an earlier record may not arrive.
        """

    def flush(self) -> None:
        """Return when everything published has arrived; raise SinkUnavailable if it may not have."""

    def position(self, topic: str, partition: int) -> int:
        """Offset after the newest record that this sink surely wrote there; 0 before the first."""
