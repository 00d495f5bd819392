"""When snapshots begin and end beside learning, and what happens when one cannot be written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import ConfigError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest
from training.checkpoints import Checkpoints

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPeriods:
    """How often snapshots are taken, and how they share the loop's thread with learning."""

    period_ms: int = 5_000
    """Wall time from the beginning of one snapshot to that of the next; > 0."""
    full_period_ms: int = 300_000
    """Wall time from one full snapshot to the next, in which others are increments; > 0."""
    rows_per_turn: int = 8_192
    """Rows that are written between two polls, at most; > 0."""

    def __post_init__(self) -> None:
        for name in ("period_ms", "full_period_ms", "rows_per_turn"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A snapshot that is durable now."""

    path: Path
    manifest: Manifest
    """As it was asked for: without what the snapshot's files add."""


class SnapshotRhythm:
    """Takes snapshots of a learner in small steps between its batches. Called by the learner's own thread.

    One that cannot be written costs a warning and is dropped; learning goes on, and the next holds what
    it would have held.
    """

    def __init__(
        self,
        periods: SnapshotPeriods,
        checkpoints: Checkpoints,
        learner: RankingLearner,
        metrics: ProgressiveMetrics,
    ) -> None:
        self._periods, self._checkpoints = periods, checkpoints
        self._learner, self._metrics = learner, metrics
        self._begun_ms = self._full_ms = 0
        self._is_owed = False
        self.saved_ms = 0
        self.failures = 0

    def save(self, now_ms: int, manifest: Callable[[], Manifest], *, full: bool = False) -> Saved | None:
        """Finish the snapshot in the making, else take one at once; None where it cannot be written.

        ``manifest`` tells where everything stands, and is asked at that moment.
        """
        if full:
            self._full_ms = now_ms
        if full or self._checkpoints.draft is None:
            self._begun_ms = now_ms
        stands = manifest()
        try:
            path = self._checkpoints.save(stands, self._learner, self._metrics, full=full)
        except SnapshotError as error:
            self._failed(error)
            return None
        self.saved_ms, self._is_owed = now_ms, False
        return Saved(path=path, manifest=stands)

    def turn(self, now_ms: int, manifest: Callable[[], Manifest], *, has_news: bool) -> Saved | None:
        """Write some rows of the snapshot in the making, or begin the one that is due; the one that is done.

        Without news since the last one only full snapshots are taken, and one for each that failed: a
        replica must find one that is younger than the delta log's oldest record.
        """
        draft = self._checkpoints.draft
        if draft is None:
            self._begin_if_due(now_ms, has_news=has_news)
            return None
        try:
            if not draft.advance(self._periods.rows_per_turn):
                return None
        except SnapshotError as error:
            self._failed(error)
            return None
        return self.save(now_ms, manifest)

    def _begin_if_due(self, now_ms: int, *, has_news: bool) -> None:
        if now_ms - self._begun_ms < self._periods.period_ms:
            return
        is_full = now_ms - self._full_ms >= self._periods.full_period_ms
        if not (has_news or is_full or self._is_owed):
            return
        self._begun_ms = now_ms
        if is_full:
            self._full_ms = now_ms
        try:
            self._checkpoints.begin(self._learner.table, full=is_full)
        except SnapshotError as error:
            self._failed(error)

    def _failed(self, error: SnapshotError) -> None:
        self.failures += 1
        self._is_owed = True
        log.warning("snapshot_failed", extra={"failures": self.failures, "reason": str(error)})
