"""A log in a file: a production incident, recorded, runs again without a broker.

File: the eight bytes ``HEADRLG1``, then records of
    body length u32 | CRC-32C of the body u32 | body
    body = topic length u16 | topic | partition u32 | key length u32 | key | value
all little-endian. A record cut off at the very end (its writer was killed) is left out; damage
anywhere else raises DamagedLog.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import crc32c

from streaming.errors import DamagedLog, SinkUnavailable
from streaming.memory_log import Entry, MemoryLog
from streaming.sink import EventSink
from streaming.source import Partition

MAGIC = b"HEADRLG1"
_HEAD = struct.Struct("<II")


class LogWriter:
    """An EventSink that appends to a file. One caller at a time."""

    def __init__(self, path: Path) -> None:
        """Begin ``path`` anew."""
        self._positions: dict[Partition, int] = {}
        try:
            self._file: BinaryIO = path.open("wb")
            self._file.write(MAGIC)
        except OSError as error:
            raise SinkUnavailable(f"cannot write {path}: {error}") from error

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        """As EventSink says."""
        at = (topic, partition or 0)
        name = topic.encode()
        head = struct.pack("<H", len(name)) + name + struct.pack("<II", at[1], len(key))
        body = b"".join((head, key, value))
        try:
            self._file.write(_HEAD.pack(len(body), crc32c.crc32c(body)) + body)
        except OSError as error:
            raise SinkUnavailable(f"cannot write {self._file.name}: {error}") from error
        self._positions[at] = self._positions.get(at, 0) + 1

    def flush(self) -> None:
        """As EventSink says; arrived means handed to the operating system."""
        try:
            self._file.flush()
        except OSError as error:
            raise SinkUnavailable(f"cannot write {self._file.name}: {error}") from error

    def position(self, topic: str, partition: int) -> int:
        """As EventSink says."""
        return self._positions.get((topic, partition), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def read_log(path: Path) -> Iterator[Entry]:
    """Entries of a recorded log, oldest first. Raises DamagedLog at the first one that is damaged."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise DamagedLog(f"{path} is no recorded log; want {MAGIC!r} first")
        size = path.stat().st_size
        while (start := file.tell()) + _HEAD.size <= size:
            length, checksum = _HEAD.unpack(file.read(_HEAD.size))
            if file.tell() + length > size:
                return
            body = file.read(length)
            if crc32c.crc32c(body) != checksum:
                raise DamagedLog(f"{path}: the record at byte {start} is damaged; replay up to there")
            yield _entry(body)


def _entry(body: bytes) -> Entry:
    (name_length,) = struct.unpack_from("<H", body)
    name_end = 2 + name_length
    partition, key_length = struct.unpack_from("<II", body, name_end)
    key_start = name_end + 8
    key_end = key_start + key_length
    return Entry(body[2:name_end].decode(), partition, body[key_start:key_end], body[key_end:])


def load_log(path: Path) -> MemoryLog:
    """A recorded log as a log in memory. Raises DamagedLog."""
    return MemoryLog(read_log(path))


def replay(entries: Iterable[Entry], sink: EventSink) -> int:
    """Publish recorded entries again, in their order; how many."""
    count = 0
    for topic, partition, key, value in entries:
        sink.publish(topic, key, value, partition=partition)
        count += 1
    return count
