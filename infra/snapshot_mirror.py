"""Finished snapshots on their way to a store, in the background of learning."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from infra.snapshot_store import SnapshotStore
from recsys.errors import SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest, chain_of, snapshots
from streaming.source import Record
from training.loop_status import LoopStatus

log = logging.getLogger(__name__)


class SnapshotMirror:
    """Copies the newest snapshot of a folder, with all that it follows, whenever there is a newer one.

    A LoopObserver: called from the loop's thread, which it never holds up; it works in a thread of its
    own. What cannot be copied now is copied with the next snapshot.
    """

    def __init__(self, store: SnapshotStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._changed = threading.Condition()
        self._newest: Path | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="snapshot-mirror", daemon=True)
        self.failures = 0
        """Snapshots that could not be copied."""
        self.mirrored: str | None = None
        """Name of the newest one in the store."""

    def start(self) -> None:
        """Begin to copy what ``snapshot_written`` names."""
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Copy what is left, if that can be done in time, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """No concern of a mirror."""

    def rejected(self, record: Record, reason: str) -> None:
        """No concern of a mirror."""

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Copy this one next, and none that waited before it but what it follows."""
        with self._changed:
            self._newest = path
            self._changed.notify()

    def _run(self) -> None:
        while (path := self._next()) is not None:
            try:
                self._copy(path)
                self.mirrored = path.name
            except Exception as error:  # noqa: BLE001
                # The thread's outermost loop: a store has errors of its own, and the next try may succeed.
                if self._is_last():
                    self.failures += 1
                    log.warning("snapshot_not_mirrored", extra={"path": str(path), "reason": str(error)})

    def _next(self) -> Path | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._is_closing)
            path, self._newest = self._newest, None
            return path

    def _is_last(self) -> bool:
        """Whether nothing newer waits: one that was dropped while it was copied is no loss otherwise."""
        with self._changed:
            return self._newest is None

    def _copy(self, path: Path) -> None:
        names = self._store.names()
        for link in chain_of(path):
            if link.name not in names or not self._store.is_copy_of(link):
                self._store.put(link)
        here = {one.name for one in snapshots(self._folder)}
        for name in names:
            # What is older than all that is kept here is kept nowhere.
            if here and name < min(here):
                self._drop(name)

    def _drop(self, name: str) -> None:
        try:
            self._store.drop(name)
        except SnapshotError as error:
            log.warning("snapshot_not_dropped", extra={"path": name, "reason": str(error)})
