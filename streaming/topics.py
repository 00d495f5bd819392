"""The topics that make the loop, and what each asks of the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys.errors import ConfigError

IMPRESSIONS = "headrace.impressions.v1"
FEEDBACK = "headrace.feedback.v1"
EXAMPLES = "headrace.examples.v1"
DELTAS = "headrace.deltas.v1"
DEAD_LETTER = "headrace.dead-letter.v1"

ALL_TOPICS = (IMPRESSIONS, FEEDBACK, EXAMPLES, DELTAS, DEAD_LETTER)

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic as `headrace topics apply` makes it."""

    name: str
    partitions: int
    """> 0; never changed afterwards."""
    retention_ms: int
    """How long the broker keeps a record; > 0."""
    max_record_bytes: int
    """Largest batch that the broker takes; > 0."""
    cleanup: Literal["delete", "compact"] = "delete"
    compression: Literal["none", "gzip", "lz4", "zstd"] = "none"
    """What the broker packs records with; none: it keeps them as they come."""

    def __post_init__(self) -> None:
        for name in ("partitions", "retention_ms", "max_record_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of topic {self.name!r} must be > 0, got {getattr(self, name)}")


def topic_specs(partitions: int = 1) -> tuple[TopicSpec, ...]:
    """All topics of the loop, events and examples spread over ``partitions``.

    Impressions and feedback have equally many, because they are joined partition by partition; one
    joiner writes one partition of examples. A joiner and a trainer go back to what they had not yet
    finished, a replica to the newest snapshot: retention bounds how long each may be away.
    """
    return (
        TopicSpec(name=IMPRESSIONS, partitions=partitions, retention_ms=8 * _DAY_MS, max_record_bytes=_MIB),
        TopicSpec(name=FEEDBACK, partitions=partitions, retention_ms=8 * _DAY_MS, max_record_bytes=_MIB),
        TopicSpec(name=EXAMPLES, partitions=partitions, retention_ms=7 * _DAY_MS, max_record_bytes=16 * _MIB),
        TopicSpec(name=DELTAS, partitions=1, retention_ms=6 * _HOUR_MS, max_record_bytes=16 * _MIB),
        TopicSpec(name=DEAD_LETTER, partitions=1, retention_ms=30 * _DAY_MS, max_record_bytes=16 * _MIB),
    )
