"""Keeps a replica current: boots it from a snapshot, reads the delta log, swaps when told to."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from recsys.errors import RecsysError
from recsys.snapshots import Manifest, read_manifest
from serving.replica import ApplyOutcome, Replica
from streaming.deltas import DeltaSubscriber
from streaming.errors import DamagedDelta, OffsetLost, SourceUnavailable

log = logging.getLogger(__name__)

_URGENT_PERIOD_S = 0.1


class SnapshotSource(Protocol):
    """Knows which model is to be served and where its snapshots are."""

    def model(self) -> str | None:
        """Lineage to serve now; None while there is none. Raises RecsysError or OSError."""

    def candidates(self, model: str) -> list[Path]:
        """Snapshots of that lineage, the newest first. Raises RecsysError or OSError."""


class ReplicaFollower:
    """Runs in one thread of its own, the only one that changes the replica."""

    def __init__(
        self,
        replica: Replica,
        subscriber: DeltaSubscriber,
        snapshots: SnapshotSource,
        *,
        check_period_s: float = 2.0,
        on_applied: Callable[[], None] = lambda: None,
    ) -> None:
        self._replica, self._subscriber, self._snapshots = replica, subscriber, snapshots
        self._check_period_s, self._on_applied = check_period_s, on_applied
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica-follower", daemon=True)
        # Every outcome from the start: others iterate over it, and its size must not change meanwhile.
        self.outcomes: Counter[ApplyOutcome] = Counter(dict.fromkeys(ApplyOutcome, 0))
        self._wants_snapshot = False
        self._checked_s = float("-inf")
        self._seek_to: int | None = None

    def start(self) -> None:
        """Begin to follow; ``replica.ready`` is set once the first snapshot is loaded."""
        self._thread.start()

    def stop(self) -> None:
        """End after the delta in hand; returns when the thread has ended, if it was ever started."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:
                # The thread's outermost loop: a server whose parameters silently stop is worse than noise.
                log.exception("follower_turn_failed")
                self._wants_snapshot = True
                self._stop.wait(0.5)

    def _turn(self) -> None:
        # A replica that found a gap looks more often: old parameters serve meanwhile.
        urgent = self._wants_snapshot or not self._replica.ready.is_set()
        period_s = min(_URGENT_PERIOD_S, self._check_period_s) if urgent else self._check_period_s
        if time.monotonic() - self._checked_s >= period_s:
            self._check_snapshots()
            self._checked_s = time.monotonic()
        if self._replica.ready.is_set():
            self._follow()
        else:
            self._stop.wait(_URGENT_PERIOD_S)

    def _check_snapshots(self) -> None:
        """Load the newest whole snapshot that should be served, where it is not the one that is."""
        try:
            model = self._snapshots.model()
            candidates = self._snapshots.candidates(model) if model is not None else []
        except (RecsysError, OSError) as error:
            log.warning("snapshots_unreadable", extra={"reason": str(error)})
            return
        for path in candidates:
            try:
                if self._should_load(read_manifest(path)):
                    self._load(path)
                return
            except (RecsysError, OSError) as error:
                # Damaged, or dropped by its owner while it was read: an older one may do until the next.
                log.warning("snapshot_refused", extra={"path": str(path), "reason": str(error)})

    def _load(self, path: Path) -> None:
        manifest = self._replica.load(path)
        self._seek_to = manifest.delta_position
        self._wants_snapshot = False
        self._on_applied()
        log.info("snapshot_served", extra={"path": str(path), "version": manifest.version})

    def _should_load(self, manifest: Manifest) -> bool:
        if not self._replica.ready.is_set():
            return True
        now = self._replica.parameters
        if manifest.model != now.manifest.model:
            return True
        is_newer = (manifest.incarnation, manifest.table_sequence) > now.position
        return self._wants_snapshot and is_newer

    def _follow(self) -> None:
        try:
            if self._seek_to is not None:
                self._subscriber.seek(self._seek_to)
                self._seek_to = None
            deltas = self._subscriber.poll(timeout_s=0.05)
        except (SourceUnavailable, DamagedDelta) as error:
            log.warning("delta_log_unreadable", extra={"reason": str(error)})
            if isinstance(error, DamagedDelta | OffsetLost):
                # What could not be read may be missing: only a snapshot is sure to hold it.
                self.outcomes[ApplyOutcome.SNAPSHOT_NEEDED] += 1
                self._wants_snapshot = True
            self._stop.wait(0.5)
            return
        for delta in deltas:
            try:
                outcome = self._replica.apply(delta)
            except RecsysError as error:
                # Rows or weights of another layout: this log holds nothing for this server.
                log.warning("delta_refused", extra={"reason": str(error)})
                outcome = ApplyOutcome.SNAPSHOT_NEEDED
            self.outcomes[outcome] += 1
            if outcome is ApplyOutcome.SNAPSHOT_NEEDED:
                self._wants_snapshot = True
                break
        if deltas:
            self._on_applied()
