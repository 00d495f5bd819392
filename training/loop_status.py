"""How far the online loop has come, and who is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest
from streaming.example_wire import Mark
from streaming.source import Record


@dataclass(slots=True)
class LoopStatus:
    """How far the loop has come; read by observers, written by the loop alone."""

    examples: int = 0
    """Learned since the model began: rows of the log. A showing with several labels may have several."""
    showings: int = 0
    """Showings that the metrics have counted: those of the whole stream, where negatives were sampled."""
    as_of_ms: int = 0
    """Event time of the newest example learned."""
    watermark_ms: int = 0
    """How far event time had come when the newest message was sent; 0: unknown."""
    sent_at_ms: int = 0
    """Wall clock of its joiner then; 0: unknown."""
    offsets: dict[str, int] = field(default_factory=dict)
    """Next offset to read, by "topic/partition"."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """The highest mark seen, by "topic/partition"."""
    void_messages: int = 0
    """Messages passed over because their marks do not rise: sent twice, or by a joiner that had ended."""
    lag_records: int = 0
    """Messages in the log that were not learned yet, when last asked for."""
    lag_ms: int = 0
    """How long the newest message learned had waited in the log; 0: unknown."""
    share: float = 1.0
    """Share of negatives that is learned; below 1 only where the lag policy thins."""
    saved_ms: int = 0
    """Wall clock at the newest snapshot; 0 before the first."""
    snapshot_failures: int = 0
    """Snapshots that could not be written."""
    stage_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("poll", "learn", "sync", "snapshot"), 0.0)
    )
    """Wall time by what it went into."""


class LoopObserver(Protocol):
    """Who is told about progress: metrics, an experiment tracker, a mirror of the snapshots."""

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """Called after each seal, from the loop's own thread."""

    def rejected(self, record: Record, reason: str) -> None:
        """Called for a message that cannot be learned from; the loop goes on after it."""

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Called when a snapshot is durable."""
