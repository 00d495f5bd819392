"""One snapshot on its way to disk while its table goes on learning.

Why it is exact. The writer follows each shard's changes before it writes the first row. A row that
does not change until ``finish`` is there throughout the scan, which sees it once, and its bits are the
same whenever that is. A row that does change is drained after its last change and written after that,
and of equal keys the last one written counts. A key that was written and is gone in the end was
removed after it was written, so it was drained too, and is named among the removed. In ``finish``
nothing learns, so what is drained there is the rest, and the ledger is of the same moment.

So ``learn``, ``learn_bags``, ``assign``, ``erase`` and ``sweep`` may run beside ``advance``. What no
follower is told of may not: ``import_rows``, ``restore_ledger``, ``clear``; nor ``compact``, which
would move rows under the scan.

An error of the disk drops the snapshot. What was drained for an increment is still owed to its chain.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from recsys.errors import ConfigError
from recsys.table.snapshots.manifest import MANIFEST, RowsManifest
from recsys.table.snapshots.pieces import clear_folder, sync_folder, write_piece
from recsys.table.snapshots.shard_writer import ShardWriter


class SnapshotWriter:
    """One snapshot being written; made by a SnapshotChain. Leaving its ``with`` block unfinished drops it.

    Any thread may call, and waits for another's call to end. ``advance`` may run beside learning;
    ``finish`` belongs between two batches, where no thread changes a table.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[ShardWriter],
        manifest: RowsManifest,
        on_end: Callable[[RowsManifest | None], None],
    ) -> None:
        """``manifest`` lacks its shards yet; ``on_end`` learns of the whole one, or of None, exactly once."""
        self._folder, self._shards, self._manifest, self._on_end = folder, shards, manifest, on_end
        self._lock = threading.Lock()
        self._has_ended = self._is_last_round = False
        self._round_rows: float = math.inf

    def advance(self, max_rows: int) -> bool:
        """Write up to ``max_rows`` rows; whether going on would hardly make ``finish`` shorter.

        What changed while rows were written is written in turn, round after round. True means that a
        round is done that had at most ``max_rows`` rows, or more than half as many as the one before:
        rows then change about as fast as they are written, and only ``finish`` brings that to an end.
        Until then the rounds halve, so that all of them write at most twice what the first does.
        """
        if max_rows < 1:
            raise ConfigError(f"max_rows must be >= 1, got {max_rows}")
        with self._turn():
            left = max_rows
            for shard in self._shards:
                left -= shard.scan(left)
            if any(shard.is_scanning for shard in self._shards):
                return False
            if not self._pending:
                self._begin_round(max_rows)
            for shard in self._shards:
                left -= shard.write_changed(left)
            return self._is_last_round and not self._pending

    def finish(self) -> RowsManifest:
        """Write the rest: the snapshot is then the tables as they are now, and is on disk.

        Raises OSError as the disk does.
        """
        with self._turn():
            files = tuple(shard.finish() for shard in self._shards)
            manifest = self._manifest.model_copy(update={"shards": files})
            # All other names are durable before the one that makes them a snapshot.
            sync_folder(self._folder)
            write_piece(self._folder / MANIFEST, manifest.to_json(), 1)
            sync_folder(self._folder)
            self._has_ended = True
            self._on_end(manifest)
            return manifest

    def __enter__(self) -> SnapshotWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if not self._has_ended:
                self._drop()

    @property
    def _pending(self) -> int:
        return sum(shard.pending for shard in self._shards)

    def _begin_round(self, max_rows: int) -> None:
        rows = sum(shard.drain() for shard in self._shards)
        self._is_last_round = rows <= max_rows or rows > self._round_rows / 2
        self._round_rows = rows

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call at a time, on a snapshot that is still being written; one that fails drops it."""
        with self._lock:
            if self._has_ended:
                raise ConfigError(
                    f"snapshot {self._folder} is finished or dropped; ask its chain for another"
                )
            try:
                yield
            except BaseException:
                # A batch may be half written, and what it held is not drained again.
                self._drop()
                raise

    def _drop(self) -> None:
        self._has_ended = True
        for shard in self._shards:
            shard.discard()
        with suppress(OSError):
            clear_folder(self._folder)
        self._on_end(None)
