"""Touched rows and dense parameters, on a period, to whoever serves them.

Rules (Monolith, sec. 2.2.3, and the wire's own in streaming/proto/delta.proto):
  * a delta carries whole rows, read when it is sealed; an absent key travels as expired;
  * the bytes under one (incarnation, sequence) never change, so what may not have arrived is sent
    again under a *new* number, based on the last one that surely arrived;
  * touched keys are a set: bounded by the number of distinct keys, never dropped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.ranking.learner import RankingLearner
from streaming.deltas import DeltaPublisher, DenseDelta, TableDelta
from streaming.errors import SinkUnavailable
from streaming.row_codecs import CODECS, CodecName, RowCodec
from training.sync_pace import next_period_ms, retry_after_ms

log = logging.getLogger(__name__)

Keys = NDArray[np.uint64]

ENVELOPE_BYTES = 512
"""More than a delta has besides its keys and rows, and the names of model and table."""
_KEY_BYTES = 8
_COSTS_KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """Which start of which model is published, how often, and in what pieces."""

    model: str
    """Lineage of the model, as in its snapshots."""
    incarnation: int
    """Of this start of the training shard."""
    codec: CodecName = "fp32"
    """How rows travel, and so what is served of them; replicas must be built with the same."""
    period_ms: int = 400
    """Longest wall time between two seals while something is learned; > 0."""
    shortest_period_ms: int = 100
    """Cheap seals come this often, or each ``period_ms`` where that is less; > 0."""
    dense_period_ms: int = 0
    """Dense parameters go out with the first seal after so much wall time; 0: with each."""
    heartbeat_ms: int = 5_000
    """While nothing is learned, a delta goes out this often: a replica can tell an idle trainer from a
    dead one; > 0. The longest wait after a failed seal, too."""
    delta_bytes: int = 4 * 1024 * 1024
    """A seal of more travels as several deltas, each at most this long, or of one row; > 0."""

    def __post_init__(self) -> None:
        for name in ("period_ms", "shortest_period_ms", "heartbeat_ms", "delta_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.dense_period_ms < 0:
            raise ConfigError(f"dense_period_ms must be >= 0, got {self.dense_period_ms}")
        if self.codec not in CODECS:
            raise ConfigError(f"codec must be one of {sorted(CODECS)}, got {self.codec!r}")


def rows_per_delta(config: SyncConfig, table: str, row_bytes: int) -> int:
    """How many rows of so many bytes fit into one delta of a table; at least one."""
    named = 3 * len((config.model + table).encode()) + ENVELOPE_BYTES
    return max(1, (config.delta_bytes - named) // (row_bytes + _KEY_BYTES))


class DeltaSync:
    """Seals what changed since the last seal. Called by the learner's own thread.

    Build it after the learner was restored: what is restored was sealed before, or is in a snapshot.
    ``stopwatch`` counts seconds; only the cost of a seal is read off it.
    """

    def __init__(
        self,
        learner: RankingLearner,
        publisher: DeltaPublisher,
        config: SyncConfig,
        *,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._learner, self._publisher, self.config = learner, publisher, config
        self._stopwatch = stopwatch
        self._codec = RowCodec.of(config.codec, learner.table.spec)
        self._chunk_rows = rows_per_delta(config, learner.table.spec.name, self._codec.row_bytes)
        self._follower = learner.table.follow()
        self._unsent: Keys = np.empty(0, np.uint64)
        self.table_sequence = 0
        self.dense_sequence = 0
        self._acknowledged = self._dense_acknowledged = 0
        self._sealed: tuple[int, int] | None = None
        self._dense_sent_ms: int | None = None
        self._tried_ms: int | None = None
        self._costs_s: deque[float] = deque(maxlen=_COSTS_KEPT)
        self.period_ms = min(config.shortest_period_ms, config.period_ms)
        self.failures = 0
        self.rows_sent = 0
        self.bytes_sent = 0

    @property
    def pending_rows(self) -> int:
        """Keys of failed seals that wait for the next one."""
        return len(self._unsent)

    def is_due(self, now_ms: int) -> bool:
        """Whether the next seal should come now, by the wall clock that ``seal`` is told."""
        # A clock that was set back must not hold up the next seal until it has caught up.
        return self._tried_ms is None or not 0 <= now_ms - self._tried_ms < self.period_ms

    def seal(self, *, as_of_ms: int, sealed_at_ms: int) -> bool:
        """Publish every row touched since the last seal, and the dense parameters where they are due.

        ``as_of_ms`` is the event time of the newest example learned, ``sealed_at_ms`` the wall
        clock. False when the log is out of reach: the rows stay pending for the next seal. Raises
        GradientError for a row with a NaN under a codec that has none; the rows then stay pending too.
        """
        begun_s, self._tried_ms = self._stopwatch(), sealed_at_ms
        changes = self._learner.table.drain(self._follower)
        keys = np.union1d(self._unsent, np.concatenate([changes.touched_N, changes.removed_N]))
        if not len(keys) and self._is_idle(as_of_ms, sealed_at_ms):
            self._costs_s.clear()
            self._set_period()
            return True
        # Whatever happens below, no touched key is forgotten.
        self._unsent = keys
        try:
            self._publish_rows(keys, as_of_ms, sealed_at_ms)
            has_dense = self._is_dense_due(sealed_at_ms)
            if has_dense:
                self._publish_dense(as_of_ms, sealed_at_ms)
            self._publisher.flush()
        except SinkUnavailable as error:
            self._postpone(error)
            return False
        self._unsent, self.failures = np.empty(0, np.uint64), 0
        self._acknowledged, self._dense_acknowledged = self.table_sequence, self.dense_sequence
        self._sealed = (as_of_ms, sealed_at_ms)
        if has_dense:
            self._dense_sent_ms = sealed_at_ms
        self.rows_sent += len(keys)
        self._costs_s.append(self._stopwatch() - begun_s)
        self._set_period()
        return True

    def position(self) -> int:
        """Offset in the delta log after everything that was sealed: where a replica reads on."""
        return self._publisher.position()

    def _set_period(self) -> None:
        config = self.config
        self.period_ms = next_period_ms(
            self._costs_s, shortest_ms=config.shortest_period_ms, longest_ms=config.period_ms
        )

    def _postpone(self, error: SinkUnavailable) -> None:
        self.failures += 1
        self.period_ms = retry_after_ms(
            self.failures, first_ms=self.config.period_ms, longest_ms=self.config.heartbeat_ms
        )
        log.warning("seal_postponed", extra={"rows": len(self._unsent), "reason": str(error)})

    def _is_idle(self, as_of_ms: int, now_ms: int) -> bool:
        """Whether nothing was learned since the last seal, which is not long ago."""
        if self._sealed is None:
            return False
        before_as_of_ms, before_ms = self._sealed
        return as_of_ms == before_as_of_ms and now_ms - before_ms < self.config.heartbeat_ms

    def _is_dense_due(self, now_ms: int) -> bool:
        sent_ms = self._dense_sent_ms
        return sent_ms is None or not 0 <= now_ms - sent_ms < self.config.dense_period_ms

    def _publish_rows(self, keys: Keys, as_of_ms: int, sealed_at_ms: int) -> None:
        # Without rows one delta still goes out: it says how far learning has come.
        starts = range(0, max(1, len(keys)), self._chunk_rows)
        base = self._acknowledged
        for start in starts:
            chunk, is_last = keys[start : start + self._chunk_rows], start == starts[-1]
            self.table_sequence += 1
            # Only the last one says that everything up to as_of_ms has arrived.
            delta = self._delta_of(chunk, base, as_of_ms * is_last, sealed_at_ms * is_last)
            self.bytes_sent += self._publisher.publish(delta)
            base = self.table_sequence

    def _delta_of(self, keys_N: Keys, base: int, as_of_ms: int, sealed_at_ms: int) -> TableDelta:
        table = self._learner.table
        rows_ND = table.lookup(keys_N)
        served_N = table.contains(keys_N)
        if table.spec.zeroes_rows:
            # A row of zeros reads as one that is not there, so it need not be served.
            served_N &= rows_ND.any(axis=1)
        return TableDelta(
            model=self.config.model,
            table=table.spec.name,
            spec_fingerprint=table.spec.fingerprint,
            shard=0,
            incarnation=self.config.incarnation,
            sequence=self.table_sequence,
            base_sequence=base,
            as_of_ms=as_of_ms,
            sealed_at_ms=sealed_at_ms,
            updated_keys=keys_N[served_N],
            rows=self._codec.pack(rows_ND[served_N]),
            expired_keys=keys_N[~served_N],
            codec=self.config.codec,
            dense_sequence=self._dense_acknowledged,
        )

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
