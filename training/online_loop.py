"""Poll, predict, learn, publish, snapshot: the online learner's loop.

Every example is predicted before it is learned from, so the metrics are honest without a split.
Learning depends on the example log alone: neither the clock nor how a poll was cut changes a bit of
the model, which is why a restart from a snapshot ends where an undisturbed run would have ended.
The clock decides only when to publish and when to save; and, where the lag policy says so, how many
negatives are passed over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from recsys.errors import ConfigError, RecsysError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.interactions import ExampleBatch, begins_with_labels
from recsys.ranking.learner import RankingLearner
from recsys.ranking.statements import statements_of
from recsys.snapshots import Manifest
from recsys.table.table import check_event_time
from streaming.errors import OffsetLost, SourceUnavailable
from streaming.example_log import NO_MARK
from streaming.example_wire import ExampleMessage, decode_examples
from streaming.source import EventSource, Partition, Record
from training.checkpoints import Checkpoints
from training.errors import LayoutMismatch
from training.lag import Lag, LagConfig, next_share, thinned
from training.loop_status import LoopObserver, LoopStatus
from training.micro_batches import learn_in_pieces
from training.snapshot_rhythm import Saved, SnapshotPeriods, SnapshotRhythm
from training.sync import DeltaSync

__all__ = ["LoopConfig", "LoopObserver", "LoopStatus", "OnlineLoop"]

log = logging.getLogger(__name__)

_OUTAGE_WAIT_S = 0.2
_EVERY_ROW = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """What the loop learns from, and when it saves."""

    recipe: str
    """Name of the recipe, written into snapshots."""
    schema_fingerprint: int
    """Of the features that this model learns from; other examples are refused."""
    micro_batch: int = 64
    """Examples per learning step; > 0. Part of the model: another value gives another model."""
    snapshots: SnapshotPeriods = field(default_factory=SnapshotPeriods)
    """How often snapshots are taken."""
    lag: LagConfig = field(default_factory=LagConfig)
    """What happens when examples come faster than they are learned."""
    lag_period_ms: int = 1_000
    """Wall time between two looks at the log's end; > 0."""
    sweep_every_s: int = 3_600
    """Event time between two looks for expired rows, each at the whole table; > 0. Part of the model: which
    rows are gone must follow from the log, not from where a sweep stood when a trainer was killed."""
    snapshot_at: int = 0
    """Also save when this many showings are passed; 0 is never."""
    label_names: tuple[str, ...] = ()
    """The labels that are learned, in their order: examples must begin with them. Empty: any."""
    poll_timeout_s: float = 0.1
    """How long to wait for examples; bounds how late a due seal can be."""

    def __post_init__(self) -> None:
        for name in ("micro_batch", "lag_period_ms", "sweep_every_s"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


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
        self._rhythm = SnapshotRhythm(config.snapshots, checkpoints, learner, metrics)
        self.metrics = metrics
        self.status = LoopStatus()
        # Messages without rows move offsets twice a second for ever; they are no reason to save.
        self._has_news = False
        self._lag, self._lag_ms = Lag(), 0
        self._is_cut_off = False
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
        self.status.showings = round(self.metrics.total.stands_for)
        self.status.as_of_ms = manifest.as_of_ms
        self.status.marks = dict(manifest.marks)
        self.status.offsets = dict(manifest.source_offsets)
        self._source.seek({_partition(name): offset for name, offset in manifest.source_offsets.items()})

    def stop(self) -> None:
        """End after the batch in hand: seal, snapshot, return from ``run``."""
        self._stopping = True

    def run(self) -> None:
        """Loop until ``stop``. The first act is a full snapshot, so that replicas can find this start."""
        try:
            self._save(self._clock_ms(), full=True)
            while not self._stopping:
                before = self.status.showings
                self.poll_once()
                now_ms = self._clock_ms()
                if now_ms - self._lag_ms >= self._config.lag_period_ms:
                    self._look_at_lag(now_ms)
                if self._sync.is_due(now_ms):
                    self._seal()
                if self._passes_mark(before):
                    self._save(now_ms)
                else:
                    self._advance_snapshot(now_ms)
            self._save(self._clock_ms())
        finally:
            self._checkpoints.close()

    def _passes_mark(self, before: int) -> bool:
        return before < self._config.snapshot_at <= self.status.showings

    def poll_once(self) -> int:
        """Learn from what one poll brings; how many examples that was. A log out of reach brings nothing."""
        before = self.status.examples
        started = time.perf_counter()
        records = self._poll()
        polled = time.perf_counter()
        for record in records:
            self._learn_record(record)
        self.status.stage_s["poll"] += polled - started
        self.status.stage_s["learn"] += time.perf_counter() - polled
        return self.status.examples - before

    def _poll(self) -> list[Record]:
        try:
            records = self._source.poll(max_records=16, timeout_s=self._config.poll_timeout_s)
        except OffsetLost:
            raise
        except SourceUnavailable as error:
            if not self._is_cut_off:
                log.warning("examples_unreachable", extra={"reason": str(error)})
            self._is_cut_off = True
            # The source may refuse at once; it is asked again soon, not a thousand times a second.
            time.sleep(_OUTAGE_WAIT_S)
            return []
        self._is_cut_off = self._is_cut_off and not records
        return records

    def _learn_record(self, record: Record) -> None:
        at = f"{record.topic}/{record.partition}"
        try:
            message = decode_examples(record.value)
            if message.mark > self.status.marks.get(at, NO_MARK):
                if len(message.batch):
                    self._check_layout(message.batch)
                # Before the first step: a batch that fails half way is not learned from again either.
                self.status.marks[at] = message.mark
                self._has_news |= len(message.batch) > 0
                self._learn_message(message)
            else:
                self.status.void_messages += 1
        except LayoutMismatch:
            raise
        except RecsysError as error:
            log.warning("batch_rejected", extra={"offset": record.offset, "reason": str(error)})
            self._observer.rejected(record, str(error))
        self.status.offsets[at] = record.offset + 1

    def _check_layout(self, batch: ExampleBatch) -> None:
        if batch.schema_fingerprint != self._config.schema_fingerprint:
            raise LayoutMismatch(
                f"examples have feature schema {batch.schema_fingerprint:016x}, recipe "
                f"{self._config.recipe!r} wants {self._config.schema_fingerprint:016x}; join with this recipe"
            )
        wanted = self._config.label_names
        if not begins_with_labels(batch.label_names, wanted):
            raise LayoutMismatch(
                f"examples have labels {', '.join(batch.label_names)}, recipe {self._config.recipe!r} "
                f"wants {', '.join(wanted)}; join with this recipe"
            )

    def _learn_message(self, message: ExampleMessage) -> None:
        batch, status = message.batch, self.status
        if len(batch):
            newest_ms = int(batch.event_time_ms_B.max())
            check_event_time(int(batch.event_time_ms_B.min()) // 1000)
            check_event_time(newest_ms // 1000)
            learned = thinned(batch, status.share, self._config.lag.seed)
            period_before = self._learner.table.clock_s // self._config.sweep_every_s
            predicted_B = learn_in_pieces(self._learner, learned, self._config.micro_batch)
            if self._learner.table.clock_s // self._config.sweep_every_s > period_before:
                self._learner.table.sweep(_EVERY_ROW)
            self.metrics.add(predicted_B, learned.label_B, newest_ms, stated=statements_of(learned))
            status.showings = round(self.metrics.total.stands_for)
            status.as_of_ms = max(status.as_of_ms, newest_ms)
            status.examples += len(batch)
        status.watermark_ms = max(status.watermark_ms, message.watermark_ms)
        status.sent_at_ms = max(status.sent_at_ms, message.sent_at_ms)

    def _look_at_lag(self, now_ms: int) -> None:
        self._lag_ms = now_ms
        try:
            ends, positions = self._source.end_offsets(), self._source.positions()
        except SourceUnavailable:
            return
        status, before = self.status, self._lag
        status.lag_records = sum(max(0, end - positions.get(at, end)) for at, end in ends.items())
        # Where all is read, the newest message is old because nothing happened since.
        is_behind = status.lag_records > 0 and status.sent_at_ms > 0
        status.lag_ms = max(0, now_ms - status.sent_at_ms) if is_behind else 0
        self._lag = Lag(records=status.lag_records, wait_ms=status.lag_ms)
        share = next_share(status.share, before, self._lag, self._config.lag)
        if share != status.share:
            log.warning("negatives_thinned", extra={"share": share, "lag_records": status.lag_records})
            status.share = share

    def _seal(self) -> None:
        started = time.perf_counter()
        self._sync.seal(as_of_ms=self.status.as_of_ms, sealed_at_ms=self._clock_ms())
        self.status.stage_s["sync"] += time.perf_counter() - started
        self._observer.progressed(self.status, self.metrics)

    def _save(self, now_ms: int, *, full: bool = False) -> None:
        self._timed(lambda: self._rhythm.save(now_ms, self._sealed_manifest, full=full))

    def _advance_snapshot(self, now_ms: int) -> None:
        self._timed(lambda: self._rhythm.turn(now_ms, self._sealed_manifest, has_news=self._has_news))

    def _timed(self, step: Callable[[], Saved | None]) -> None:
        """Take a step towards a snapshot, and tell of the one that it finished."""
        started, sealing_s = time.perf_counter(), self.status.stage_s["sync"]
        saved = step()
        sealing_s = self.status.stage_s["sync"] - sealing_s
        self.status.stage_s["snapshot"] += time.perf_counter() - started - sealing_s
        self.status.snapshot_failures = self._rhythm.failures
        if saved is not None:
            self.status.saved_ms = self._rhythm.saved_ms
            self._has_news = False
            self._observer.snapshot_written(saved.path, saved.manifest)

    def _sealed_manifest(self) -> Manifest:
        """Where everything stands, all that was learned being in the delta log."""
        self._seal()
        return Manifest(
            model=self._sync.config.model,
            incarnation=self._sync.config.incarnation,
            table_sequence=self._sync.table_sequence,
            dense_sequence=self._sync.dense_sequence,
            delta_position=self._sync.position(),
            as_of_ms=self.status.as_of_ms,
            examples=self.status.examples,
            source_offsets=dict(self.status.offsets),
            marks=dict(self.status.marks),
            recipe=self._config.recipe,
            schema_fingerprint=self._config.schema_fingerprint,
        )


def _partition(name: str) -> Partition:
    topic, _, number = name.rpartition("/")
    return topic, int(number)
