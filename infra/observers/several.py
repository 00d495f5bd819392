"""One loop told to several observers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest
from streaming.source import Record
from training.loop_status import LoopObserver, LoopStatus


class Observers:
    """A LoopObserver that passes on what it is told, in order. Called from the loop's thread."""

    def __init__(self, observers: Sequence[LoopObserver]) -> None:
        self._observers = observers

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """As LoopObserver says."""
        for observer in self._observers:
            observer.progressed(status, metrics)

    def rejected(self, record: Record, reason: str) -> None:
        """As LoopObserver says."""
        for observer in self._observers:
            observer.rejected(record, reason)

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """As LoopObserver says."""
        for observer in self._observers:
            observer.snapshot_written(path, manifest)
