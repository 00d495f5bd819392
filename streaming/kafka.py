"""Kafka behind the source and sink protocols: the one file that imports the client.

Partitions are assigned by hand and offsets come from the caller, so no consumer group is used. The
embedded broker answers "end offset" with the *start* of its newest batch plus one; the high
watermark of a fetch is right there, so ends are read off a fetch (Apache Kafka gives both alike).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import crc32c
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, OffsetOutOfRangeError, TopicAlreadyExistsError

from recsys.errors import ConfigError
from streaming.errors import OffsetLost, SinkUnavailable, SourceUnavailable
from streaming.source import Partition, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """One cluster, and how much is sent and asked for at a time."""

    bootstrap: str
    """host:port of any broker."""
    timeout_s: float = 15.0
    """How long a request, a flush or a wait for room may take; > 0."""
    connect_timeout_s: float = 5.0
    """How long the first broker may take to answer; > 0."""
    linger_ms: int = 10
    """How long the sink waits for more records before it sends."""
    batch_bytes: int = 256 * 1024
    """Records sent together, per partition."""
    max_record_bytes: int = 16 * 1024 * 1024
    """Largest record; the broker's own limit must be as high."""
    max_unacknowledged_bytes: int = 64 * 1024 * 1024
    """Beyond this a publish waits: the client itself has no bound."""
    fetch_bytes: int = 1024 * 1024
    """What one fetch asks of one partition."""
    fetch_least_bytes: int = 64 * 1024
    """A fetch is answered at once when so much is there: few large answers cost less than many small."""
    fetch_wait_ms: int = 40
    """How long the broker may hold a fetch that finds less; > 0. It bounds how late a record is seen;
    an idle source asks again each time it is over."""

    def __post_init__(self) -> None:
        if ":" not in self.bootstrap:
            raise ConfigError(f"bootstrap must be host:port, got {self.bootstrap!r}")
        for name in ("timeout_s", "connect_timeout_s", "fetch_wait_ms"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


def create_topics(bootstrap: str, partitions: Mapping[str, int]) -> None:
    """Make the topics that do not exist yet. Raises SinkUnavailable."""
    try:
        with _admin(bootstrap, timeout_s=5.0) as admin:
            for name, count in partitions.items():
                with suppress(TopicAlreadyExistsError):
                    admin.create_topics([NewTopic(name, num_partitions=count, replication_factor=1)])
    except KafkaError as error:
        raise SinkUnavailable(f"no topics made at {bootstrap}: {error}; is a broker there?") from error


def reachable_topics(bootstrap: str, *, timeout_s: float) -> set[str]:
    """Names of the topics that a broker has. Raises SourceUnavailable where none answers in time."""
    try:
        with _admin(bootstrap, timeout_s=timeout_s) as admin:
            return set(admin.list_topics())
    except (KafkaError, ValueError) as error:
        raise SourceUnavailable(f"no topics listed at {bootstrap}: {error}; is a broker there?") from error


@contextmanager
def _admin(bootstrap: str, *, timeout_s: float) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=int(timeout_s * 1000))
    try:
        yield admin
    finally:
        admin.close()


