"""A table on disk: full snapshots, increments after them, and restoring into any number of shards.

    rows/
        rows-00000-of-00002.arrow          rows of a shard: an Arrow stream, in the order written
        removed-00000-of-00002.arrow       keys that are gone in the end: an Arrow stream
        ledger-00000-of-00002.safetensors  steps, clock, counters and the admission filter
        ...                                the same of the other shard
        rows.json                          names and checksums of all of these: written last

A folder without ``rows.json`` holds no snapshot, whatever else lies in it. Every file is written
under another name, flushed to disk and then renamed. What a killed writer leaves goes with the next
snapshot that is written to that folder; a folder has one writer at a time.

``write_rows`` and ``read_rows`` are for tables at rest; a ``SnapshotChain`` writes beside learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.table.snapshots.chain import SnapshotChain
from recsys.table.snapshots.manifest import MANIFEST, PieceFile, RowsManifest, ShardFiles, read_manifest
from recsys.table.snapshots.restore import ShardOf, read_rows
from recsys.table.snapshots.writer import SnapshotWriter
from recsys.table.table import EmbeddingTable

__all__ = [
    "MANIFEST",
    "PieceFile",
    "RowsManifest",
    "ShardFiles",
    "ShardOf",
    "SnapshotChain",
    "SnapshotWriter",
    "read_manifest",
    "read_rows",
    "write_rows",
]


def write_rows(
    folder: Path, table: EmbeddingTable | Sequence[EmbeddingTable], *, rows_per_chunk: int | None = None
) -> RowsManifest:
    """Write a full snapshot of a table, or of its shards, into ``folder``, made if need be.

    No writer may change the table meanwhile. Raises SnapshotError when the folder holds a snapshot
    already, and OSError as the disk does.
    """
    chain = SnapshotChain(table, rows_per_chunk=rows_per_chunk)
    try:
        with chain.full(folder) as writer:
            return writer.finish()
    finally:
        chain.close()
