"""The examples topic as a folder of parquet parts: what batch training reads.

    <folder>/part-00000.parquet, part-00001.parquet, ...

A part has the columns of the wire's example batches (streaming/example_wire.py) and one more,
``message``, the number of the message that each row came in, counted over the folder: where one message
ends, the online loop ends a learning step, so batch training must too. A part's metadata also says how
much of the topic the folder covers up to its end, which is where the online loop can go on from a model
trained on it.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import ConfigError
from recsys.interactions import ExampleBatch
from streaming.errors import SourceUnavailable, WireError
from streaming.example_log import NO_MARK
from streaming.example_wire import Mark, decode_examples
from streaming.source import EventSource, Record
from training.errors import LayoutMismatch, TrainingError

log = logging.getLogger(__name__)

_MESSAGE, _COVERAGE = "message", b"coverage"


@dataclass(slots=True, kw_only=True)
class Coverage:
    """How much of the topic an archive holds."""

    rows: int = 0
    messages: int = 0
    """Messages that the rows came in."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """The highest mark, by "topic/partition"."""
    offsets: dict[str, int] = field(default_factory=dict)
    """Next offset to read, by "topic/partition"."""
    schema_fingerprint: int = 0
    """Of the features that the rows hold; 0 while there are none."""
    label_names: list[str] = field(default_factory=list)
    """Of the labels that the rows state; empty while there are none, and in archives of older releases."""


class ExampleArchive:
    """Appends example messages to a folder, which it alone writes. One caller at a time."""

    def __init__(self, folder: Path, *, rows_per_part: int = 1 << 16) -> None:
        if rows_per_part < 1:
            raise ConfigError(f"rows_per_part must be > 0, got {rows_per_part}")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._rows_per_part = folder, rows_per_part
        self._next_part = len(_parts(folder))
        self._pending: list[pa.Table] = []
        self.coverage = coverage_of(folder)

    def add(self, record: Record) -> None:
        """Append one message, unless its mark does not rise: it is void; a full part is written.

        Raises WireError for bytes that are no examples, LayoutMismatch for those of other features.
        """
        message, covered = decode_examples(record.value), self.coverage
        batch, at = message.batch, f"{record.topic}/{record.partition}"
        if message.mark > covered.marks.get(at, NO_MARK):
            if len(batch):
                self._append(record.value, batch)
            covered.marks[at] = message.mark
        covered.offsets[at] = record.offset + 1
        if sum(map(len, self._pending)) >= self._rows_per_part:
            self.flush()

    def _append(self, value: bytes, batch: ExampleBatch) -> None:
        covered = self.coverage
        if covered.schema_fingerprint not in (0, batch.schema_fingerprint):
            raise LayoutMismatch(
                f"examples have feature schema {batch.schema_fingerprint:016x}, {self._folder} holds "
                f"{covered.schema_fingerprint:016x}; archive them into another folder"
            )
        names = list(batch.label_names)
        if covered.label_names not in ([], names):
            raise LayoutMismatch(
                f"examples have labels {', '.join(names)}, {self._folder} holds "
                f"{', '.join(covered.label_names)}; archive them into another folder"
            )
        self._pending.append(_numbered(value, covered.messages))
        covered.rows += len(batch)
        covered.messages += 1
        covered.schema_fingerprint, covered.label_names = batch.schema_fingerprint, names

    def flush(self) -> None:
        """Write what is pending as a part; it then exists whole or, after a crash, not at all."""
        if not self._pending:
            return
        metadata = self._pending[0].schema.metadata
        coverage = json.dumps(
            {name: getattr(self.coverage, name) for name in Coverage.__dataclass_fields__}
        ).encode()
        part = pa.concat_tables([table.replace_schema_metadata(None) for table in self._pending])
        part = part.replace_schema_metadata({**metadata, _COVERAGE: coverage})
        path = self._folder / f"part-{self._next_part:05d}.parquet"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            pq.write_table(part, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        self._pending, self._next_part = [], self._next_part + 1


def archive_to_end(source: EventSource, archive: ExampleArchive, *, max_empty_polls: int = 15) -> int:
    """Append what the topic holds now beyond the archive; how many rows that was.

    Raises SourceUnavailable when so many polls, of a second each, bring nothing before the end.
    """
    before = archive.coverage.rows
    source.seek({_partition(name): offset for name, offset in archive.coverage.offsets.items()})
    ends, n_empty = source.end_offsets(), 0
    while any(source.positions()[partition] < end for partition, end in ends.items()):
        records = source.poll(max_records=64, timeout_s=1.0)
        for record in records:
            try:
                archive.add(record)
            except WireError as error:
                # Not ours, or damaged: the trainer passes over the same message.
                log.warning("message_skipped", extra={"offset": record.offset, "reason": str(error)})
        n_empty = 0 if records else n_empty + 1
        if n_empty == max_empty_polls:
            raise SourceUnavailable(
                f"examples end at {ends}, but reading stands at {source.positions()}; try again later"
            )
    archive.flush()
    return archive.coverage.rows - before


def coverage_of(folder: Path) -> Coverage:
    """What a folder of parts covers; of an empty folder, nothing."""
    parts = _parts(folder)
    if not parts:
        return Coverage()
    metadata = pq.read_schema(parts[-1]).metadata or {}
    if _COVERAGE not in metadata:
        raise TrainingError(f"{parts[-1]} was not written by an example archive; choose another folder")
    try:
        covered = Coverage(**json.loads(metadata[_COVERAGE]))
        covered.marks = {at: (int(epoch), int(number)) for at, (epoch, number) in covered.marks.items()}
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"{parts[-1]} was written by another release ({error}); archive the topic anew"
        ) from error
    return covered


def read_examples(folder: Path) -> Iterator[ExampleBatch]:
    """Archived messages in their order, one batch each. Raises TrainingError when there are none."""
    parts = _parts(folder)
    if not parts:
        raise TrainingError(f"no examples in {folder}; write some with `headrace job archive --out {folder}`")
    for path in parts:
        part = pq.read_table(path).combine_chunks()
        message_B = part.column(_MESSAGE).to_numpy()
        rows = part.drop_columns([_MESSAGE])
        first_rows = np.unique(message_B, return_index=True)[1].tolist()
        for start, stop in itertools.pairwise([*first_rows, len(rows)]):
            yield decode_examples(_message(rows.slice(start, stop - start), int(message_B[start]))).batch


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _partition(name: str) -> tuple[str, int]:
    topic, _, number = name.rpartition("/")
    return topic, int(number)


def _numbered(message: bytes, number: int) -> pa.Table:
    """The rows of one message with its number beside each."""
    with pa.ipc.open_stream(message) as reader:
        rows = reader.read_all()
    return rows.append_column(_MESSAGE, pa.array(np.full(len(rows), number, np.int64)))


def _message(rows: pa.Table, number: int) -> bytes:
    """The message that ``rows`` came in: only the wire's own decoder turns rows into examples."""
    metadata = {key: text for key, text in rows.schema.metadata.items() if key != _COVERAGE}
    schema = rows.schema.with_metadata({**metadata, b"sequence": str(number).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())
