"""A cluster as an EventSink: batches, acknowledged by every in-sync replica."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from streaming.errors import SinkUnavailable
from streaming.kafka.client import compression_type, open_client
from streaming.kafka.config import KafkaConfig
from streaming.source import Partition

_GRACE_S = 5.0
"""A producer that says nothing for so long after its own time limit is stuck."""


def partition_of_key(key: bytes, n_partitions: int) -> int:
    """Where a record of this key goes: as the clients of Apache Kafka choose by default.

    A product's own producer, in any language, so sends feedback to the partition of its impression.
    """
    # murmur2 is signed in Java, which takes its sign away rather than its absolute value.
    return int(murmur2(key) & 0x7FFFFFFF) % n_partitions if n_partitions > 1 else 0


class KafkaSink:
    """An EventSink that sends in batches and waits for every in-sync replica. Any number of callers.

    A record without a partition goes by its key, as ``partition_of_key`` says.

    An outage shorter than ``delivery_timeout_s`` costs only waiting: what was published meanwhile goes
    out afterwards, once and in order. When a record is given up, or refused because the broker forgot
    its producers, SinkUnavailable is raised once; all that was unacknowledged is dropped, and the next
    publish begins with a new producer. A producer that has failed is dead for ever.
    """

    def __init__(self, config: KafkaConfig, *, opens_late: bool = False) -> None:
        """Connect now, or with ``opens_late`` at the first publish. Raises SinkUnavailable."""
        self._config = config
        self._compression = compression_type(config)
        self._lock = threading.Lock()
        self._unacknowledged: deque[tuple[Any, int, float]] = deque()
        self._unacknowledged_bytes = 0
        self._positions: dict[Partition, int] = {}
        self._n_partitions: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._producer: Any = None if opens_late else self._open()

    def _open(self) -> Any:
        config, timeout_ms = self._config, int(self._config.timeout_s * 1000)
        return open_client(
            config,
            KafkaProducer,
            SinkUnavailable,
            acks="all",
            metrics_enabled=False,
            enable_idempotence=config.idempotent,
            # Without idempotence two batches on their way could change places when one is sent again.
            max_in_flight_requests_per_connection=5 if config.idempotent else 1,
            compression_type=self._compression,
            linger_ms=config.linger_ms,
            batch_size=config.batch_bytes,
            max_request_size=config.max_record_bytes,
            max_block_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=max(int(config.delivery_timeout_s * 1000), timeout_ms + config.linger_ms),
            allow_auto_create_topics=False,
        )

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        """As EventSink says; waits only while too much is unacknowledged."""
        with self._lock:
            self._settle()
            self._raise_failure()
            try:
                self._producer = self._producer or self._open()
                while self._unacknowledged_bytes > self._config.max_unacknowledged_bytes:
                    self._unacknowledged[0][0].get(timeout=self._config.timeout_s)
                    self._settle()
                    self._raise_failure()
                number = self._partition_of(topic, key) if partition is None else partition
                future = self._producer.send(topic, value, key=key, partition=number)
            except KafkaError as error:
                raise SinkUnavailable(f"topic {topic!r} takes no records: {error}") from error
            self._unacknowledged.append((future, len(value), time.monotonic()))
            self._unacknowledged_bytes += len(value)

    def flush(self) -> None:
        """As EventSink says. Records that a broker was too slow to acknowledge are still on their way."""
        producer = self._producer
        try:
            if producer is not None:
                producer.flush(timeout=self._config.timeout_s)
        except KafkaError as error:
            with self._lock:
                self._settle()
                self._raise_failure()
            raise SinkUnavailable(f"{self._config.bootstrap} did not acknowledge: {error}") from error
        with self._lock:
            self._settle()
            self._raise_failure()

    def position(self, topic: str, partition: int) -> int:
        """As EventSink says."""
        with self._lock:
            self._settle()
            return self._positions.get((topic, partition), 0)

    def close(self) -> None:
        """Send what is left, for as long as one request may take, and give the connections back."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                producer.flush(timeout=self._config.timeout_s)
            _drop(producer)

    def _partition_of(self, topic: str, key: bytes) -> int:
        count = self._n_partitions.get(topic)
        if count is None:
            count = self._n_partitions[topic] = len(self._producer.partitions_for(topic))
        return partition_of_key(key, count)

    def _settle(self) -> None:
        """Take note of what has been acknowledged or refused, oldest first."""
        pending = self._unacknowledged
        while pending and pending[0][0].is_done:
            future, size, _ = pending.popleft()
            self._unacknowledged_bytes -= size
            if future.exception is not None:
                self._failure = future.exception
            else:
                where: Partition = (future.value.topic, future.value.partition)
                # A record that the broker had already kept is acknowledged without an offset: -1.
                self._positions[where] = max(self._positions.get(where, 0), future.value.offset + 1)
        longest_s = self._config.delivery_timeout_s + _GRACE_S
        if pending and time.monotonic() - pending[0][2] > longest_s:
            self._failure = TimeoutError(f"no answer for {longest_s:.0f} s")

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            producer, self._producer = self._producer, None
            self._unacknowledged.clear()
            self._unacknowledged_bytes = 0
            _drop(producer)
            raise SinkUnavailable(f"{self._config.bootstrap} refused a record: {failure}") from failure


def _drop(producer: Any) -> None:
    """Close without waiting: what has not left yet will not."""
    # A plain close waits for what cannot be sent, raises, and leaves its threads behind.
    producer._sender.force_close()
    with suppress(KafkaError):
        producer.close(timeout=1)