class KafkaSource:
    """An EventSource over given partitions of a cluster. One caller at a time."""

    def __init__(
        self,
        config: KafkaConfig,
        partitions: Sequence[Partition],
        offsets: Mapping[Partition, int] | None = None,
    ) -> None:
        """Start at ``offsets``; partitions that it leaves out start at their oldest record."""
        self._config = config
        self._assigned = [TopicPartition(*partition) for partition in partitions]
        self._consumer = self._connect(config.fetch_bytes)
        self._end_probe: KafkaConsumer | None = None
        try:
            oldest = self._consumer.beginning_offsets(self._assigned, timeout_ms=self._timeout_ms)
        except KafkaError as error:
            raise SourceUnavailable(f"no offsets from {config.bootstrap}: {error}") from error
        self._positions: dict[Partition, int] = {tuple(at): offset for at, offset in oldest.items()}
        for at, offset in oldest.items():
            self._consumer.seek(at, offset)
        self.seek(offsets or {})

    def _connect(self, fetch_bytes: int) -> KafkaConsumer:
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=self._config.bootstrap,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                enable_auto_commit=False,
                max_partition_fetch_bytes=fetch_bytes,
                bootstrap_timeout_ms=int(self._config.connect_timeout_s * 1000),
                fetch_min_bytes=self._config.fetch_least_bytes,
                fetch_max_wait_ms=self._config.fetch_wait_ms,
                metrics_enabled=False,
            )
        except KafkaError as error:
            raise SourceUnavailable(f"no broker at {self._config.bootstrap}: {error}") from error
        consumer.assign(self._assigned)
        return consumer

    @property
    def _timeout_ms(self) -> int:
        return int(self._config.timeout_s * 1000)

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says. A broker that is away gives nothing; ``end_offsets`` tells."""
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            raise OffsetLost(f"{error}; the log has moved on: start from a newer snapshot") from error
        except KafkaError as error:
            raise SourceUnavailable(f"no records from {self._config.bootstrap}: {error}") from error
        records: list[Record] = []
        for at, fetched in polled.items():
            topic, number = at.topic, at.partition
            records.extend(
                [Record(topic, number, one.offset, one.key or b"", one.value or b"") for one in fetched]
            )
            self._positions[topic, number] = fetched[-1].offset + 1
        return records

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says."""
        # The embedded broker forgets its log with its process and then simply sends nothing.
        ends = self.end_offsets() if any(offsets.values()) else {}
        for partition, offset in offsets.items():
            if partition not in self._positions:
                raise ConfigError(f"{partition} is not read here; got {sorted(self._positions)}")
            if offset > ends.get(partition, offset):
                raise OffsetLost(
                    f"{partition}: offset {offset} is beyond the log's end {ends[partition]}; "
                    "the broker lost its log: start afresh"
                )
            self._consumer.seek(TopicPartition(*partition), offset)
            self._positions[partition] = offset

    def positions(self) -> dict[Partition, int]:
        """As EventSource says."""
        return dict(self._positions)

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says."""
        try:
            reported = self._consumer.end_offsets(self._assigned, timeout_ms=self._timeout_ms)
            ends = {at: max(end, self._consumer.highwater(at) or 0) for at, end in reported.items()}
            unread = [at for at, end in reported.items() if end > (self._consumer.highwater(at) or 0)]
            ends.update(self._probe_ends({at: reported[at] for at in unread}))
        except KafkaError as error:
            raise SourceUnavailable(f"no offsets from {self._config.bootstrap}: {error}") from error
        return {tuple(at): end for at, end in ends.items()}

    def _probe_ends(self, reported: dict[Any, int]) -> dict[Any, int]:
        """High watermarks as a fetch of the newest known record gives them."""
        if not reported:
            return {}
        if self._end_probe is None:
            self._end_probe = self._connect(fetch_bytes=1)
        self._end_probe.assign(list(reported))
        for at, end in reported.items():
            self._end_probe.seek(at, end - 1)
        ends: dict[Any, int] = {}
        deadline = time.monotonic() + self._config.timeout_s
        while len(ends) < len(reported):
            for at in self._end_probe.poll(timeout_ms=100):
                ends[at] = max(reported[at], self._end_probe.highwater(at))
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"no record at the reported ends {reported} of the log")
        return ends

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()
        if self._end_probe is not None:
            self._end_probe.close()


class KafkaSink:
    """An EventSink that sends in batches and waits for every in-sync replica. Any number of callers."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._unacknowledged: deque[tuple[Any, int]] = deque()
        self._unacknowledged_bytes = 0
        self._positions: dict[Partition, int] = {}
        self._n_partitions: dict[str, int] = {}
        self._failure: BaseException | None = None
        timeout_ms = int(config.timeout_s * 1000)
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=config.bootstrap,
                bootstrap_timeout_ms=int(config.connect_timeout_s * 1000),
                acks="all",
                linger_ms=config.linger_ms,
                batch_size=config.batch_bytes,
                max_request_size=config.max_record_bytes,
                max_block_ms=timeout_ms,
                request_timeout_ms=timeout_ms,
                delivery_timeout_ms=2 * timeout_ms,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        except KafkaError as error:
            raise SinkUnavailable(f"no broker at {config.bootstrap}: {error}") from error

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        """As EventSink says; waits only while too much is unacknowledged."""
        with self._lock:
            self._settle()
            self._raise_failure()
            try:
                while self._unacknowledged_bytes > self._config.max_unacknowledged_bytes:
                    self._unacknowledged[0][0].get(timeout=self._config.timeout_s)
                    self._settle()
                number = self._partition_of(topic, key) if partition is None else partition
                future = self._producer.send(topic, value, key=key, partition=number)
            except KafkaError as error:
                raise SinkUnavailable(f"topic {topic!r} takes no records: {error}") from error
            self._unacknowledged.append((future, len(value)))
            self._unacknowledged_bytes += len(value)

    def flush(self) -> None:
        """As EventSink says."""
        try:
            self._producer.flush(timeout=self._config.timeout_s)
        except KafkaError as error:
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
        """Send what is left and give the connections back."""
        self._producer.close(timeout=self._config.timeout_s)

    def _partition_of(self, topic: str, key: bytes) -> int:
        count = self._n_partitions.get(topic)
        if count is None:
            count = self._n_partitions[topic] = len(self._producer.partitions_for(topic))
        checksum: int = crc32c.crc32c(key) if count > 1 else 0
        return checksum % count

    def _settle(self) -> None:
        """Take note of what has been acknowledged or refused, oldest first."""
        pending = self._unacknowledged
        while pending and pending[0][0].is_done:
            future, size = pending.popleft()
            self._unacknowledged_bytes -= size
            if future.exception is not None:
                self._failure = future.exception
            else:
                where: Partition = (future.value.topic, future.value.partition)
                self._positions[where] = max(self._positions.get(where, 0), future.value.offset + 1)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise SinkUnavailable(f"{self._config.bootstrap} refused a record: {failure}") from failure
