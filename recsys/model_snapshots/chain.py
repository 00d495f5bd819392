"""Snapshots of one model over time, each written beside learning: a full one, then increments."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import crc32c
from safetensors.numpy import save

from recsys.errors import ConfigError, SnapshotError
from recsys.model_snapshots.files import Arrays, sync_folder, write_file
from recsys.model_snapshots.folder import PREFIX, chain_of, drop_snapshot, numbered_name
from recsys.model_snapshots.manifest import Manifest, write_manifest
from recsys.table.snapshot import MANIFEST as ROWS_MANIFEST
from recsys.table.snapshot import SnapshotChain, SnapshotWriter
from recsys.table.table import EmbeddingTable

log = logging.getLogger(__name__)

ROWS = f"rows/{ROWS_MANIFEST}"
DENSE, METRICS = "dense.safetensors", "metrics.safetensors"


class SnapshotDraft:
    """A model snapshot that is being written; made by a ModelChain. One caller at a time."""

    def __init__(
        self,
        folder: Path,
        writer: SnapshotWriter,
        base: str | None,
        on_end: Callable[[str | None, bool], None],
    ) -> None:
        """``on_end`` learns the name, or None where there is none, and whether the rows moved on."""
        self._folder, self._writer, self._base, self._on_end = folder, writer, base, on_end
        self._undo = ExitStack()
        self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        self._undo.enter_context(writer)
        self._has_moved = False

    def advance(self, max_rows: int) -> bool:
        """Write up to ``max_rows`` rows; whether going on would hardly make ``finish`` shorter.

        May run beside learning. Raises SnapshotError when the disk does not take them; the draft is then
        dropped.
        """
        with self._dropped_on_error():
            return self._writer.advance(max_rows)

    def finish(self, manifest: Manifest, dense: Arrays, metrics: Arrays, *, name: str | None = None) -> Path:
        """Write the rest, as everything stands now, and put the snapshot in its place; its path.

        Belongs between two batches. Kind, base and checksums of ``manifest`` are filled in; a snapshot
        that already has ``name`` is replaced. Raises SnapshotError when the disk does not take it; the
        draft is then dropped, and what changed is in the next snapshot of its chain.
        """
        with self._dropped_on_error():
            sums = {
                DENSE: write_file(self._folder / DENSE, save(dict(dense))),
                METRICS: write_file(self._folder / METRICS, save(dict(metrics))),
            }
            # Nothing after this but names: once its rows are written the chain has moved on.
            rows = self._writer.finish()
            self._has_moved = True
            sums[ROWS] = int(crc32c.crc32c(rows.to_json()))
            kind = "full" if self._base is None else "increment"
            whole = manifest.model_copy(update={"kind": kind, "base": self._base, "checksums": sums})
            write_manifest(self._folder, whole)
            target = self._folder.with_name(name or numbered_name(self._folder.parent, whole))
            drop_snapshot(target)
            self._folder.rename(target)
            sync_folder(target.parent)
        self._undo.pop_all()
        self._on_end(target.name, True)
        return target

    def drop(self) -> None:
        """Give the draft up; what changed is in the next snapshot of its chain."""
        self._undo.close()
        self._on_end(None, self._has_moved)

    @contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.drop()
            raise _not_written(self._folder.parent, error) from error


class ModelChain:
    """Full snapshots of one model and increments after them, in a folder that it alone writes.

    One caller at a time. As for a SnapshotChain, what changes rows without telling followers calls for a
    new ModelChain.
    """

    def __init__(self, folder: Path, table: EmbeddingTable) -> None:
        self._folder, self._rows = folder, SnapshotChain(table)
        self._newest: str | None = None
        self._draft: SnapshotDraft | None = None

    @property
    def draft(self) -> SnapshotDraft | None:
        """The snapshot that is being written, if one is."""
        return self._draft

    def begin(self, *, full: bool) -> SnapshotDraft:
        """Begin a full snapshot, or an increment where there is something to follow.

        Raises SnapshotError when the disk does not let it, ConfigError while another is being written.
        """
        if self._draft is not None:
            raise ConfigError("a snapshot of this model is being written; finish or drop it first")
        base = None if full else self._base()
        folder = self._folder / f".{PREFIX}draft.{os.getpid()}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            rows = folder / "rows"
            writer = self._rows.full(rows) if base is None else self._rows.increment(rows)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _not_written(self._folder, error) from error
        self._draft = SnapshotDraft(folder, writer, base, self._ended)
        return self._draft

    def close(self) -> None:
        """Drop what is being written and follow the table no longer; the next snapshot is a full one."""
        if self._draft is not None:
            self._draft.drop()
        self._rows.close()
        self._newest = None

    def _base(self) -> str | None:
        """The newest snapshot, unless it or one that it builds on was lost."""
        try:
            if self._newest is not None:
                chain_of(self._folder / self._newest)
            return self._newest
        except SnapshotError as error:
            log.warning("chain_broken", extra={"base": self._newest, "reason": str(error)})
            return None

    def _ended(self, name: str | None, has_moved: bool) -> None:
        self._draft = None
        # Rows that moved on without a snapshot to show for it would be missing from an increment.
        if name is not None or has_moved:
            self._newest = name


def _not_written(folder: Path, error: OSError) -> SnapshotError:
    return SnapshotError(f"a snapshot in {folder} could not be written: {error}; free space or rights")
