"""Opening clients leaves the log of the library as it was."""

from __future__ import annotations

import logging
import threading

import pytest

from infra.child_process import free_port
from streaming.errors import SinkUnavailable, SourceUnavailable
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource
from streaming.kafka.client import open_client

CONFIG = KafkaConfig(bootstrap="127.0.0.1:1", connect_timeout_s=0.3)
LOG = logging.getLogger("kafka.net.manager")


def test_two_openings_of_which_the_first_ends_first_leave_the_librarys_log_as_it_was():
    before = LOG.level, LOG.propagate, LOG.handlers[:]
    first_ends, first_is_in = threading.Event(), threading.Event()

    def wait(**_):
        first_is_in.set()
        assert first_ends.wait(10)

    first = threading.Thread(target=open_client, args=(CONFIG, wait, SourceUnavailable))
    first.start()
    assert first_is_in.wait(10)

    def outlive(**_):
        first_ends.set()
        first.join()
        assert not LOG.propagate, "it still listens"

    open_client(CONFIG, outlive, SourceUnavailable)
    assert (LOG.level, LOG.propagate, LOG.handlers) == before


def test_a_sink_that_opens_late_is_made_without_a_broker_and_refuses_what_it_cannot_send():
    sink = KafkaSink(CONFIG, opens_late=True)
    with pytest.raises(SinkUnavailable, match="no broker at"):
        sink.publish("topic", b"", b"")
    sink.flush()
    sink.close()


def test_a_client_that_cannot_be_made_leaves_no_thread_behind() -> None:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("kafka-io")}
    config = KafkaConfig(bootstrap=f"127.0.0.1:{free_port()}", connect_timeout_s=0.3)
    with pytest.raises(SourceUnavailable):
        KafkaSource(config, [("topic", 0)])
    assert {thread for thread in threading.enumerate() if thread.name.startswith("kafka-io")} <= before
