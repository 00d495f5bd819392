"""A broker that goes away and comes back, and a source and a sink that live through it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress

from infra.broker import EmbeddedBroker
from infra.child_process import free_port
from streaming.errors import SinkUnavailable
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics

TOPIC, PARTITION = "one", ("one", 0)


class Proxy:
    """Passes connections on to a port until it is told to cut them. Ends with its context."""

    def __init__(self, target):
        self.target, self.is_cut, self.ends = target, threading.Event(), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.cut()

    def cut(self):
        """Close what is open, and from now on everything as it comes."""
        self.is_cut.set()
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self.is_cut.clear()

    def accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.is_cut.is_set():
                    client.close()
                else:
                    threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as broker:
            self.ends += [client, broker]
            other = threading.Thread(target=pipe, args=(broker, client), daemon=True)
            other.start()
            pipe(client, broker)
            other.join()


def pipe(source, target):
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def stopped_broker():
    """(bootstrap, go away, come back): the process is stopped, connections stay open and silent."""
    with EmbeddedBroker() as broker:
        yield (
            broker.bootstrap,
            lambda: os.kill(broker.pid, signal.SIGSTOP),
            lambda: os.kill(broker.pid, signal.SIGCONT),
        )


@contextmanager
def cut_connections():
    """(bootstrap, go away, come back): connections are closed, and every new one at once."""
    port = free_port()
    with Proxy(port) as proxy, EmbeddedBroker(port=port, advertised=proxy.address):
        yield proxy.address, proxy.cut, proxy.mend


def live_through(outage, away_s, *, delivery_timeout_s=120.0):
    """Write before, while and after the broker is away; what a source has read in the end, by value."""
    with outage() as (bootstrap, go_away, come_back):
        create_topics(bootstrap, {TOPIC: 1})
        config = KafkaConfig(
            bootstrap=bootstrap, timeout_s=1, delivery_timeout_s=delivery_timeout_s, silence_s=1
        )
        with closing(KafkaSource(config, [PARTITION])) as source, closing(KafkaSink(config)) as sink:
            sink.publish(TOPIC, b"", b"before")
            sink.flush()
            values = read_until(source, lambda values: b"before" in values)
            go_away()
            refusals, n_sent, back_at = 0, 0, time.monotonic() + away_s
            try:
                while time.monotonic() < back_at:
                    try:
                        sink.publish(TOPIC, b"", b"%d" % n_sent)
                        n_sent += 1
                        sink.flush()
                    except SinkUnavailable:
                        refusals += 1
                    values += [r.value for r in source.poll(max_records=100, timeout_s=0.1)]
            finally:
                come_back()
            settle(sink)
            sink.publish(TOPIC, b"", b"after")
            sink.flush()
            values += read_until(source, lambda values: b"after" in values)
            return values, n_sent, refusals


@contextmanager
def library_cleaned_up():
    """Wait for the threads begun inside, then collect: the library leaves sockets of failed attempts open.

    What it logs holds on to them, so it is silenced, as it is in our processes.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    gc.collect()


def settle(sink, deadline_s=30):
    """Flush until it works."""
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            return sink.flush()
        except SinkUnavailable:
            assert time.monotonic() < deadline, "the sink did not recover"
            time.sleep(0.05)


def read_until(source, is_done, deadline_s=30):
    values, deadline = [], time.monotonic() + deadline_s
    while not is_done(values):
        assert time.monotonic() < deadline, f"the source did not recover; it has read {values}"
        values += [record.value for record in source.poll(max_records=100, timeout_s=0.1)]
    return values
