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
    ModelChain,
    SnapshotDraft,
    chain_of,
    check_rows,
    clear_leftovers,
    drop_oldest,
    incarnation_of,
    read_dense,
    read_manifest,
    read_metrics,
    read_table,
    snapshots,
)
from recsys.table.table import EmbeddingTable
from training.folder_lock import FolderLock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Where snapshots are and how many of them stay."""

    folder: Path
    """Where snapshots are kept."""
    keep: int = 3
    """How many of the newest stay, with all that they build on; > 0. Where more than one stays and all
    build on one full snapshot, the newest of the chain before stays too."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"keep must be > 0, got {self.keep}")


class Checkpoints:
    """The snapshots of one training shard, which is the only writer of its folder. One caller at a time."""

    def __init__(self, config: CheckpointConfig) -> None:
        """Hold the folder until ``close``. Raises FolderInUse where another trainer holds it.

        One that cannot be made or locked costs a warning: each snapshot tries again.
        """
        self._config = config
        self._chain: ModelChain | None = None
        self._lock = FolderLock(config.folder)
        try:
            self._lock.take()
        except OSError as error:
            log.warning("folder_not_locked", extra={"path": str(config.folder), "reason": str(error)})

    @property
    def draft(self) -> SnapshotDraft | None:
        """The snapshot that is being written, if one is."""
        return self._chain.draft if self._chain is not None else None

    def begin(self, table: EmbeddingTable, *, full: bool) -> SnapshotDraft:
        """Begin a full snapshot, or an increment where there is something to follow.

        Raises SnapshotError when the disk does not let it, FolderInUse where another has taken the folder.
        """
        with suppress(OSError):
            self._lock.take()
        if self._chain is None:
            self._chain = ModelChain(self._config.folder, table)
        return self._chain.begin(full=full)

    def save(
        self, manifest: Manifest, learner: RankingLearner, metrics: ProgressiveMetrics, *, full: bool = False
    ) -> Path:
        """Finish the snapshot that is being written, else write one at once; then drop the oldest ones.

        Without ``full`` it is an increment where it can be. Raises SnapshotError when the disk does not
        take it; what changed is then in the next one.
        """
        draft = self.draft or self.begin(learner.table, full=full)
        path = draft.finish(manifest, learner.dense_state(), metrics.state())
        drop_oldest(self._config.folder, self._config.keep)
        clear_leftovers(self._config.folder)
        log.info("snapshot_written", extra={"path": str(path), "examples": manifest.examples})
        return path

    def close(self) -> None:
        """Drop what is being written, let go of table and folder; the next snapshot is a full one."""
        if self._chain is not None:
            self._chain.close()
            self._chain = None
        self._lock.drop()

    def restore(self, learner: RankingLearner, metrics: ProgressiveMetrics) -> Manifest | None:
        """Load the newest snapshot whose chain is whole and return its manifest; None where there is none.

        A damaged one is passed over with a warning, and so are those that build on it. Their incarnation
        published deltas all the same, so the manifest names the highest one that the folder knows: the
        next is then new to every replica. Raises SnapshotError when all are damaged: beginning anew would
        silently forget a model.
        """
        found = snapshots(self._config.folder)
        reason: SnapshotError | None = None
        damaged: dict[Path, SnapshotError | None] = {}
        for path in reversed(found):
            try:
                if reason is not None:
                    _check_chain(path, damaged)
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


def _check_chain(path: Path, known: dict[Path, SnapshotError | None]) -> None:
    """Raise what is wrong with a link of a snapshot's chain; no link is read a second time."""
    for link in chain_of(path):
        if link not in known:
            try:
                check_rows(link)
                known[link] = None
            except SnapshotError as error:
                known[link] = error
        if (reason := known[link]) is not None:
            raise reason
