"""Topics are made once, as their table says, and never changed."""

from __future__ import annotations

from contextlib import closing

import pytest

from infra.broker import EmbeddedBroker
from recsys.errors import ConfigError
from streaming.errors import SinkUnavailable, SourceUnavailable
from streaming.kafka import (
    KafkaConfig,
    KafkaSink,
    KafkaSource,
    apply_topics,
    existing_topics,
    partition_count,
)
from streaming.topics import ALL_TOPICS, EXAMPLES, FEEDBACK, IMPRESSIONS, TopicSpec, topic_specs


@pytest.fixture(scope="module")
def config():
    with EmbeddedBroker() as broker:
        yield KafkaConfig(bootstrap=broker.bootstrap, timeout_s=5)


def test_topics_are_made_once_and_a_second_time_nothing_is_made(config):
    first = apply_topics(config, topic_specs(partitions=3))
    assert all(outcome.was_made for outcome in first)
    assert not any(outcome.was_made for outcome in apply_topics(config, topic_specs(partitions=3)))
    counts = {topic.name: topic.partitions for topic in existing_topics(config)}
    assert set(counts) == set(ALL_TOPICS)
    assert counts[IMPRESSIONS] == counts[FEEDBACK] == counts[EXAMPLES] == 3
    assert partition_count(config, EXAMPLES) == 3


def test_another_partition_count_is_refused_and_nothing_is_made(config):
    apply_topics(config, [TopicSpec(name="two", partitions=2, retention_ms=1, max_record_bytes=1)])
    wanted = [
        TopicSpec(name="fresh", partitions=1, retention_ms=1, max_record_bytes=1),
        TopicSpec(name="two", partitions=4, retention_ms=1, max_record_bytes=1),
    ]
    with pytest.raises(ConfigError, match="'two' has 2 partitions, 4 are wanted"):
        apply_topics(config, wanted)
    assert "fresh" not in {topic.name for topic in existing_topics(config)}


def test_a_topic_that_does_not_exist_has_no_partitions(config):
    with pytest.raises(SourceUnavailable, match="run `headrace topics apply`"):
        partition_count(config, "absent")


def test_packed_records_come_back_whole(config):
    packing = KafkaConfig(bootstrap=config.bootstrap, compression="gzip", idempotent=False)
    apply_topics(
        config, [TopicSpec(name="packed", partitions=1, retention_ms=10**9, max_record_bytes=1 << 20)]
    )
    with closing(KafkaSink(packing)) as sink, closing(KafkaSource(config, [("packed", 0)])) as source:
        values = [b"again and again " * n for n in range(200)]
        for value in values:
            sink.publish("packed", b"", value)
        sink.flush()
        read = []
        while source.positions() != source.end_offsets():
            read += [record.value for record in source.poll(max_records=100, timeout_s=0.5)]
        assert read == values


def test_without_a_broker_the_refusal_names_the_address():
    nowhere = KafkaConfig(bootstrap="127.0.0.1:1", connect_timeout_s=0.5)
    with pytest.raises(SinkUnavailable, match=r"no broker at 127\.0\.0\.1:1 lets us in: .*REFUSED"):
        apply_topics(nowhere, topic_specs())


def test_a_topic_without_partitions_is_refused():
    with pytest.raises(ConfigError, match="partitions of topic 'none'"):
        TopicSpec(name="none", partitions=0, retention_ms=1, max_record_bytes=1)
