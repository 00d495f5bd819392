"""The Kafka client against a real broker."""

from __future__ import annotations

import pytest

from infra.broker import EmbeddedBroker
from recsys.errors import ConfigError
from streaming.errors import OffsetLost, SinkUnavailable
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics

TOPICS = {"one": 1, "three": 3}


@pytest.fixture(scope="module")
def config():
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, TOPICS)
        create_topics(broker.bootstrap, TOPICS)
        yield KafkaConfig(bootstrap=broker.bootstrap, timeout_s=10)


@pytest.fixture
def sink(config):
    sink = KafkaSink(config)
    yield sink
    sink.close()


def read_all(source):
    records = []
    while source.positions() != source.end_offsets():
        records += source.poll(max_records=1000, timeout_s=0.5)
    return records


def test_records_come_back_whole_and_in_order_and_the_end_is_exact(config, sink):
    source = KafkaSource(config, [("one", 0)])
    values = [bytes([n % 256]) * n for n in range(0, 3000, 7)]
    for value in values:
        sink.publish("one", b"key", value)
    sink.flush()
    # The broker itself would name the start of the newest batch.
    assert source.end_offsets() == {("one", 0): len(values)}
    assert sink.position("one", 0) == len(values)
    records = read_all(source)
    assert [(r.offset, r.key, r.value) for r in records] == [(n, b"key", v) for n, v in enumerate(values)]
    source.seek({("one", 0): 400})
    assert [record.offset for record in read_all(source)] == list(range(400, len(values)))
    with pytest.raises(OffsetLost, match="is beyond the log's end"):
        source.seek({("one", 0): len(values) + 1})
    source.close()


def test_equal_keys_share_a_partition_and_keys_spread(config, sink):
    source = KafkaSource(config, [("three", n) for n in range(3)])
    for n in range(60):
        sink.publish("three", b"user-%d" % (n % 20), b"")
    sink.publish("three", b"user-0", b"named", partition=2)
    sink.flush()
    homes = {}
    for record in read_all(source):
        if record.value != b"named":
            homes.setdefault(record.key, set()).add(record.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert set.union(*homes.values()) == {0, 1, 2}
    source.close()


def test_a_record_of_four_mebibytes_passes_and_one_over_the_limit_is_refused(config, sink):
    sink.publish("one", b"", bytes(4 << 20))
    sink.flush()
    with pytest.raises(SinkUnavailable, match="takes no records"):
        sink.publish("one", b"", bytes(config.max_record_bytes + 1))


def test_a_partition_that_is_not_read_cannot_be_sought(config):
    source = KafkaSource(config, [("three", 0)])
    with pytest.raises(ConfigError, match="is not read here"):
        source.seek({("three", 1): 0})
    source.close()


def test_an_address_without_a_port_is_refused():
    with pytest.raises(ConfigError, match="host:port"):
        KafkaConfig(bootstrap="localhost")
