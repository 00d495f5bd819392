"""One partition's joiner: a pair of inputs, the state between them, and the output that it alone writes.

Every statement leaves exactly once, without transactions. The state is committed together with the
input positions that it has seen, after everything stated so far has arrived in the output. A restart
takes the last commit, writes a fence (streaming/example_log.py), reads what was stated between that
commit and the fence, holds just that back, and reads the inputs on from the commit.

One exception, by design: an event that comes later than the allowed disorder may be judged late in one
life and in time in the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

from recsys.errors import ConfigError
from streaming.errors import WireError
from streaming.events import decode_feedback, decode_shown, encode_dead_letter
from streaming.example_log import Output, read_output
from streaming.example_wire import ExampleMessage, encode_examples, no_examples
from streaming.join_marks import JoinMarks, decode_marks, encode_marks
from streaming.label_join import LabelJoin
from streaming.shown import Joined, assemble
from streaming.sink import EventSink
from streaming.source import EventSource, Partition, Record
from streaming.topics import DEAD_LETTER, EXAMPLES, FEEDBACK, IMPRESSIONS

log = logging.getLogger(__name__)

OpenOutput = Callable[[Partition], AbstractContextManager[EventSource]]
"""A cursor at the oldest record of an output partition, for as long as the context lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """How examples travel."""

    batch_rows: int = 512
    """Most examples of one message; > 0."""
    linger_ms: int = 20
    """How long an example waits for others to travel with."""
    heartbeat_ms: int = 500
    """While nothing is stated, a message of no rows says this often how far event time has come; > 0."""

    def __post_init__(self) -> None:
        for name in ("batch_rows", "heartbeat_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


class PartitionJoiner:
    """Joins input partition ``number`` of impressions and feedback. One caller at a time."""

    def __init__(
        self,
        number: int,
        join: LabelJoin,
        sink: EventSink,
        config: BatchConfig,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self.number = number
        self.join = join
        self.inputs: list[Partition] = [(IMPRESSIONS, number), (FEEDBACK, number)]
        self._output_at: Partition = (EXAMPLES, number)
        self._sink, self._config, self._clock_ms = sink, config, clock_ms
        self._epoch = self._sequence = self._fence_offset = 0
        self._recovered_offset = 0
        self._held_until_ms = 0
        self._positions: dict[Partition, int] = {}
        self._pending: list[Joined] = []
        self._pending_since_ms = self._spoke_ms = clock_ms()

    def open(self, open_output: OpenOutput) -> Mapping[Partition, int]:
        """Begin a life: positions to read the inputs on from; inputs that are left out, from the oldest.

        Raises SourceUnavailable, SinkUnavailable or StreamingError; the state is then as committed, and
        ``open`` on a new object begins again.
        """
        committed = self.join.restore()
        marks = decode_marks(committed) if committed is not None else None
        with open_output(self._output_at) as output:
            start = output.positions()[self._output_at] if marks is None else marks.output_offset
            stated = self._fence(output, start, 0 if marks is None else marks.epoch)
        self._recovered_offset = start
        self._held_until_ms = stated.newest_ms
        self.join.hold_back(stated.example_ids)
        log.info(
            "joiner_recovered",
            extra={"partition": self.number, "epoch": self._epoch, "held_back": len(stated.example_ids)},
        )
        self._positions = {} if marks is None else dict(marks.positions)
        return dict(self._positions)

    def feed(self, record: Record, now_ms: int) -> None:
        """Take one record of an input; what cannot be read goes to dead-letter."""
        at = (record.topic, record.partition)
        self._positions[at] = record.offset + 1
        try:
            if record.topic == IMPRESSIONS:
                self.join.add_shown(at, decode_shown(record.value), received_at_ms=now_ms)
            elif record.topic == FEEDBACK:
                self.join.add_feedback(at, decode_feedback(record.value), received_at_ms=now_ms)
            else:
                raise WireError(f"topic {record.topic!r} is neither impressions nor feedback")
        except WireError as error:
            self.join.counters.rejected += 1
            letter = encode_dead_letter(record, str(error), rejected_at_ms=now_ms)
            self._sink.publish(DEAD_LETTER, record.topic.encode(), letter)

    def collect(self, now_ms: int) -> None:
        """Send full batches, a partial one whose first example has waited long enough, or a heartbeat."""
        if not self._pending:
            self._pending_since_ms = now_ms
        self._pending.extend(self.join.take())
        size = self._config.batch_rows
        while len(self._pending) >= size:
            self._publish(self._pending[:size])
            del self._pending[:size]
            self._pending_since_ms = now_ms
        if self._pending and now_ms - self._pending_since_ms >= self._config.linger_ms:
            self._publish(self._pending)
            self._pending.clear()
        if now_ms - self._spoke_ms >= self._config.heartbeat_ms and not self._pending:
            self._send(ExampleMessage(batch=no_examples(), **self._standing()))

    def save(self, confirm: Callable[[Mapping[Partition, int]], None]) -> None:
        """Commit the state. Raises SinkUnavailable, StateUnavailable, or what ``confirm`` raises.

        ``confirm`` is told the inputs' positions when all that was stated has arrived, and raises unless
        this joiner owns the partition still: what it states behind a successor's fence is void, so a state
        that counts it as stated must not be committed.
        """
        self._pending.extend(self.join.take())
        self._publish(self._pending)
        self._pending.clear()
        self._sink.flush()
        # From here on nothing that an earlier life stated can come up again: its windows are forgotten.
        if (
            self._recovered_offset >= 0
            and self.join.watermark_ms > self._held_until_ms + self.join.longest_window_ms
        ):
            self.join.hold_back(set())
            self._recovered_offset = -1
        # While something is held back, a restart must find it in the output again.
        offset = self._recovered_offset
        if offset < 0:
            offset = max(self._fence_offset + 1, self._sink.position(*self._output_at))
        confirm(self._positions)
        marks = JoinMarks(positions=self._positions, output_offset=offset, epoch=self._epoch)
        self.join.commit(encode_marks(marks))

    def close(self) -> None:
        """Give the state up as it was last committed; another joiner may open it."""
        self.join.close()

    def _fence(self, output: EventSource, start: int, epoch: int) -> Output:
        """Begin an epoch above all others; what valid messages between ``start`` and it state."""
        while True:
            # Lives that left no trace after ``start`` are known by the clock alone to be earlier ones.
            epoch = max(epoch + 1, self._clock_ms())
            self._epoch, self._sequence = epoch, 0
            self._send(ExampleMessage(batch=no_examples(), **self._standing()))
            self._sink.flush()
            self._fence_offset = self._sink.position(*self._output_at) - 1
            stated = read_output(output, self._output_at, start, self._fence_offset)
            if stated.mark[0] < epoch:
                return stated
            epoch = stated.mark[0]

    def _publish(self, rows: Sequence[Joined]) -> None:
        """One message per run of rows with the same feature schema."""
        for _, run in groupby(rows, key=lambda row: (row.shown.schema_fingerprint, row.shown.n_features)):
            self._send(ExampleMessage(batch=assemble(list(run), self.join.label_names), **self._standing()))

    def _send(self, message: ExampleMessage) -> None:
        topic, number = self._output_at
        self._sink.publish(topic, str(number).encode(), encode_examples(message), partition=number)
        self._sequence += 1
        self._spoke_ms = message.sent_at_ms

    def _standing(self) -> dict[str, int]:
        """Where the next message stands."""
        return {
            "epoch": self._epoch,
            "sequence": self._sequence,
            "watermark_ms": max(0, self.join.watermark_ms),
            "sent_at_ms": self._clock_ms(),
        }
