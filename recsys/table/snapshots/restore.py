"""Tables from snapshots: everything is verified, then everything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from recsys.errors import ConfigError, SnapshotError
from recsys.table.ledger import check_ledger
from recsys.table.snapshots.columns import keys_layout, rows_layout
from recsys.table.snapshots.ledgers import ledgers_for, with_empty_filter
from recsys.table.snapshots.manifest import MANIFEST, PieceFile, RowsManifest, check_chain, read_manifest
from recsys.table.snapshots.pieces import read_batches, read_piece
from recsys.table.table import EmbeddingTable, Keys, Ledger, Mask, TableRows

ShardOf = Callable[[Keys], NDArray[np.int64]]
"""Index of the shard that each key belongs to, (N,)."""


def read_rows(
    folder: Path | Sequence[Path],
    table: EmbeddingTable | Sequence[EmbeddingTable],
    *,
    shard_of: ShardOf | None = None,
    fresh_filter: bool = False,
) -> None:
    """Replace a table, or all its shards, by a snapshot, or a full one and its increments, oldest first.

    The snapshot may have any number of shards; where there are several tables, ``shard_of`` says which
    of them a key belongs to. Where the numbers differ, admission filters are merged as ``ledgers`` says.
    A table with another admission rule than the one saved is refused, unless ``fresh_filter`` lets its
    filter begin empty. Nothing is marked as touched. Readers see the table fill up.

    Every file is verified and decoded before the first row is loaded: on SnapshotError, which names the
    file at fault, the tables are as they were. Only where a file changes, or the disk fails, between
    that and the loading, are they left empty; they are never left half full.
    """
    tables = list(table) if isinstance(table, Sequence) else [table]
    if shard_of is None and len(tables) != 1:
        raise ConfigError(f"{len(tables)} tables to restore need a shard_of, which tells whose a key is")
    folders = list(folder) if isinstance(folder, Sequence) else [folder]
    snapshots = _open_chain(folders, tables)
    removed = [_verified(*snapshot, tables[0]) for snapshot in snapshots]
    ledgers = [_ledgers(*snapshot, tables, fresh_filter=fresh_filter) for snapshot in snapshots][-1]
    try:
        for part in tables:
            part.clear()
        for i, (path, manifest) in enumerate(snapshots):
            # A row is not loaded to be removed later: a full table would evict others for it.
            gone_N = np.unique(np.concatenate(removed[i:]))
            for rows in _rows(path, manifest, tables[0]):
                _import(_without(rows, gone_N), tables, shard_of)
        for part, ledger in zip(tables, ledgers_for(len(tables), ledgers), strict=True):
            part.restore_ledger(ledger)
    except BaseException as error:
        for part in tables:
            part.clear()
        if isinstance(error, SnapshotError):
            raise SnapshotError(
                f"{error}; it was whole before, and table {tables[0].spec.name!r} is empty now"
            ) from error
        raise


def _open_chain(folders: list[Path], tables: list[EmbeddingTable]) -> list[tuple[Path, RowsManifest]]:
    if not folders:
        raise ConfigError("want at least one snapshot, got none")
    manifests = [read_manifest(path) for path in folders]
    for table in tables:
        for path, manifest in zip(folders, manifests, strict=True):
            if manifest.spec_fingerprint != table.spec.fingerprint:
                raise SnapshotError(
                    f"{path / MANIFEST} is of table {manifest.table!r} with spec "
                    f"{manifest.spec_fingerprint:#018x}, want {table.spec.name!r} with "
                    f"{table.spec.fingerprint:#018x}; build the table from the spec that was saved"
                )
    check_chain(folders, manifests)
    return list(zip(folders, manifests, strict=True))


def _verified(folder: Path, manifest: RowsManifest, table: EmbeddingTable) -> Keys:
    """Keys that the snapshot says are gone. Raises SnapshotError unless its rows can be loaded."""
    for _ in _rows(folder, manifest, table):
        pass
    removed = [
        keys_N for shard in manifest.shards for keys_N in read_batches(folder, shard.removed, keys_layout())
    ]
    return np.concatenate([np.empty(0, dtype=np.uint64), *removed])


def _rows(folder: Path, manifest: RowsManifest, table: EmbeddingTable) -> Iterator[TableRows]:
    layout = rows_layout(table.spec)
    for shard in manifest.shards:
        yield from read_batches(folder, shard.rows, layout)


def _ledgers(
    folder: Path, manifest: RowsManifest, tables: list[EmbeddingTable], *, fresh_filter: bool
) -> list[Ledger]:
    """Ledgers of the snapshot's shards. Raises SnapshotError unless the tables can take them."""
    ledgers = []
    for shard in manifest.shards:
        ledger = _read_ledger(folder, shard.ledger)
        if fresh_filter:
            ledger = with_empty_filter(ledger, tables[0].ledger())
        for table in tables:
            try:
                check_ledger(table.spec, ledger)
            except SnapshotError as error:
                raise SnapshotError(f"{folder / shard.ledger.name}: {error}") from error
        ledgers.append(ledger)
    return ledgers


def _read_ledger(folder: Path, piece: PieceFile) -> Ledger:
    try:
        ledger: Ledger = load(read_piece(folder, piece))
    except SafetensorError as error:
        raise SnapshotError(
            f"{folder / piece.name} does not hold a ledger: {error}; take another snapshot"
        ) from error
    return ledger


def _without(rows: TableRows, gone_N: Keys) -> TableRows:
    """The rows whose keys are not among the ascending ``gone_N``."""
    if not len(gone_N):
        return rows
    nearest_N = np.minimum(np.searchsorted(gone_N, rows.keys_N), len(gone_N) - 1)
    stays_N = gone_N[nearest_N] != rows.keys_N
    return rows if stays_N.all() else _chosen(rows, stays_N)


def _import(rows: TableRows, tables: list[EmbeddingTable], shard_of: ShardOf | None) -> None:
    if shard_of is None or not len(rows.keys_N):
        tables[0].import_rows(rows)
        return
    shard_N = shard_of(rows.keys_N)
    for shard in np.unique(shard_N).tolist():
        mine_N = shard_N == shard
        tables[shard].import_rows(rows if mine_N.all() else _chosen(rows, mine_N))


def _chosen(rows: TableRows, mask_N: Mask) -> TableRows:
    return TableRows(
        keys_N=rows.keys_N[mask_N],
        weights_ND=rows.weights_ND[mask_N],
        state_NS=rows.state_NS[mask_N],
        last_seen_s_N=rows.last_seen_s_N[mask_N],
        count_N=rows.count_N[mask_N],
    )
