"""Several partitions of examples as one stream whose order follows from the log alone.

What is learned depends on the order of learning, and which partition answers first is chance. So records
are given out by (time of their message, partition), which needs the next record of every partition: one
that has none holds the others back. Joiners send their watermark even when they have nothing else to
say, so this costs no more than their heartbeat. A partition that stays silent for longer than
``max_hold_ms`` is gone on without until it speaks again; that is counted, because the order then
follows from the clock too.

Only the head of each partition is compared, never what was given out before: whoever goes on from the
same offsets goes on in the same order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa

from recsys.errors import ConfigError
from streaming.source import EventSource, Partition, Record

log = logging.getLogger(__name__)

UNREADABLE = -(1 << 62)
"""Time of a message that nobody can read: it is given out, and refused, as soon as it is next."""

_BRIEFLY_S = 0.005


def message_time_ms(record: Record) -> int:
    """The watermark of an example message, read without its rows."""
    try:
        with pa.ipc.open_stream(record.value) as stream:
            return int((stream.schema.metadata or {}).get(b"watermark_ms", 0))
    except (pa.ArrowException, ValueError, OSError):
        return UNREADABLE


class Merge:
    """Records that wait for their turn. One caller at a time."""

    def __init__(self, partitions: Collection[Partition], time_of: Callable[[Record], int]) -> None:
        self._time_of = time_of
        self._waiting: dict[Partition, deque[tuple[int, Record]]] = {at: deque() for at in partitions}

    def add(self, at: Partition, records: Sequence[Record]) -> None:
        """The next records of a partition."""
        self._waiting[at].extend((self._time_of(record), record) for record in records)

    def waiting(self, at: Partition) -> int:
        """How many records of a partition wait."""
        return len(self._waiting[at])

    @property
    def missing(self) -> list[Partition]:
        """Partitions whose next record is not known."""
        return [at for at, records in self._waiting.items() if not records]

    def take(self, max_records: int, without: Collection[Partition] = ()) -> list[Record]:
        """Records whose turn it is, as far as that is sure, or would be without some partitions."""
        taken: list[Record] = []
        while len(taken) < max_records and not set(self.missing) - set(without):
            heads = [(records[0][0], at) for at, records in self._waiting.items() if records]
            if not heads:
                break
            taken.append(self._waiting[min(heads)[1]].popleft()[1])
        return taken

    def clear(self) -> None:
        """Forget what waits."""
        for records in self._waiting.values():
            records.clear()


class MergedSource:
    """An EventSource over sources of one partition each. One caller at a time."""

    def __init__(
        self,
        sources: Mapping[Partition, EventSource],
        *,
        clock_ms: Callable[[], int],
        max_hold_ms: int = 10_000,
        max_waiting: int = 64,
        time_of: Callable[[Record], int] = message_time_ms,
    ) -> None:
        """``max_waiting`` records of a partition are held at most while another one is waited for."""
        if not sources or max_hold_ms < 1 or max_waiting < 1:
            raise ConfigError(
                f"want sources, max_hold_ms > 0 and max_waiting > 0; got {list(sources)}, {max_hold_ms}, "
                f"{max_waiting}"
            )
        self._sources, self._clock_ms = dict(sources), clock_ms
        self._max_hold_ms, self._max_waiting = max_hold_ms, max_waiting
        self._merge = Merge(self._sources, time_of)
        self._positions = {at: source.positions()[at] for at, source in self._sources.items()}
        # Since when each partition has been holding the others back.
        self._held_since_ms: dict[Partition, int] = {}
        self._left_out: set[Partition] = set()
        self.skips = 0
        """How often a silent partition was gone on without."""

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says; empty too while a partition is waited for."""
        taken = self._take(max_records)
        if not taken:
            self._fill(max_records, timeout_s)
            taken = self._take(max_records)
        for record in taken:
            self._positions[record.topic, record.partition] = record.offset + 1
        return taken

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says."""
        for at, source in self._sources.items():
            # What waits was read from here; a partition that is not named goes on after what was given out.
            source.seek({at: offsets.get(at, self._positions[at])})
            self._positions[at] = source.positions()[at]
        self._merge.clear()
        self._held_since_ms.clear()
        self._left_out.clear()

    def positions(self) -> dict[Partition, int]:
        """As EventSource says: of what was given out."""
        return dict(self._positions)

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says."""
        return {at: end for source in self._sources.values() for at, end in source.end_offsets().items()}

    def _take(self, max_records: int) -> list[Record]:
        return self._merge.take(max_records, without=self._left_out)

    def _fill(self, max_records: int, timeout_s: float) -> None:
        missing = self._merge.missing
        wait_s = timeout_s / max(1, len(missing))
        for at, source in self._sources.items():
            room = self._max_waiting - self._merge.waiting(at)
            if room > 0:
                # Only a partition that holds the others back is worth waiting for.
                patience_s = wait_s if at in missing else min(_BRIEFLY_S, timeout_s)
                self._merge.add(at, source.poll(max_records=min(room, max_records), timeout_s=patience_s))
        self._note_silence(self._clock_ms())

    def _note_silence(self, now_ms: int) -> None:
        missing = set(self._merge.missing)
        self._left_out &= missing
        # Where nothing waits nothing is held back.
        holding = missing if len(missing) < len(self._sources) else set()
        self._held_since_ms = {at: self._held_since_ms.get(at, now_ms) for at in holding}
        for at in sorted(holding - self._left_out):
            if now_ms - self._held_since_ms[at] >= self._max_hold_ms:
                self._left_out.add(at)
                self.skips += 1
                log.warning("partition_left_out", extra={"partition": at, "held_ms": self._max_hold_ms})
