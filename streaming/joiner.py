"""The joiner's process: log in, label_join, example batches out.

Every example leaves exactly once without transactions and without saved windows. The progress file
names input positions before which nothing is needed any more, and where the output stood when they
were read. A restart reads on from there with the watermark as of the file, so windows that had
closed stay closed; it reads the ids of the examples that are already in the output and holds just
those back. Two exceptions, both by design: dead letters may repeat, and an event later than the
allowed disorder may be judged late in one life and in time in the next.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from recsys.errors import ConfigError
from streaming.errors import SourceUnavailable, WireError
from streaming.events import (
    decode_feedback,
    decode_shown,
    encode_dead_letter,
)
from streaming.example_wire import ExampleMessage, decode_examples, encode_examples
from streaming.label_join import JoinConfig, JoinCounters, LabelJoin
from streaming.progress import Progress, read_progress, write_progress
from streaming.shown import Joined, assemble
from streaming.sink import EventSink
from streaming.source import EventSource, Partition, Record
from streaming.topics import DEAD_LETTER, EXAMPLES, FEEDBACK, IMPRESSIONS

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinerConfig:
    """One joiner's process around its join."""

    join: JoinConfig
    progress_path: Path
    """Kept across restarts, one per output partition."""
    output_partition: int = 0
    """Of the example topic; one joiner writes to it."""
    batch_rows: int = 512
    """Most examples of one message; > 0."""
    linger_ms: int = 20
    """How long an example waits for others to travel with."""
    poll_records: int = 2000
    """Most records of one poll; > 0."""
    tick_period_ms: int = 250
    """How often silence is turned into event time, and the lag read."""
    progress_period_ms: int = 1000
    """How often the progress file is written; a restart repeats that much more."""

    def __post_init__(self) -> None:
        for name in ("batch_rows", "poll_records", "tick_period_ms", "progress_period_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class _Mark:
    """A cut through the inputs: so many events had been read, from here, with the output there."""

    arrivals: int
    positions: dict[Partition, int]
    output_offset: int
    is_news: bool
    """Nothing that comes after it can have been in the output before this process began."""


class JoinWorker:
    """One joiner. Runs in one thread; ``stop`` may be called from any, or from a signal."""

    def __init__(
        self,
        source: EventSource,
        sink: EventSink,
        output: EventSource,
        config: JoinerConfig,
        *,
        clock_ms: Callable[[], int],
        on_progress: Callable[[JoinCounters, int], None] = lambda counters, lag: None,
    ) -> None:
        """``output`` reads the example partition that ``sink`` writes. ``on_progress`` is told the
        counters and the lag in records, each tick, from the worker's own thread."""
        self._source, self._sink, self._output = source, sink, output
        self._config, self._clock_ms, self._on_progress = config, clock_ms, on_progress
        self._join = LabelJoin(config.join, list(source.positions()))
        self._pending: list[Joined] = []
        self._heard: set[Partition] = set()
        self._emitted: set[int] = set()
        self._horizon: dict[Partition, int] = {}
        self._marks: deque[_Mark] = deque()
        self._recovered_offset = self._output_end = self._sequence = 0
        self._stopping = False
        self._pending_since_ms = self._ticked_ms = self._saved_ms = clock_ms()

    @property
    def counters(self) -> JoinCounters:
        """What became of everything that was read."""
        return self._join.counters

    def stop(self) -> None:
        """End after the round in hand; open windows are joined again after a restart."""
        self._stopping = True

    def run(self) -> None:
        """Recover, then join until ``stop``. Raises SinkUnavailable: start again, nothing is lost."""
        self.recover()
        while not self._stopping:
            self.run_round()
        self._save()

    def recover(self) -> None:
        """Go on where the progress file says, with what is in the output already held back."""
        progress = read_progress(self._config.progress_path)
        # What was in the inputs by now may have been joined by an earlier process.
        self._horizon = self._source.end_offsets()
        if progress is not None:
            self._source.seek(progress.positions)
            self._join.restore(progress.watermark)
            self._output.seek({self._output_at: progress.output_offset})
            self._sequence = progress.next_sequence
        self._recovered_offset = self._output.positions()[self._output_at]
        self._read_output()
        self._output_end = self._output.positions()[self._output_at]
        start = _Mark(0, self._source.positions(), self._recovered_offset, is_news=False)
        self._marks = deque([start])
        log.info("joiner_recovered", extra={"held_back": len(self._emitted), "sequence": self._sequence})

    def run_round(self) -> None:
        """One poll and all that follows from it."""
        records = self._source.poll(
            max_records=self._config.poll_records, timeout_s=self._config.linger_ms / 1000
        )
        for record in records:
            self._feed(record)
        self._heard.update({(record.topic, record.partition) for record in records})
        now_ms = self._clock_ms()
        if now_ms - self._ticked_ms >= self._config.tick_period_ms:
            self._tick(now_ms)
        self._collect(now_ms)
        if now_ms - self._saved_ms >= self._config.progress_period_ms:
            self._saved_ms = now_ms
            self._save()

    @property
    def _output_at(self) -> Partition:
        return (EXAMPLES, self._config.output_partition)

    def _feed(self, record: Record) -> None:
        at = (record.topic, record.partition)
        try:
            if record.topic == IMPRESSIONS:
                self._join.add_shown(at, decode_shown(record.value))
            elif record.topic == FEEDBACK:
                self._join.add_feedback(at, decode_feedback(record.value))
            else:
                raise WireError(f"topic {record.topic!r} is neither impressions nor feedback")
        except WireError as error:
            self.counters.rejected += 1
            letter = encode_dead_letter(record, str(error), rejected_at_ms=self._clock_ms())
            self._sink.publish(DEAD_LETTER, record.topic.encode(), letter)

    def _tick(self, now_ms: int) -> None:
        """Let silent partitions' time pass. A log out of reach is not silent."""
        elapsed_ms, self._ticked_ms = max(0, now_ms - self._ticked_ms), now_ms
        heard, self._heard = self._heard, set()
        try:
            ends = self._source.end_offsets()
        except SourceUnavailable as error:
            log.warning("source_unavailable", extra={"reason": str(error)})
            return
        lags = {at: ends[at] - position for at, position in self._source.positions().items()}
        silent = [at for at, lag in lags.items() if lag <= 0 and at not in heard]
        self._join.pass_time(elapsed_ms, silent)
        self._on_progress(self.counters, sum(max(0, lag) for lag in lags.values()))

    def _collect(self, now_ms: int) -> None:
        """Send full batches, and a partial one whose first example has waited long enough."""
        if not self._pending:
            self._pending_since_ms = now_ms
        self._pending.extend(self._join.take())
        size = self._config.batch_rows
        while len(self._pending) >= size:
            self._publish(self._pending[:size])
            del self._pending[:size]
            self._pending_since_ms = now_ms
        if now_ms - self._pending_since_ms >= self._config.linger_ms:
            self._publish(self._pending)
            self._pending.clear()

    def _publish(self, rows: Sequence[Joined]) -> None:
        """One message per run of rows with the same feature schema."""
        for _, run in groupby(rows, key=lambda row: (row.shown.schema_fingerprint, row.shown.n_features)):
            same = list(run)
            batch = assemble(same)
            if self._emitted:
                ids = batch.example_id_B.tolist()
                same = [
                    row for row, example_id in zip(same, ids, strict=True) if example_id not in self._emitted
                ]
                self._emitted.difference_update(ids)
                if not same:
                    continue
                batch = assemble(same)
            value = encode_examples(ExampleMessage(batch=batch, sequence=self._sequence))
            partition = self._config.output_partition
            self._sink.publish(EXAMPLES, str(partition).encode(), value, partition=partition)
            self._sequence += 1

    def _save(self) -> None:
        """Write progress. Everything made so far is in the output before the file says so."""
        self._pending.extend(self._join.take())
        self._publish(self._pending)
        self._pending.clear()
        self._sink.flush()
        self._output_end = max(self._output_end, self._sink.position(*self._output_at))
        positions = self._source.positions()
        is_news = all(positions[at] >= end for at, end in self._horizon.items())
        offset = self._output_end if is_news else self._recovered_offset
        self._marks.append(_Mark(self._join.arrivals, positions, offset, is_news))
        oldest_needed = self._join.oldest_needed()
        while len(self._marks) > 1 and self._marks[1].arrivals <= oldest_needed:
            self._marks.popleft()
        safe = self._marks[0]
        if safe.is_news:
            self._emitted.clear()
        write_progress(
            self._config.progress_path,
            Progress(
                positions=safe.positions,
                output_offset=safe.output_offset,
                next_sequence=self._sequence,
                watermark=self._join.watermark_state(),
            ),
        )

    def _read_output(self) -> None:
        """Learn which examples are there, and the last batch's number."""
        while self._output.positions()[self._output_at] < self._output.end_offsets()[self._output_at]:
            for record in self._output.poll(max_records=64, timeout_s=1.0):
                try:
                    message = decode_examples(record.value)
                except WireError as error:
                    # Somebody else's bytes; the trainer puts them into dead-letter.
                    log.warning("output_skipped", extra={"offset": record.offset, "reason": str(error)})
                    continue
                self._emitted.update(message.batch.example_id_B.tolist())
                self._sequence = max(self._sequence, message.sequence + 1)
