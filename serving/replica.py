"""A read-only copy of one training shard that follows its delta log while it serves.

What is learned is what is served: after a delta is applied, each of its rows equals the training
row as sealed, bit for bit, and an expired key is gone. A gap is never guessed over.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.errors import SnapshotError
from recsys.features import RaggedKeys
from recsys.ranking.scorer import RankingScorer
from recsys.ranking.tower import weights_in
from recsys.snapshots import Manifest, read_dense, read_manifest, read_table
from recsys.table.table import EmbeddingTable
from serving.errors import NotReady, SpecMismatch
from streaming.deltas import DenseDelta, TableDelta

Floats = NDArray[np.float32]


class ApplyOutcome(enum.Enum):
    """What became of one delta."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    STALE = "stale"
    FOREIGN = "foreign"
    SNAPSHOT_NEEDED = "snapshot_needed"


@dataclass(slots=True)
class Parameters:
    """One loaded model and how far it has followed its log."""

    scorer: RankingScorer
    table: EmbeddingTable
    manifest: Manifest
    table_sequence: int
    dense_sequence: int
    as_of_ms: int
    sealed_at_ms: int = 0

    @property
    def position(self) -> tuple[int, int]:
        """Later parameters of one model compare greater."""
        return (self.manifest.incarnation, self.table_sequence)

    def age_ms(self, now_ms: int) -> int | None:
        """Since the newest applied delta was sealed; before the first, since the newest example learned.

        None for a model that has learned nothing.
        """
        since_ms = self.sealed_at_ms or self.as_of_ms
        return max(0, now_ms - since_ms) if since_ms else None


class Replica:
    """Scores with the newest parameters it was given. One applying thread, any number of readers;
    a reader sees whole rows and one consistent set of dense weights."""

    def __init__(
        self, make_scorer: Callable[[], tuple[EmbeddingTable, RankingScorer]], schema_fingerprint: int
    ) -> None:
        self._make_scorer = make_scorer
        self._schema_fingerprint = schema_fingerprint
        self._parameters: Parameters | None = None
        self.ready = threading.Event()

    @property
    def parameters(self) -> Parameters:
        """What is served now. Raises NotReady before the first snapshot."""
        if self._parameters is None:
            raise NotReady("no parameters are loaded yet; start a trainer or name a snapshot, then retry")
        return self._parameters

    def score(self, keys: RaggedKeys) -> Floats:
        """Probability of the label for each row of features, (N,)."""
        return self.parameters.scorer.score(keys)

    def load(self, path: Path) -> Manifest:
        """Serve a snapshot from now on. Until it is loaded whole, the old parameters serve."""
        manifest = read_manifest(path)
        if manifest.schema_fingerprint != self._schema_fingerprint:
            raise SpecMismatch(
                f"snapshot {path.name} has feature schema {manifest.schema_fingerprint:016x}, "
                f"this server wants {self._schema_fingerprint:016x}; serve it with recipe {manifest.recipe!r}"
            )
        table, scorer = self._make_scorer()
        dense = read_dense(path, manifest)
        read_table(path, table)
        scorer.load_dense(weights_in(dense))
        self._parameters = Parameters(
            scorer=scorer,
            table=table,
            manifest=manifest,
            table_sequence=manifest.table_sequence,
            dense_sequence=manifest.dense_sequence,
            as_of_ms=manifest.as_of_ms,
        )
        self.ready.set()
        return manifest

    def apply(self, delta: TableDelta | DenseDelta) -> ApplyOutcome:
        """Fold one delta in, or say why not. Raises SpecMismatch for another table layout."""
        now = self.parameters
        if delta.model != now.manifest.model:
            return ApplyOutcome.FOREIGN
        if isinstance(delta, TableDelta) and delta.spec_fingerprint != now.table.spec.fingerprint:
            raise SpecMismatch(
                f"table {delta.table!r} shard {delta.shard}: delta {delta.sequence} has layout "
                f"{delta.spec_fingerprint:016x}, want {now.table.spec.fingerprint:016x}; use one recipe"
            )
        if delta.incarnation != now.manifest.incarnation:
            is_newer = delta.incarnation > now.manifest.incarnation
            return ApplyOutcome.SNAPSHOT_NEEDED if is_newer else ApplyOutcome.STALE
        return _apply_rows(delta, now) if isinstance(delta, TableDelta) else _apply_dense(delta, now)


def _apply_rows(delta: TableDelta, now: Parameters) -> ApplyOutcome:
    if delta.sequence <= now.table_sequence:
        return ApplyOutcome.DUPLICATE
    if delta.base_sequence > now.table_sequence:
        return ApplyOutcome.SNAPSHOT_NEEDED
    # A delta of expired keys alone has no rows, and so no width that a table could check.
    if len(delta.updated_keys):
        now.table.assign(delta.updated_keys, delta.rows)
    now.table.erase(delta.expired_keys)
    now.table_sequence = delta.sequence
    # The age moves only after the last row of a seal is in place.
    now.as_of_ms = max(now.as_of_ms, delta.as_of_ms)
    return ApplyOutcome.APPLIED


def _apply_dense(delta: DenseDelta, now: Parameters) -> ApplyOutcome:
    if delta.sequence <= now.dense_sequence:
        return ApplyOutcome.DUPLICATE
    # Dense parameters travel whole, so a missing one in between is harmless.
    now.scorer.load_dense(delta.tensors)
    now.dense_sequence = delta.sequence
    now.sealed_at_ms = delta.sealed_at_ms
    return ApplyOutcome.APPLIED


def newest_first(paths: list[Path], model: str) -> list[Path]:
    """Snapshots of ``model`` whose manifests can be read, the newest first."""
    found: list[tuple[tuple[int, int, int], Path]] = []
    for path in paths:
        with suppress(SnapshotError):
            manifest = read_manifest(path)
            if manifest.model == model:
                found.append((manifest.position, path))
    return [path for _, path in sorted(found, reverse=True)]
