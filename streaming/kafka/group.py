"""Partitions shared by the members of a consumer group, as an EventSource.

Every topic is cut at the same places (range assignment of equal partition counts), so what belongs
together by key, such as impressions and feedback, is always read by one member. A rebalance takes all
partitions from all members and gives them out anew; nobody is given one before its last reader has
been told or has missed its session.

The client calls back on its own I/O thread. Those calls wait, without holding up heartbeats, until
the thread that polls has carried them out: an Assignment needs no locks.

Measured with the embedded broker: a join or a leave takes half a session (3 s), a killed member its
session and that half again. That broker answers static members as unknown ones and sends them round
and round, so ``instance_id`` is for Apache Kafka; and a leader of the group that stalls in the middle of
a rebalance may hold up all members there for good: kill it.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kafka import AsyncConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.future import Future as ClientFuture

from recsys.errors import ConfigError
from streaming.errors import OffsetLost, SourceUnavailable
from streaming.inputs import Assignment
from streaming.kafka.config import KafkaConfig
from streaming.kafka.ends import LogEnds, check_reach, open_consumer, records_of
from streaming.source import Partition, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupConfig:
    """How soon a group notices that a member is gone."""

    session_timeout_s: float = 6.0
    """A member that is not heard of for so long loses its partitions; Apache Kafka asks for >= 6."""
    heartbeat_s: float = 0.5
    """How often a member is heard of, and so how soon it learns of a rebalance; <= session / 3."""
    rebalance_timeout_s: float = 60.0
    """Longest time between two polls, and for giving up state; a slower member loses its partitions."""

    def __post_init__(self) -> None:
        if not 0 < 3 * self.heartbeat_s <= self.session_timeout_s <= self.rebalance_timeout_s:
            raise ConfigError(
                "want 0 < 3 * heartbeat_s <= session_timeout_s <= rebalance_timeout_s, got "
                f"{self.heartbeat_s}, {self.session_timeout_s}, {self.rebalance_timeout_s}"
            )


class GroupSource:
    """An InputSource over the partitions that a group gives this member. One caller at a time.

    Poll at least every ``rebalance_timeout_s``. A broker that is away gives nothing; a long outage ends
    in ``lost`` and, once it is back, in ``gained``. After a missed session ``lost`` comes late: another
    member may have started already, and only ``commit`` tells.
    """

    def __init__(
        self,
        config: KafkaConfig,
        group: str,
        topics: Sequence[str],
        assignment: Assignment,
        *,
        instance_id: str | None = None,
        membership: GroupConfig = GroupConfig(),
    ) -> None:
        """Join ``group``; partitions come with later polls. A member that restarts within its session
        under the same ``instance_id`` gets its partitions back without a rebalance.

        Raises ConfigError where the topics differ in partitions, SourceUnavailable where one is missing.
        """
        self._config, self._assignment = config, assignment
        self._positions: dict[Partition, int] = {}
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._consumer = open_consumer(
            config,
            group_id=group,
            group_instance_id=instance_id,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=int(membership.session_timeout_s * 1000),
            heartbeat_interval_ms=int(membership.heartbeat_s * 1000),
            max_poll_interval_ms=int(membership.rebalance_timeout_s * 1000),
        )
        self._ends = LogEnds(config, self._consumer)
        self._client = ThreadPoolExecutor(1, thread_name_prefix="kafka-group")
        try:
            self._refuse_uneven(topics)
            self._consumer.subscribe(list(topics), listener=_Listener(self))
        except BaseException:
            self.close()
            raise

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """As EventSource says; it also waits for what the Assignment does, and raises what that raises."""
        polled = self._run(self._consumer.poll, timeout_ms=int(timeout_s * 1000), max_records=max_records)
        owned = {at: fetched for at, fetched in polled.items() if tuple(at) in self._positions}
        for at, fetched in owned.items():
            self._positions[at.topic, at.partition] = fetched[-1].offset + 1
        if self._positions:
            self._ends.heard(is_news=bool(owned), positions=self._positions)
        return records_of(owned)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """As EventSource says."""
        ends = self.end_offsets() if any(offsets.values()) else {}
        for partition, offset in offsets.items():
            if partition not in self._positions:
                raise ConfigError(
                    f"{partition} is not owned by this member; it has {sorted(self._positions)}"
                )
            check_reach(partition, offset, ends.get(partition, offset))
            self._consumer.seek(TopicPartition(*partition), offset)
            self._positions[partition] = offset

    def positions(self) -> dict[Partition, int]:
        """As EventSource says, of the partitions that this member owns."""
        return dict(self._positions)

    def end_offsets(self) -> dict[Partition, int]:
        """As EventSource says, of the partitions that this member owns."""
        return self._ends.read(list(self._positions)) if self._positions else {}

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """As InputSource says: the broker refuses it from a member whose partitions it has given out anew.

        Nothing is ever read back from it.
        """
        foreign = sorted(set(offsets) - set(self._positions))
        if foreign:
            raise SourceUnavailable(f"{foreign[0]} is not owned here; got {sorted(self._positions)}")
        given = {TopicPartition(*at): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()}
        try:
            self._consumer.commit(given, timeout_ms=int(self._config.timeout_s * 1000))
        except KafkaError as error:
            raise SourceUnavailable(
                f"offsets of {sorted(offsets)} were not taken: {error}; poll, and see what is still owned"
            ) from error

    def close(self) -> None:
        """Give up the partitions, leave the group, give the connections back."""
        try:
            self._run(self._consumer.close, autocommit=False, timeout_ms=int(self._config.timeout_s * 1000))
        finally:
            self._client.shutdown()
            self._ends.close()

    def _run(self, call: Callable[..., Any], **arguments: Any) -> Any:
        """The result of one call of the client, with what it calls back carried out here meanwhile."""
        job = self._client.submit(call, **arguments)
        job.add_done_callback(self._wake)
        while (request := self._calls.get()) is not None:
            self._carry_out(request)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        try:
            return job.result()
        except OffsetOutOfRangeError as error:
            raise OffsetLost(f"{error}; the log has moved on: start from a newer snapshot") from error
        except KafkaError as error:
            raise SourceUnavailable(f"no records from {self._config.bootstrap}: {error}") from error

    def _wake(self, job: Future[Any]) -> None:
        self._calls.put(None)

    def _carry_out(self, call: _Call) -> None:
        partitions = sorted(tuple(at) for at in call.partitions)
        try:
            if call.is_gain:
                self._gain(partitions)
            elif partitions:
                self._positions = {}
                self._assignment.lost(partitions)
        except BaseException as error:  # noqa: BLE001 (raised again by _run, in this thread)
            self._failure = error
        finally:
            # The member goes on either way: it must not block the others.
            # The future belongs to the client's loop, and that offers no public way in.
            self._consumer._net.call_soon_threadsafe(lambda: call.done.success(None))

    def _gain(self, partitions: list[Partition]) -> None:
        if not partitions:
            return
        _refuse_unlike(partitions)
        starts = dict(self._assignment.gained(partitions))
        oldest = [TopicPartition(*partition) for partition in partitions if partition not in starts]
        if oldest:
            begins = self._consumer.beginning_offsets(oldest, timeout_ms=int(self._config.timeout_s * 1000))
            starts |= {tuple(at): offset for at, offset in begins.items()}
        for partition in partitions:
            self._consumer.seek(TopicPartition(*partition), starts[partition])
        self._positions = {partition: starts[partition] for partition in partitions}

    def _refuse_uneven(self, topics: Sequence[str]) -> None:
        counts = {topic: len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics}
        missing = [topic for topic, count in counts.items() if not count]
        if missing:
            raise SourceUnavailable(
                f"no topic {missing[0]!r} at {self._config.bootstrap}; run `headrace topics apply`"
            )
        if len(set(counts.values())) > 1:
            raise ConfigError(
                f"topics that are read together must have equally many partitions, got {counts}; "
                "make them anew with one count"
            )


@dataclass(frozen=True, slots=True)
class _Call:
    """What the client's thread asks of the caller's."""

    is_gain: bool
    partitions: set[Any]
    done: Any
    """Resolved when it is carried out; the client's own kind of future."""


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Passes on what the client says, and waits without holding up its heartbeats."""

    def __init__(self, source: GroupSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        await self._ask(revoked, is_gain=False)

    async def on_partitions_lost(self, lost: set[Any]) -> None:
        await self._ask(lost, is_gain=False)

    async def on_partitions_assigned(self, assigned: set[Any]) -> None:
        await self._ask(assigned, is_gain=True)

    async def _ask(self, partitions: set[Any], *, is_gain: bool) -> None:
        call = _Call(is_gain, set(partitions), ClientFuture())
        self._source._calls.put(call)
        await call.done


def _refuse_unlike(partitions: Sequence[Partition]) -> None:
    numbers: dict[str, set[int]] = {}
    for topic, number in partitions:
        numbers.setdefault(topic, set()).add(number)
    if len({frozenset(owned) for owned in numbers.values()}) > 1:
        raise ConfigError(
            f"this member was given unlike partitions, {numbers}; one topic has grown: make them equal again"
        )
