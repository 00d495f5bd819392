"""Save and restore a learner with its source offsets inside.

A crash repeats, it never loses: the offsets in a snapshot are those of the first example that the
snapshot has not learned, so reading on from them gives what an undisturbed run would have given.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from recsys.errors import ConfigError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import (
    Manifest,
    clear_leftovers,
    drop_snapshot,
    incarnation_of,
    read_dense,
    read_manifest,
    read_metrics,
    read_table,
    snapshots,
    write_snapshot,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Where snapshots are and how many of them stay."""

    folder: Path
    """Where snapshots are kept."""
    keep: int = 3
    """How many of the newest stay; > 0."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"keep must be > 0, got {self.keep}")


class Checkpoints:
    """The snapshots of one training shard, which is the only writer of its folder. One caller at a time."""

    def __init__(self, config: CheckpointConfig) -> None:
        self._config = config

    def save(self, manifest: Manifest, learner: RankingLearner, metrics: ProgressiveMetrics) -> Path:
        """Write a snapshot, then drop the oldest beyond ``keep``."""
        dense = learner.dense_state()
        path = write_snapshot(self._config.folder, manifest, learner.table, dense, metrics.state())
        for old in snapshots(self._config.folder)[: -self._config.keep]:
            # One that will not go yet is dropped with the next.
            with suppress(OSError):
                drop_snapshot(old)
        clear_leftovers(self._config.folder)
        log.info("snapshot_written", extra={"path": str(path), "examples": manifest.examples})
        return path

    def restore(self, learner: RankingLearner, metrics: ProgressiveMetrics) -> Manifest | None:
        """Load the newest snapshot that is whole and return its manifest; None where there is none.

        A damaged one is passed over with a warning. Its incarnation published deltas all the same, so the
        manifest names the highest one that the folder knows: the next is then new to every replica.
        Raises SnapshotError when all are damaged: beginning anew would silently forget a model.
        """
        found = snapshots(self._config.folder)
        reason: SnapshotError | None = None
        for path in reversed(found):
            try:
                manifest = restore_from(path, learner, metrics)
                highest = max(manifest.incarnation, *map(incarnation_of, found))
                return manifest.model_copy(update={"incarnation": highest})
            except SnapshotError as error:
                log.warning("snapshot_skipped", extra={"path": str(path), "reason": str(error)})
                reason = error
        if found:
            raise SnapshotError(
                f"{self._config.folder}: none of {len(found)} snapshots can be loaded ({reason}); "
                "restore one or clear the folder"
            ) from reason
        return None


def restore_from(path: Path, learner: RankingLearner, metrics: ProgressiveMetrics | None = None) -> Manifest:
    """Load one snapshot into a learner; every part is verified before the first one is loaded."""
    manifest = read_manifest(path)
    dense: dict[str, NDArray[Any]] = read_dense(path, manifest)
    saved_metrics = read_metrics(path, manifest)
    read_table(path, learner.table)
    learner.load_dense_state(dense)
    if metrics is not None:
        metrics.load_state(saved_metrics)
    return manifest
