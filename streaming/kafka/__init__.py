"""Kafka behind the source and sink protocols: the one package that imports the client."""

from streaming.kafka.config import KafkaConfig, KafkaSecurity
from streaming.kafka.group import GroupConfig, GroupSource
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource
from streaming.kafka.topics import (
    ExistingTopic,
    TopicOutcome,
    apply_topics,
    create_topics,
    existing_topics,
    partition_count,
    reachable_topics,
)

__all__ = [
    "ExistingTopic",
    "GroupConfig",
    "GroupSource",
    "KafkaConfig",
    "KafkaSecurity",
    "KafkaSink",
    "KafkaSource",
    "TopicOutcome",
    "apply_topics",
    "create_topics",
    "existing_topics",
    "partition_count",
    "reachable_topics",
]
