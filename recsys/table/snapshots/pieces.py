"""Files of a snapshot: checksummed and durable on the way out, verified on the way in.

Rows go from a table's arrays to the disk, and back, without being copied: Arrow only frames them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import crc32c
import pyarrow as pa

from recsys.errors import SnapshotError
from recsys.table.snapshots.columns import Layout
from recsys.table.snapshots.manifest import MANIFEST, PIECE_PATTERNS, PieceFile

T = TypeVar("T")

TEMPORARY = ".tmp"
_FLUSH_BYTES = 8 << 20
_READ_BYTES = 1 << 20


class PieceSink:
    """A file under a temporary name until it is whole. One caller at a time; Arrow may write to it."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(path.name + TEMPORARY)
        self._file = self._temporary.open("wb", buffering=0)
        self._bytes = self._crc = self._flushed = 0

    def write(self, content: Any) -> int:
        """Append; the number of bytes."""
        view = memoryview(content).cast("B")
        self._crc = crc32c.crc32c(view, self._crc)
        written = 0
        while written < len(view):
            written += self._file.write(view[written:])
        self._bytes += written
        if self._bytes - self._flushed >= _FLUSH_BYTES:
            self._start_flush()
        return written

    def flush(self) -> None:
        """Nothing is held back."""

    def commit(self, entries: int) -> PieceFile:
        """Make the bytes durable under their real name, and the name once the folder is synced."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        return PieceFile(name=self._path.name, entries=entries, bytes=self._bytes, crc32c=self._crc)

    def discard(self) -> None:
        """Drop what was written, if it is not committed."""
        self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _start_flush(self) -> None:
        # Asks for pages to leave the cache, which makes Linux begin to write them without waiting:
        # the fsync in the end then finds little to do.
        if hasattr(os, "posix_fadvise"):
            fresh = self._bytes - self._flushed
            os.posix_fadvise(self._file.fileno(), self._flushed, fresh, os.POSIX_FADV_DONTNEED)
        self._flushed = self._bytes


def write_piece(path: Path, content: bytes, entries: int) -> PieceFile:
    """Write a whole file durably."""
    sink = PieceSink(path)
    try:
        sink.write(content)
        return sink.commit(entries)
    except BaseException:
        sink.discard()
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync makes the bytes of a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_folder(folder: Path) -> None:
    """Remove a snapshot, or what is left of one; other files stay. Raises OSError as the disk does."""
    for pattern in (MANIFEST, *PIECE_PATTERNS):
        for name in (pattern, pattern + TEMPORARY):
            for path in folder.glob(name):
                path.unlink(missing_ok=True)


class _Source:
    """A file that Arrow reads from while its checksum runs along. One caller at a time."""

    closed = False

    def __init__(self, path: Path, piece: PieceFile) -> None:
        self._path, self._piece = path, piece
        self._crc, self._left = 0, piece.bytes
        try:
            self._file = path.open("rb", buffering=0)
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise SnapshotError(f"cannot read {path}: {error.strerror}; take another snapshot") from error
        if size != piece.bytes:
            self._file.close()
            raise SnapshotError(f"{path} has {size} bytes, want {piece.bytes}; take another snapshot")

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes more; fewer only at the end. Never asks for more than the file has."""
        wanted = self._left if size < 0 else min(size, self._left)
        try:
            content = self._file.read(wanted)
            while len(content) < wanted and (more := self._file.read(wanted - len(content))):
                content += more
        except OSError as error:
            raise SnapshotError(
                f"cannot read {self._path}: {error.strerror}; take another snapshot"
            ) from error
        self._crc = crc32c.crc32c(content, self._crc)
        self._left -= len(content)
        return content

    def verify(self) -> None:
        """Read what is left. Raises SnapshotError unless the checksum is the manifest's."""
        while self._left and self.read(_READ_BYTES):
            pass
        if self._left or self._crc != self._piece.crc32c:
            raise SnapshotError(
                f"{self._path} has crc32c {self._crc:#010x}, want {self._piece.crc32c:#010x}; "
                "take another snapshot"
            )

    def close(self) -> None:
        self._file.close()


def read_batches(folder: Path, piece: PieceFile, layout: Layout[T]) -> Iterator[T]:
    """Batches of a piece in order. The file is proved whole when the last one has been taken.

    Raises SnapshotError, which names the file, at the batch where that turns out false.
    """
    path, entries = folder / piece.name, 0
    source = _Source(path, piece)
    try:
        for n, batch in _decoded(source, layout, path):
            entries += n
            yield batch
        source.verify()
    finally:
        source.close()
    if entries != piece.entries:
        raise SnapshotError(f"{path} holds {entries} entries, want {piece.entries}; take another snapshot")


def read_piece(folder: Path, piece: PieceFile) -> bytes:
    """All bytes of a piece. Raises SnapshotError unless they are what was written."""
    source = _Source(folder / piece.name, piece)
    try:
        content = source.read()
        source.verify()
    finally:
        source.close()
    return content


def _decoded(source: _Source, layout: Layout[T], path: Path) -> Iterator[tuple[int, T]]:
    try:
        with pa.ipc.open_stream(source) as stream:
            if not stream.schema.equals(layout.schema):
                raise pa.ArrowInvalid(f"its columns are {stream.schema}, want {layout.schema}")
            for batch in stream:
                batch.validate()
                yield len(batch), layout.decode(batch)
    except (pa.ArrowException, OSError) as error:
        # A damaged file is reported as damaged, not as what Arrow made of it.
        source.verify()
        raise SnapshotError(
            f"{path} does not hold what its name says: {error}; take another snapshot"
        ) from error
