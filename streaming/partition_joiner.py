"""One partition's joiner: a pair of inputs, the state between them, and the output that it alone writes.

Every statement leaves exactly once, without transactions. The state is committed together with the
input positions that it has seen, after everything stated so far has arrived in the output. A restart
takes the last commit, writes a fence (streaming/example_log.py), reads what was stated between that
commit and the fence, holds just that back, and reads the inputs on from the commit. What is still held
back then is part of the next commit.

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
from recsys.interactions import ExampleBatch
from streaming.errors import StateUnavailable, WireError
from streaming.events import decode_feedback, decode_shown, encode_dead_letter
from streaming.example_log import NO_MARK, Output, read_to_fence
from streaming.example_wire import ExampleMessage, encode_examples, no_examples
from streaming.join_marks import JoinMarks, decode_marks, encode_marks
from streaming.label_join import LabelJoin
from streaming.shown import Joined, assemble, halves
from streaming.sink import EventSink
from streaming.source import EventSource, Partition, Record
from streaming.topics import DEAD_LETTER, EXAMPLES, FEEDBACK, IMPRESSIONS

log = logging.getLogger(__name__)

_MOST_HELD = 200_000

OpenOutput = Callable[[Partition], AbstractContextManager[EventSource]]
"""A cursor at the oldest record of an output partition, for as long as the context lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """How examples travel."""

    batch_rows: int = 512
    """Most examples of one message; > 0."""
    batch_bytes: int = 8 << 20
    """Longest message of more than one example; below what the broker takes; > 0."""
    linger_ms: int = 20
    """How long an example waits for others to travel with."""
    heartbeat_ms: int = 500
    """While nothing is stated, a message of no rows says this often how far event time has come; > 0."""

    def __post_init__(self) -> None:
        for name in ("batch_rows", "batch_bytes", "heartbeat_ms"):
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
        self._start, self._start_mark, self._recovered = 0, NO_MARK, Output()
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
            oldest = output.positions()[self._output_at]
            self._start = oldest if marks is None else marks.output_offset
            self._recovered = stated = self._fence(output, marks)
        self.join.hold_back(stated.example_ids, stated.item_keys)
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
            self._send(no_examples())

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
        if self.join.watermark_ms > self._recovered.newest_ms + self.join.longest_window_ms:
            # Nothing that an earlier life stated can come up again: its windows are forgotten.
            self.join.hold_back(set())
        confirm(self._positions)
        self.join.commit(encode_marks(self._marks()))

    def close(self) -> None:
        """Give the state up as it was last committed; another joiner may open it."""
        try:
            self.join.close()
        except StateUnavailable as error:
            # Its disk is full, or gone: what was committed is all that counts.
            log.warning("joiner_state_not_closed", extra={"partition": self.number, "reason": str(error)})

    def _marks(self) -> JoinMarks:
        """Where a restart would go on, all that was stated so far having arrived."""
        held, recovered = self.join.held_back, self._recovered
        if len(held) > _MOST_HELD:
            # Too much to be committed each time: a restart finds it in the output again.
            return JoinMarks(positions=self._positions, output_offset=self._start, mark=self._start_mark)
        return JoinMarks(
            positions=self._positions,
            output_offset=max(self._fence_offset + 1, self._sink.position(*self._output_at)),
            mark=(self._epoch, self._sequence - 1),
            held_until_ms=recovered.newest_ms,
            held_ids=held,
            held_keys=recovered.item_keys if held else set(),
        )

    def _fence(self, output: EventSource, marks: JoinMarks | None) -> Output:
        """Begin an epoch above all others; what earlier ones stated that the state does not know."""
        self._start_mark = NO_MARK if marks is None else marks.mark
        epoch = self._start_mark[0]
        while True:
            # Lives that left no trace after the start are known by the clock alone to be earlier ones.
            epoch = max(epoch + 1, self._clock_ms())
            self._epoch, self._sequence = epoch, 0
            self._send(no_examples())
            self._sink.flush()
            stated = Output(mark=self._start_mark)
            if marks is not None:
                stated.example_ids |= marks.held_ids
                stated.item_keys |= marks.held_keys
                stated.newest_ms = marks.held_until_ms
            self._fence_offset = read_to_fence(output, self._output_at, self._start, epoch, stated)
            if stated.mark[0] < epoch:
                return stated
            epoch = stated.mark[0]

    def _publish(self, rows: Sequence[Joined]) -> None:
        """One message per run of rows with the same feature schema."""
        for _, run in groupby(rows, key=lambda row: (row.shown.schema_fingerprint, row.shown.n_features)):
            self._send(assemble(list(run), self.join.label_names))

    def _send(self, batch: ExampleBatch) -> None:
        """Publish one message; rows that are too large for one go as several."""
        now_ms, (topic, number) = self._clock_ms(), self._output_at
        value = encode_examples(
            ExampleMessage(
                batch=batch,
                epoch=self._epoch,
                sequence=self._sequence,
                watermark_ms=max(0, self.join.watermark_ms),
                sent_at_ms=now_ms,
            )
        )
        if len(value) > self._config.batch_bytes and len(batch) > 1:
            for half in halves(batch):
                self._send(half)
            return
        self._sink.publish(topic, str(number).encode(), value, partition=number)
        self._sequence += 1
        self._spoke_ms = now_ms
