"""A whole model on disk: rows, dense parameters, and where in its source it stands.

    snapshot-0001-000000123456-000007/
        rows/            the table, or what changed of it, written by recsys.table.snapshot
        dense.safetensors    tower weights and dense optimiser state
        metrics.safetensors  progressive metrics, so that a restart goes on counting
        manifest.json    what it is, what it follows, its checksums, its source offsets: written last

The folder is made under a temporary name and renamed, so a snapshot either exists whole or not at
all. An increment holds the rows that changed since the snapshot that it names as its base, a folder
beside it; whoever reads its table reads the chain back to a full one. Every byte is under a
checksum, the manifest's own included. Training and serving share these bytes and nothing else.

``write_snapshot`` writes a full one of a model at rest; a ``ModelChain`` writes beside learning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from recsys.model_snapshots.chain import DENSE, METRICS, ROWS, ModelChain, SnapshotDraft
from recsys.model_snapshots.files import Arrays, read_arrays, read_checked
from recsys.model_snapshots.folder import (
    PREFIX,
    chain_of,
    clear_leftovers,
    drop_oldest,
    drop_snapshot,
    incarnation_of,
    plain_name,
    snapshots,
)
from recsys.model_snapshots.manifest import MANIFEST, Manifest, parse_manifest, read_manifest, write_manifest
from recsys.table.snapshot import read_manifest as read_rows_manifest
from recsys.table.snapshot import read_rows
from recsys.table.snapshots.pieces import read_piece
from recsys.table.table import EmbeddingTable

__all__ = [
    "MANIFEST",
    "PREFIX",
    "Arrays",
    "Manifest",
    "ModelChain",
    "SnapshotDraft",
    "chain_of",
    "check_rows",
    "check_snapshot",
    "clear_leftovers",
    "drop_oldest",
    "drop_snapshot",
    "incarnation_of",
    "parse_manifest",
    "read_dense",
    "read_manifest",
    "read_metrics",
    "read_table",
    "snapshots",
    "write_manifest",
    "write_snapshot",
]


def write_snapshot(
    folder: Path, manifest: Manifest, table: EmbeddingTable, dense: Arrays, metrics: Arrays
) -> Path:
    """Write the full ``folder/snapshot-<incarnation>-<examples>``, replacing one of that name; its path.

    Raises SnapshotError when the disk does not take it.
    """
    chain = ModelChain(folder, table)
    try:
        name = plain_name(manifest.incarnation, manifest.examples)
        return chain.begin(full=True).finish(manifest, dense, metrics, name=name)
    finally:
        chain.close()


def read_dense(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Tower weights and dense optimiser state, checked against the manifest."""
    return read_arrays(path / DENSE, manifest.checksums.get(DENSE))


def read_metrics(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Progressive metrics as saved, checked against the manifest."""
    return read_arrays(path / METRICS, manifest.checksums.get(METRICS))


def read_table(path: Path, table: EmbeddingTable) -> None:
    """Replace the table's rows by the snapshot's, its chain included; on an error the table is as it was."""
    chain = chain_of(path)
    for link in chain:
        read_checked(link / ROWS, read_manifest(link).checksums.get(ROWS))
    read_rows([link / "rows" for link in chain], table)


def check_rows(path: Path) -> Manifest:
    """Read every byte of one snapshot's own rows, which are what others build on; its manifest.

    Raises SnapshotError, which names the file at fault.
    """
    manifest = read_manifest(path)
    read_checked(path / ROWS, manifest.checksums.get(ROWS))
    for piece in read_rows_manifest(path / "rows").pieces:
        read_piece(path / "rows", piece)
    return manifest


def check_snapshot(path: Path) -> Manifest:
    """Read every byte of one snapshot, without those that it follows; its manifest.

    Raises SnapshotError, which names the file at fault.
    """
    manifest = check_rows(path)
    read_dense(path, manifest)
    read_metrics(path, manifest)
    return manifest
