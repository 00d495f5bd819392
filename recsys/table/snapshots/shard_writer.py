"""The files of one shard on their way to disk. Why they are exact: see ``writer``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import save

from recsys.table.snapshots.columns import keys_layout, keys_to_batch, rows_layout, to_batch
from recsys.table.snapshots.manifest import PieceFile, ShardFiles
from recsys.table.snapshots.pieces import PieceSink, write_piece
from recsys.table.table import EmbeddingTable, Keys, TableRows

_NO_KEYS = np.empty(0, dtype=np.uint64)


class ShardWriter:
    """Writes the files of one shard. One caller at a time; beside all but finish, its learner."""

    def __init__(
        self, table: EmbeddingTable, follower: int, paths: tuple[Path, Path, Path], chunk: int
    ) -> None:
        """``paths`` of rows, removed and ledger; ``chunk`` rows are taken from the table at once."""
        self._table, self._follower, self._chunk = table, follower, chunk
        self._removed_path, self._ledger_path = paths[1:]
        self._schema = rows_layout(table.spec).schema
        self._cursor: int | None = 0
        self._pending_N, self._rows = _NO_KEYS, 0
        self._gone: list[Keys] = []
        self._owed: list[Keys] | None = None
        self._sink = PieceSink(paths[0])
        self._stream = pa.ipc.new_stream(self._sink, self._schema)

    def only_changes(self, owed: list[Keys]) -> None:
        """Write no row but those of the keys in ``owed``, to which all that is drained is added."""
        self._cursor, self._owed = None, owed
        self._pending_N = np.unique(np.concatenate([_NO_KEYS, *owed]))

    @property
    def is_scanning(self) -> bool:
        """Whether rows are left that were not looked at yet."""
        return self._cursor is not None

    @property
    def pending(self) -> int:
        """Changed keys that are drained and not yet written."""
        return len(self._pending_N)

    def scan(self, max_rows: int) -> int:
        """Write the next rows in turn; how many rows of ``max_rows`` were looked at."""
        looked = 0
        while self._cursor is not None and looked < max_rows:
            n = min(self._chunk, max_rows - looked)
            rows, cursor = self._table.scan(self._cursor, n)
            self._cursor = cursor or None
            self._write(rows)
            looked += n
        return looked

    def drain(self) -> int:
        """Take over what changed since the last drain; how many keys."""
        changes = self._table.drain(self._follower)
        changed_N = np.concatenate([changes.touched_N, changes.removed_N])
        if self._owed is not None:
            self._owed.append(changed_N)
        self._pending_N = np.union1d(self._pending_N, changed_N)
        return len(changed_N)

    def write_changed(self, max_rows: int) -> int:
        """Write up to ``max_rows`` of the pending keys; how many."""
        written = 0
        while len(self._pending_N) and written < max_rows:
            keys_N, self._pending_N = np.split(self._pending_N, [min(self._chunk, max_rows - written)])
            self._write_those(keys_N)
            written += len(keys_N)
        return written

    def finish(self) -> ShardFiles:
        """Write all that is left and make the files durable."""
        while self.is_scanning:
            self.scan(self._chunk)
        self.drain()
        while self.pending:
            self.write_changed(self._chunk)
        gone_N = np.unique(np.concatenate([_NO_KEYS, *self._gone]))
        gone_N = gone_N[~self._table.contains(gone_N)]
        ledger = dict(self._table.ledger())
        self._stream.close()
        return ShardFiles(
            rows=self._sink.commit(self._rows),
            removed=_write_keys(self._removed_path, gone_N, self._chunk),
            ledger=write_piece(self._ledger_path, save(ledger), len(ledger)),
        )

    def discard(self) -> None:
        """Drop what was written, if it is not committed."""
        self._sink.discard()

    def _write_those(self, keys_N: Keys) -> None:
        is_there_N = self._table.contains(keys_N)
        self._gone.append(keys_N[~is_there_N])
        there_N = keys_N[is_there_N]
        try:
            self._write(self._table.export_rows(there_N))
        except KeyError:
            # One was removed since it was asked for: the next drain names it. The others go in halves.
            if len(there_N) > 1:
                for half_N in np.array_split(there_N, 2):
                    self._write_those(half_N)

    def _write(self, rows: TableRows) -> None:
        if len(rows.keys_N):
            self._stream.write_batch(to_batch(rows, self._schema))
            self._rows += len(rows.keys_N)


def _write_keys(path: Path, keys_N: Keys, chunk: int) -> PieceFile:
    sink = PieceSink(path)
    try:
        with pa.ipc.new_stream(sink, keys_layout().schema) as stream:
            for begin in range(0, len(keys_N), chunk):
                stream.write_batch(keys_to_batch(keys_N[begin : begin + chunk]))
        return sink.commit(len(keys_N))
    except BaseException:
        sink.discard()
        raise
