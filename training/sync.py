"""Touched rows and dense parameters, on a period, to whoever serves them.

Rules (Monolith, sec. 2.2.3, and the wire's own in streaming/proto/delta.proto):
  * a delta carries whole rows, read when it is sealed; an absent key travels as expired;
  * the bytes under one (incarnation, sequence) never change, so what may not have arrived is sent
    again under a *new* number, based on the last one that surely arrived;
  * touched keys are a set: bounded by the number of distinct keys, never dropped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.ranking.learner import RankingLearner
from streaming.deltas import DeltaPublisher, DenseDelta, TableDelta
from streaming.errors import SinkUnavailable

log = logging.getLogger(__name__)

Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """Which start of which model is published, and in what pieces."""

    model: str
    """Lineage of the model, as in its snapshots."""
    incarnation: int
    """Of this start of the training shard."""
    heartbeat_ms: int = 5_000
    """While nothing is learned, dense weights go out this often: a replica can tell an idle trainer from
    a dead one; > 0."""
    rows_per_delta: int = 4096
    """A seal of more rows travels as several deltas; > 0."""

    def __post_init__(self) -> None:
        for name in ("heartbeat_ms", "rows_per_delta"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


class DeltaSync:
    """Seals what changed since the last seal. Called by the learner's own thread.

    Build it after the learner was restored: what is restored was sealed before, or is in a snapshot.
    """

    def __init__(self, learner: RankingLearner, publisher: DeltaPublisher, config: SyncConfig) -> None:
        self._learner, self._publisher, self.config = learner, publisher, config
        self._follower = learner.table.follow()
        self._unsent: Keys = np.empty(0, np.uint64)
        self.table_sequence = 0
        self.dense_sequence = 0
        self._acknowledged = 0
        self._sealed: tuple[int, int] | None = None
        self.rows_sent = 0
        self.bytes_sent = 0

    def seal(self, *, as_of_ms: int, sealed_at_ms: int) -> bool:
        """Publish every row touched since the last seal and the dense parameters.

        ``as_of_ms`` is the event time of the newest example learned, ``sealed_at_ms`` the wall
        clock. False when the log is out of reach: the rows stay pending for the next seal.
        """
        changes = self._learner.table.drain(self._follower)
        keys = np.union1d(self._unsent, np.concatenate([changes.touched_N, changes.removed_N]))
        if not len(keys) and self._is_idle(as_of_ms, sealed_at_ms):
            return True
        try:
            self._publish_rows(keys, as_of_ms, sealed_at_ms)
            self._publish_dense(as_of_ms, sealed_at_ms)
            self._publisher.flush()
        except SinkUnavailable as error:
            self._unsent = keys
            log.warning("seal_postponed", extra={"rows": len(keys), "reason": str(error)})
            return False
        self._unsent = np.empty(0, np.uint64)
        self._acknowledged = self.table_sequence
        self._sealed = (as_of_ms, sealed_at_ms)
        self.rows_sent += len(keys)
        return True

    def _is_idle(self, as_of_ms: int, now_ms: int) -> bool:
        """Whether nothing was learned since the last seal, which is not long ago."""
        if self._sealed is None:
            return False
        before_as_of_ms, before_ms = self._sealed
        return as_of_ms == before_as_of_ms and now_ms - before_ms < self.config.heartbeat_ms

    def position(self) -> int:
        """Offset in the delta log after everything that was sealed: where a replica reads on."""
        return self._publisher.position()

    def _publish_rows(self, keys: Keys, as_of_ms: int, sealed_at_ms: int) -> None:
        table, size = self._learner.table, self.config.rows_per_delta
        chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
        base = self._acknowledged
        for number, chunk in enumerate(chunks):
            rows = table.lookup(chunk)
            served = table.contains(chunk)
            if table.spec.zeroes_rows:
                # A row of zeros reads as one that is not there, so it need not be served.
                served &= rows.any(axis=1)
            self.table_sequence += 1
            self.bytes_sent += self._publisher.publish(
                TableDelta(
                    model=self.config.model,
                    table=table.spec.name,
                    spec_fingerprint=table.spec.fingerprint,
                    shard=0,
                    incarnation=self.config.incarnation,
                    sequence=self.table_sequence,
                    base_sequence=base,
                    # Only the last chunk says that everything up to as_of_ms has arrived.
                    as_of_ms=as_of_ms if number == len(chunks) - 1 else 0,
                    sealed_at_ms=sealed_at_ms,
                    updated_keys=chunk[served],
                    rows=rows[served],
                    expired_keys=chunk[~served],
                )
            )
            base = self.table_sequence

    def _publish_dense(self, as_of_ms: int, sealed_at_ms: int) -> None:
        self.dense_sequence += 1
        self.bytes_sent += self._publisher.publish(
            DenseDelta(
                model=self.config.model,
                incarnation=self.config.incarnation,
                sequence=self.dense_sequence,
                as_of_ms=as_of_ms,
                sealed_at_ms=sealed_at_ms,
                tensors=self._learner.dense_weights(),
            )
        )
