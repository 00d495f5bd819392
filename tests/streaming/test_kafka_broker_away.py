"""Source and sink while the broker is away for some seconds; tests/faults has the minute-long form."""

from __future__ import annotations

from contextlib import closing

import pytest
from broker_outages import (
    PARTITION,
    TOPIC,
    cut_connections,
    library_cleaned_up,
    live_through,
    read_until,
    settle,
    stopped_broker,
)

from infra.broker import EmbeddedBroker
from streaming.errors import OffsetLost, SinkUnavailable
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")


@pytest.fixture(autouse=True)
def nothing_is_left_for_other_tests():
    with library_cleaned_up():
        yield


@pytest.mark.parametrize("outage", [stopped_broker, cut_connections])
def test_an_outage_within_the_delivery_time_loses_nothing_repeats_nothing_and_keeps_the_order(outage):
    values, n_sent, refusals = live_through(outage, away_s=3)
    assert refusals > 0
    assert values == [b"before", *(b"%d" % n for n in range(n_sent)), b"after"]


def test_after_a_record_is_given_up_the_sink_says_so_and_then_works_again():
    values, _, refusals = live_through(stopped_broker, away_s=4, delivery_timeout_s=1.5)
    assert refusals > 0
    assert values[0] == b"before"
    assert values[-1] == b"after"


def test_a_broker_that_comes_back_without_its_log_is_noticed_by_the_source_and_survived_by_the_sink():
    with EmbeddedBroker() as broker:
        config = KafkaConfig(bootstrap=broker.bootstrap, timeout_s=2, silence_s=0.5)
        create_topics(broker.bootstrap, {TOPIC: 1})
        source, sink = KafkaSource(config, [PARTITION]), KafkaSink(config)
        with closing(source), closing(sink):
            for n in range(5):
                sink.publish(TOPIC, b"", b"%d" % n)
            sink.flush()
            read_until(source, lambda values: len(values) == 5)
            broker.stop()
            broker.start()
            create_topics(broker.bootstrap, {TOPIC: 1})
            with pytest.raises(OffsetLost, match="beyond the log's end 0"):
                read_until(source, lambda values: False)
            # The new broker does not know the producer: one refusal, then a new producer.
            sink.publish(TOPIC, b"", b"lost")
            with pytest.raises(SinkUnavailable, match="refused a record"):
                sink.flush()
            sink.publish(TOPIC, b"", b"new")
            settle(sink)
            source.seek({PARTITION: 0})
            assert read_until(source, bool) == [b"new"]
