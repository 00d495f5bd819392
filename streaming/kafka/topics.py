"""Topics of a cluster: which there are, and making those that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from recsys.errors import ConfigError
from streaming.errors import SinkUnavailable, SourceUnavailable, StreamingError
from streaming.kafka.client import open_client
from streaming.kafka.config import KafkaConfig
from streaming.topics import TopicSpec


@dataclass(frozen=True, slots=True)
class ExistingTopic:
    """A topic as the broker has it."""

    name: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class TopicOutcome:
    """What became of one topic that was asked for."""

    spec: TopicSpec
    was_made: bool
    """False: it was there."""


def create_topics(cluster: KafkaConfig | str, partitions: Mapping[str, int]) -> None:
    """Make the topics that do not exist yet, with the broker's own settings. Raises SinkUnavailable.

    A bare host:port names a cluster without security.
    """
    with _admin(_config(cluster), SinkUnavailable) as admin:
        for name, count in partitions.items():
            with suppress(TopicAlreadyExistsError):
                admin.create_topics([NewTopic(name, num_partitions=count, replication_factor=1)])


def apply_topics(
    config: KafkaConfig, specs: Sequence[TopicSpec], *, replication: int = 1
) -> list[TopicOutcome]:
    """Make what is missing of ``specs``; nothing at all is made where one that exists has other partitions.

    Raises ConfigError for such a one, SinkUnavailable where no broker answers.
    """
    with _admin(config, SinkUnavailable) as admin:
        existing = {topic.name: topic for topic in _described(admin)}
        for spec in specs:
            has = existing.get(spec.name)
            if has is not None and has.partitions != spec.partitions:
                raise ConfigError(
                    f"topic {spec.name!r} has {has.partitions} partitions, {spec.partitions} are wanted; "
                    "keys and joiner state belong to a partition, so the count is never changed: "
                    "ask for the same, or drain the topic and delete it first"
                )
        for spec in specs:
            if spec.name not in existing:
                _make(admin, spec, replication)
        return [TopicOutcome(spec, spec.name not in existing) for spec in specs]


def existing_topics(config: KafkaConfig) -> list[ExistingTopic]:
    """What the broker has, by name. Raises SourceUnavailable where none answers."""
    with _admin(config, SourceUnavailable) as admin:
        return sorted(_described(admin), key=lambda topic: topic.name)


def partition_count(config: KafkaConfig, topic: str) -> int:
    """How many partitions a topic has. Raises SourceUnavailable where there is no broker or no such topic."""
    counts = {existing.name: existing.partitions for existing in existing_topics(config)}
    if topic not in counts:
        raise SourceUnavailable(f"no topic {topic!r} at {config.bootstrap}; run `headrace topics apply`")
    return counts[topic]


def reachable_topics(cluster: KafkaConfig | str, *, timeout_s: float) -> set[str]:
    """Names of the topics that a broker has. Raises SourceUnavailable where none answers in time."""
    with _admin(_config(cluster), SourceUnavailable, timeout_s=timeout_s) as admin:
        return set(admin.list_topics())


def _config(cluster: KafkaConfig | str) -> KafkaConfig:
    return KafkaConfig(bootstrap=cluster) if isinstance(cluster, str) else cluster


def _make(admin: Any, spec: TopicSpec, replication: int) -> None:
    settings = {
        "retention.ms": str(spec.retention_ms),
        "max.message.bytes": str(spec.max_record_bytes),
        "cleanup.policy": spec.cleanup,
        # What is written as it comes in is not packed a second time.
        "compression.type": "producer" if spec.compression == "none" else spec.compression,
    }
    # Two that apply at once: the later finds it made.
    with suppress(TopicAlreadyExistsError):
        admin.create_topics(
            [
                NewTopic(
                    spec.name,
                    num_partitions=spec.partitions,
                    replication_factor=replication,
                    topic_configs=settings,
                )
            ]
        )


def _described(admin: Any) -> list[ExistingTopic]:
    described = admin.describe_topics(admin.list_topics() or None)
    return [
        ExistingTopic(
            topic["name"],
            len(topic["partitions"]),
            max((len(one["replica_nodes"]) for one in topic["partitions"]), default=0),
        )
        for topic in described
        if not topic["is_internal"]
    ]


@contextmanager
def _admin(
    config: KafkaConfig, refusal: type[StreamingError], *, timeout_s: float | None = None
) -> Iterator[Any]:
    options = {} if timeout_s is None else {"bootstrap_timeout_ms": int(timeout_s * 1000)}
    admin = open_client(config, KafkaAdminClient, refusal, **options)
    try:
        yield admin
    except KafkaError as error:
        raise refusal(f"the broker at {config.bootstrap} refused: {error}") from error
    finally:
        admin.close()
