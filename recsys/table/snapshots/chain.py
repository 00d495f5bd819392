"""Snapshots of one table over time: a full one, then increments, each holding what changed since the last."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from recsys.errors import ConfigError, SnapshotError
from recsys.table.snapshots.manifest import MANIFEST, RowsManifest, shard_names
from recsys.table.snapshots.pieces import clear_folder
from recsys.table.snapshots.shard_writer import ShardWriter
from recsys.table.snapshots.writer import SnapshotWriter
from recsys.table.table import EmbeddingTable, Keys

_CHUNK_BYTES = 2 << 20


class SnapshotChain:
    """Full snapshots of a table's shards, and increments after them. One caller at a time.

    It follows the tables for itself, from its first snapshot until ``close``. What no follower is told of
    (``import_rows``, ``restore_ledger``, ``clear``, and so ``read_rows``) calls for a full snapshot next.
    """

    def __init__(
        self,
        table: EmbeddingTable | Sequence[EmbeddingTable],
        *,
        after: RowsManifest | None = None,
        rows_per_chunk: int | None = None,
    ) -> None:
        """``after`` is what the tables were just restored from, so that an increment may come next.

        ``rows_per_chunk`` (>= 1) rows are taken from a table at once; None is about 2 MiB of them.
        """
        self._tables = list(table) if isinstance(table, Sequence) else [table]
        fingerprints = {part.spec.fingerprint for part in self._tables}
        if len(fingerprints) != 1:
            raise ConfigError(f"want shards of one table, got {len(fingerprints)} different specs")
        if after is not None and after.spec_fingerprint not in fingerprints:
            raise ConfigError(
                f"snapshot {after.id} is of table {after.table!r} with another spec; begin with a full one"
            )
        if rows_per_chunk is not None and rows_per_chunk < 1:
            raise ConfigError(f"rows_per_chunk must be >= 1, got {rows_per_chunk}")
        spec = self._tables[0].spec
        row_bytes = 4 * (spec.dim + spec.state_dim) + 16
        self._rows_per_chunk = rows_per_chunk or max(1, _CHUNK_BYTES // row_bytes)
        self._last = after
        self._followers = [part.follow() for part in self._tables] if after is not None else []
        self._owed: list[list[Keys]] = [[] for _ in self._tables]
        self._is_writing = False

    @property
    def last(self) -> RowsManifest | None:
        """The newest snapshot of the chain: what the next increment builds on."""
        return self._last

    def full(self, folder: Path) -> SnapshotWriter:
        """Begin a full snapshot in ``folder``, which starts the chain anew once it is finished."""
        self._open(folder)
        followers = [table.follow() for table in self._tables]

        def on_end(manifest: RowsManifest | None) -> None:
            self._is_writing = False
            if manifest is None:
                self._unfollow(followers)
                return
            self._unfollow(self._followers)
            self._followers = followers
            self._move_to(manifest)

        return self._writer(folder, self._manifest(None), followers, on_end)

    def increment(self, folder: Path) -> SnapshotWriter:
        """Begin a snapshot of what changed since the last one. Raises ConfigError where there is none."""
        if self._last is None:
            raise ConfigError("an increment needs a snapshot before it; write a full one first")
        self._open(folder)

        def on_end(manifest: RowsManifest | None) -> None:
            self._is_writing = False
            if manifest is not None:
                self._move_to(manifest)

        return self._writer(folder, self._manifest(self._last), self._followers, on_end)

    def close(self) -> None:
        """Follow the tables no longer. The next snapshot is a full one."""
        self._check_idle()
        self._unfollow(self._followers)
        self._followers, self._last = [], None

    def _open(self, folder: Path) -> None:
        self._check_idle()
        if (folder / MANIFEST).exists():
            raise SnapshotError(
                f"{folder / MANIFEST} exists already; write each snapshot to a folder of its own"
            )
        folder.mkdir(parents=True, exist_ok=True)
        clear_folder(folder)

    def _check_idle(self) -> None:
        if self._is_writing:
            raise ConfigError("a snapshot of this chain is being written; finish or drop it first")

    def _manifest(self, base: RowsManifest | None) -> RowsManifest:
        spec = self._tables[0].spec
        return RowsManifest(
            kind="full" if base is None else "increment",
            table=spec.name,
            spec_fingerprint=spec.fingerprint,
            spec=json.loads(spec.to_json()),
            place=0 if base is None else base.place + 1,
            base=None if base is None else base.id,
            shards=(),
        )

    def _writer(
        self,
        folder: Path,
        manifest: RowsManifest,
        followers: list[int],
        on_end: Callable[[RowsManifest | None], None],
    ) -> SnapshotWriter:
        with ExitStack() as undo:
            undo.callback(on_end, None)
            shards = []
            for i, (table, follower) in enumerate(zip(self._tables, followers, strict=True)):
                rows, removed, ledger = (folder / name for name in shard_names(i, len(self._tables)))
                shards.append(ShardWriter(table, follower, (rows, removed, ledger), self._rows_per_chunk))
                undo.callback(shards[i].discard)
                if manifest.kind == "increment":
                    shards[i].only_changes(self._owed[i])
            undo.pop_all()
        self._is_writing = True
        return SnapshotWriter(folder, shards, manifest, on_end)

    def _move_to(self, manifest: RowsManifest) -> None:
        self._last = manifest
        for owed in self._owed:
            owed.clear()

    def _unfollow(self, followers: list[int]) -> None:
        for table, follower in zip(self._tables, followers, strict=False):
            table.unfollow(follower)
