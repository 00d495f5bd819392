"""Given partitions of a cluster as an EventSource; offsets come from the caller, not from a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from recsys.errors import ConfigError
from streaming.errors import OffsetLost, SourceUnavailable
from streaming.kafka.config import KafkaConfig
from streaming.kafka.ends import LogEnds, check_reach, open_consumer, records_of
from streaming.source import Partition, Record


class KafkaSource:
    """An EventSource over given partitions of a cluster. One caller at a time.

    It outlives its broker: while the broker is away polls are empty, and once it is back they go on.
    """

    def __init__(
        self,
        config: KafkaConfig,
        partitions: Sequence[Partition],
        offsets: Mapping[Partition, int] | None = None,
    ) -> None:
        """Start at ``offsets``; partitions that it leaves out start at their oldest record."""
        self._config = config
        self._assigned = list(partitions)
        self._consumer = open_consumer(config)
        self._consumer.assign([TopicPartition(*partition) for partition in partitions])
        self._ends = LogEnds(config, self._consumer)
        try:
            oldest = self._consumer.beginning_offsets(
                [TopicPartition(*partition) for partition in partitions],
                timeout_ms=int(config.timeout_s * 1000),
            )
        except KafkaError as error:
            self.close()
            raise SourceUnavailable(f"no offsets from {config.bootstrap}: {error}") from error
        self._positions: dict[Partition, int] = {tuple(at): offset for at, offset in oldest.items()}
        for at, offset in oldest.items():
            self._consumer.seek(at, offset)
        self.seek(offsets or {})

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says. A broker that is away gives nothing; ``end_offsets`` tells.

        Raises OffsetLost where the log no longer reaches what was read, as after a broker's restart
        without its log; that is noticed after some seconds of silence.
        """
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            raise OffsetLost(f"{error}; the log has moved on: start from a newer snapshot") from error
        except KafkaError as error:
            raise SourceUnavailable(f"no records from {self._config.bootstrap}: {error}") from error
        for at, fetched in polled.items():
            self._positions[at.topic, at.partition] = fetched[-1].offset + 1
        self._ends.heard(is_news=bool(polled), positions=self._positions)
        return records_of(polled)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says."""
        # The embedded broker forgets its log with its process and then simply sends nothing.
        ends = self.end_offsets() if any(offsets.values()) else {}
        for partition, offset in offsets.items():
            if partition not in self._positions:
                raise ConfigError(f"{partition} is not read here; got {sorted(self._positions)}")
            check_reach(partition, offset, ends.get(partition, offset))
            self._consumer.seek(TopicPartition(*partition), offset)
            self._positions[partition] = offset

    def positions(self) -> dict[Partition, int]:
        """As EventSource says."""
        return dict(self._positions)

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says."""
        return self._ends.read(self._assigned)

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()
        self._ends.close()
