"""Poll, predict, learn, publish, snapshot: the online learner's loop.

Every example is predicted before it is learned from, so the metrics are honest without a split.
Learning depends on the example log alone: neither the clock nor how a poll was cut changes a bit of
the model, which is why a restart from a snapshot ends where an undisturbed run would have ended.
The clock decides only when to publish and when to save.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from recsys.errors import ConfigError, RecsysError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.interactions import ExampleBatch
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest
from recsys.table.table import check_event_time
from streaming.example_wire import decode_examples
from streaming.source import EventSource, Record
from training.checkpoints import Checkpoints
from training.errors import LayoutMismatch
from training.micro_batches import learn_in_pieces
from training.sync import DeltaSync

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """What the loop learns from, and when it publishes and saves."""

    recipe: str
    """Name of the recipe, written into snapshots."""
    schema_fingerprint: int
    """Of the features that this model learns from; other examples are refused."""
    micro_batch: int = 64
    """Examples per learning step; > 0. Part of the model: another value gives another model."""
    sync_period_ms: int = 400
    """Wall time between two seals of touched rows; > 0."""
    snapshot_period_ms: int = 30_000
    """Wall time between two snapshots; > 0."""
    sweep_rows: int = 4096
    """Rows that each message of examples looks at for expiry, in turn; > 0."""
    snapshot_at_examples: int = 0
    """Also save, once, when this many examples are learned; 0 is never."""
    poll_timeout_s: float = 0.1
    """How long to wait for examples; bounds how late a due seal can be."""

    def __post_init__(self) -> None:
        for name in ("micro_batch", "sync_period_ms", "snapshot_period_ms", "sweep_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(slots=True)
class LoopStatus:
    """How far the loop has come; read by observers, written by the loop alone."""

    examples: int = 0
    source_sequence: int = -1
    as_of_ms: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    stage_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("poll", "learn", "sync", "snapshot"), 0.0)
    )


class LoopObserver(Protocol):
    """Who is told about progress: metrics, an experiment tracker."""

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """Called after each seal, from the loop's own thread."""

    def rejected(self, record: Record, reason: str) -> None:
        """Called for a message that cannot be learned from; the loop goes on after it."""

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Called when a snapshot is durable."""


class OnlineLoop:
    """One training shard. Runs in one thread; ``stop`` may be called from any, or from a signal."""

    def __init__(
        self,
        config: LoopConfig,
        source: EventSource,
        learner: RankingLearner,
        sync: DeltaSync,
        checkpoints: Checkpoints,
        *,
        metrics: ProgressiveMetrics,
        observer: LoopObserver,
        clock_ms: Callable[[], int],
    ) -> None:
        self._config, self._source, self._learner = config, source, learner
        self._sync, self._checkpoints, self._observer = sync, checkpoints, observer
        self._clock_ms = clock_ms
        self.metrics = metrics
        self.status = LoopStatus()
        self._stopping = False

    def resume(self, manifest: Manifest) -> None:
        """Go on after ``manifest``, whose rows and dense state the learner already holds."""
        if manifest.schema_fingerprint != self._config.schema_fingerprint:
            raise LayoutMismatch(
                f"snapshot of {manifest.model!r} has feature schema {manifest.schema_fingerprint:016x}, "
                f"recipe {self._config.recipe!r} wants {self._config.schema_fingerprint:016x}; "
                "use the recipe that it was made with"
            )
        self.status.examples = manifest.examples
        self.status.as_of_ms = manifest.as_of_ms
        self.status.source_sequence = manifest.source_sequence
        self.status.offsets = dict(manifest.source_offsets)
        self._source.seek({_partition(name): offset for name, offset in manifest.source_offsets.items()})

    def stop(self) -> None:
        """End after the batch in hand: seal, snapshot, return from ``run``."""
        self._stopping = True

    def run(self) -> None:
        """Loop until ``stop``. The first act is a snapshot, so that replicas can find this start."""
        self._snapshot()
        sealed_ms = saved_ms = self._clock_ms()
        while not self._stopping:
            before = self.status.examples
            self.poll_once()
            now_ms = self._clock_ms()
            if now_ms - sealed_ms >= self._config.sync_period_ms:
                self._seal()
                sealed_ms = now_ms
            if now_ms - saved_ms >= self._config.snapshot_period_ms or self._passes_mark(before):
                self._snapshot()
                saved_ms = now_ms
        self._snapshot()

    def _passes_mark(self, before: int) -> bool:
        return before < self._config.snapshot_at_examples <= self.status.examples

    def poll_once(self) -> int:
        """Learn from what one poll brings; how many examples that was."""
        before = self.status.examples
        started = time.perf_counter()
        records = self._source.poll(max_records=16, timeout_s=self._config.poll_timeout_s)
        polled = time.perf_counter()
        for record in records:
            self._learn_record(record)
        self.status.stage_s["poll"] += polled - started
        self.status.stage_s["learn"] += time.perf_counter() - polled
        return self.status.examples - before

    def _learn_record(self, record: Record) -> None:
        try:
            message = decode_examples(record.value)
            # A producer that lost an acknowledgement sends a batch again under the same number.
            if message.sequence > self.status.source_sequence:
                self._check_layout(message.batch)
                # Before the first step: a batch that fails half way is not learned from again either.
                self.status.source_sequence = message.sequence
                self._learn_batch(message.batch)
        except LayoutMismatch:
            raise
        except RecsysError as error:
            log.warning("batch_rejected", extra={"offset": record.offset, "reason": str(error)})
            self._observer.rejected(record, str(error))
        self.status.offsets[f"{record.topic}/{record.partition}"] = record.offset + 1

    def _check_layout(self, batch: ExampleBatch) -> None:
        if batch.schema_fingerprint != self._config.schema_fingerprint:
            raise LayoutMismatch(
                f"examples have feature schema {batch.schema_fingerprint:016x}, recipe "
                f"{self._config.recipe!r} wants {self._config.schema_fingerprint:016x}; join with this recipe"
            )

    def _learn_batch(self, batch: ExampleBatch) -> None:
        if not len(batch):
            return
        newest_ms = int(batch.event_time_ms_B.max())
        check_event_time(int(batch.event_time_ms_B.min()) // 1000)
        check_event_time(newest_ms // 1000)
        predicted_B = learn_in_pieces(self._learner, batch, self._config.micro_batch)
        self._learner.table.sweep(self._config.sweep_rows)
        self.metrics.add(predicted_B, batch.label_B, newest_ms)
        self.status.as_of_ms = max(self.status.as_of_ms, newest_ms)
        self.status.examples += len(batch)

    def _seal(self) -> None:
        started = time.perf_counter()
        self._sync.seal(as_of_ms=self.status.as_of_ms, sealed_at_ms=self._clock_ms())
        self.status.stage_s["sync"] += time.perf_counter() - started
        self._observer.progressed(self.status, self.metrics)

    def _snapshot(self) -> None:
        self._seal()
        started = time.perf_counter()
        manifest = Manifest(
            model=self._sync.config.model,
            incarnation=self._sync.config.incarnation,
            table_sequence=self._sync.table_sequence,
            dense_sequence=self._sync.dense_sequence,
            delta_position=self._sync.position(),
            as_of_ms=self.status.as_of_ms,
            examples=self.status.examples,
            source_offsets=dict(self.status.offsets),
            source_sequence=self.status.source_sequence,
            recipe=self._config.recipe,
            schema_fingerprint=self._config.schema_fingerprint,
        )
        path = self._checkpoints.save(manifest, self._learner, self.metrics)
        self.status.stage_s["snapshot"] += time.perf_counter() - started
        self._observer.snapshot_written(path, manifest)


def _partition(name: str) -> tuple[str, int]:
    topic, _, number = name.rpartition("/")
    return topic, int(number)
