"""The Kafka client against a real broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer  # noqa: TID251 (a product's own producer)

from infra.broker import EmbeddedBroker
from recsys.errors import ConfigError
from streaming.errors import OffsetLost, SinkUnavailable
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics
from streaming.kafka.sink import partition_of_key

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


def test_a_producer_that_leaves_the_choice_to_its_client_sends_a_key_to_the_same_partition(config, sink):
    source = KafkaSource(config, [("three", n) for n in range(3)])
    source.seek(source.end_offsets())
    product = KafkaProducer(bootstrap_servers=config.bootstrap)
    for n in range(30):
        sink.publish("three", b"%d" % n, b"ours")
        product.send("three", key=b"%d" % n, value=b"theirs")
    sink.flush()
    product.flush()
    product.close()
    homes = {}
    for record in read_all(source):
        homes.setdefault(record.value, {})[record.key] = record.partition
    assert homes[b"ours"] == homes[b"theirs"]
    assert len(homes[b"ours"]) == 30
    source.close()


# Signed hashes as the tests of Apache Kafka's Java client state them (UtilsTest.testMurmur2).
@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_goes_where_the_java_client_sends_it(key, murmur2):
    assert [partition_of_key(key, n) for n in (1, 3, 7, 64)] == [murmur2 % 2**31 % n for n in (1, 3, 7, 64)]


@given(st.binary(max_size=40), st.integers(1, 1024))
def test_every_key_has_a_partition(key, n_partitions):
    assert 0 <= partition_of_key(key, n_partitions) < n_partitions


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
