"""A run of an experiment tracker, recorded in the background of learning."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recsys.errors import SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest, read_manifest
from streaming.source import Record
from training.loop_status import LoopStatus

log = logging.getLogger(__name__)


class TrackedRun(Protocol):
    """What a tracker is told of one run. Each call may block while the tracker is away, and raise."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Figures as they stand after ``step`` examples."""

    def log_snapshot(self, path: Path, manifest: Manifest) -> None:
        """Where a snapshot is, and its manifest."""

    def finish(self, *, failed: bool = False) -> None:
        """End the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    path: Path
    manifest: Manifest
    metrics: Mapping[str, float]


class RunRecorder:
    """Records each full snapshot in a tracked run, and the last one whatever its kind.

    A LoopObserver: called from the loop's thread, which it never holds up; it works in a thread of its
    own. While the tracker is slow only the newest snapshot waits, and what cannot be recorded is lost
    with a warning.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run_log = run
        self._changed = threading.Condition()
        self._metrics: ProgressiveMetrics | None = None
        # The newest full snapshot, and the newest of any kind, that were not recorded yet.
        self._full: _Entry | None = None
        self._last: _Entry | None = None
        self._is_closing = self._failed = False
        self._thread = threading.Thread(target=self._run, name="run-recorder", daemon=True)

    def start(self) -> None:
        """Begin to record what ``snapshot_written`` names."""
        self._thread.start()

    def close(self, *, failed: bool, timeout_s: float = 10.0) -> None:
        """Record the last snapshot and end the run, if that can be done in time."""
        with self._changed:
            self._is_closing, self._failed = True, failed
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("run_not_ended", extra={"reason": f"the tracker did not answer in {timeout_s} s"})

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """These metrics go with the next snapshot."""
        self._metrics = metrics

    def rejected(self, record: Record, reason: str) -> None:
        """No concern of a tracked run."""

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Record it, now if it is a full one, at the end if it is the last."""
        metrics = self._metrics.total.metrics() if self._metrics is not None else {}
        entry = _Entry(path=path, manifest=manifest, metrics=metrics)
        with self._changed:
            self._last = entry
            if _is_full(path):
                self._full = entry
                self._changed.notify()

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                if entry.metrics:
                    self._run_log.log_metrics(entry.metrics, entry.manifest.examples)
                self._run_log.log_snapshot(entry.path, entry.manifest)
            except Exception as error:  # noqa: BLE001
                # The thread's outermost loop: a tracker has errors of its own, and the next try may succeed.
                log.warning("run_not_recorded", extra={"path": str(entry.path), "reason": str(error)})
        try:
            self._run_log.finish(failed=self._failed)
        except Exception as error:  # noqa: BLE001
            log.warning("run_not_ended", extra={"reason": str(error)})

    def _next(self) -> _Entry | None:
        """What is to be recorded next; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._full is not None or self._is_closing)
            entry, self._full = self._last if self._is_closing else self._full, None
            if entry is self._last:
                self._last = None
            return entry


def _is_full(path: Path) -> bool:
    with suppress(SnapshotError):
        return read_manifest(path).kind == "full"
    return False
