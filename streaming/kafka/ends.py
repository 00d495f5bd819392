"""Where a log ends, and whether it still reaches as far as somebody has read.

The embedded broker answers "end offset" with the *start* of its newest batch plus one; the high
watermark of a fetch is right there, so ends are read off a fetch (Apache Kafka gives both alike).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streaming.errors import OffsetLost, SourceUnavailable
from streaming.kafka.client import open_client
from streaming.kafka.config import KafkaConfig
from streaming.source import Partition, Record

_LOOK_TIMEOUT_S = 1.0
"""A look at a broker that is away must not hold up the poll that makes it."""


def open_consumer(config: KafkaConfig, **options: Any) -> Any:
    """A consumer that commits nothing by itself and never jumps. Raises SourceUnavailable."""
    plain = {
        "auto_offset_reset": "none",
        "metrics_enabled": False,
        "allow_auto_create_topics": False,
        "enable_auto_commit": False,
        "max_partition_fetch_bytes": config.fetch_bytes,
        "fetch_min_bytes": config.fetch_least_bytes,
        "fetch_max_wait_ms": config.fetch_wait_ms,
    }
    return open_client(config, KafkaConsumer, SourceUnavailable, **plain | options)


def records_of(polled: Mapping[Any, Sequence[Any]]) -> list[Record]:
    """What the client polled, partition by partition."""
    records: list[Record] = []
    for at, fetched in polled.items():
        where = at.topic, at.partition
        records.extend([Record(*where, one.offset, one.key or b"", one.value or b"") for one in fetched])
    return records


class LogEnds:
    """Ends of the partitions that a consumer reads. One caller at a time, the consumer's own."""

    def __init__(self, config: KafkaConfig, consumer: Any) -> None:
        self._config, self._consumer = config, consumer
        self._probe: Any = None
        self._heard_at = time.monotonic()

    def read(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Offset after the newest record, by partition. Raises SourceUnavailable."""
        reported = self._reported(partitions, self._config.timeout_s)
        seen = {at: self._consumer.highwater(at) or 0 for at in reported}
        ends = {at: max(end, seen[at]) for at, end in reported.items()}
        ends.update(self._probed({at: end for at, end in reported.items() if end > seen[at]}))
        return {tuple(at): end for at, end in ends.items()}

    def heard(self, *, is_news: bool, positions: Mapping[Partition, int]) -> None:
        """Take note of one poll; after a long silence look whether the log still reaches ``positions``.

        Raises OffsetLost where it does not: a broker that lost its log with its process answers a fetch
        beyond the end with silence. A broker that is away is no loss, and is passed over.
        """
        now = time.monotonic()
        if is_news or now - self._heard_at < self._config.silence_s:
            self._heard_at = now if is_news else self._heard_at
            return
        self._heard_at = now
        try:
            reported = self._reported(list(positions), min(self._config.timeout_s, _LOOK_TIMEOUT_S))
            ends = self._probed({at: end for at, end in reported.items() if end < positions[tuple(at)]})
        except OffsetLost:
            raise
        except SourceUnavailable:
            return
        for at, end in ends.items():
            check_reach(tuple(at), positions[tuple(at)], end)

    def close(self) -> None:
        """Give the connection back."""
        if self._probe is not None:
            self._probe.close()

    def _reported(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Any, int]:
        wanted = [TopicPartition(*partition) for partition in partitions]
        try:
            reported: dict[Any, int] = self._consumer.end_offsets(wanted, timeout_ms=int(timeout_s * 1000))
        except KafkaError as error:
            raise SourceUnavailable(f"no offsets from {self._config.bootstrap}: {error}") from error
        return reported

    def _probed(self, reported: Mapping[Any, int]) -> dict[Any, int]:
        """High watermarks as a fetch of the newest known record gives them."""
        ends = {at: end for at, end in reported.items() if end == 0}
        if len(ends) == len(reported):
            return ends
        try:
            return ends | self._fetched_ends({at: end for at, end in reported.items() if end > 0})
        except KafkaError as error:
            raise SourceUnavailable(f"no offsets from {self._config.bootstrap}: {error}") from error

    def _fetched_ends(self, reported: Mapping[Any, int]) -> dict[Any, int]:
        if self._probe is None:
            self._probe = open_consumer(self._config, max_partition_fetch_bytes=1, fetch_min_bytes=1)
        self._probe.assign(list(reported))
        for at, end in reported.items():
            self._probe.seek(at, end - 1)
        ends: dict[Any, int] = {}
        deadline = time.monotonic() + self._config.timeout_s
        while len(ends) < len(reported):
            for at in self._probe.poll(timeout_ms=100):
                ends[at] = max(reported[at], self._probe.highwater(at))
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"no record at the reported ends {dict(reported)} of the log")
        return ends


def check_reach(partition: Partition, offset: int, end: int) -> None:
    """Raise OffsetLost where ``offset`` lies beyond the ``end`` of the log."""
    if offset > end:
        raise OffsetLost(
            f"{partition}: offset {offset} is beyond the log's end {end}; "
            "the broker lost its log: start afresh"
        )
