"""The joiner's process: logs in, joins of several partitions, example batches out.

It runs until it is stopped. While the broker is out of reach, or the state's disk is full, it waits and then
goes on from what was last committed, as after a crash: nothing is lost and nothing leaves twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from recsys.errors import ConfigError
from streaming.errors import OffsetLost, SinkUnavailable, SourceUnavailable, StateUnavailable
from streaming.inputs import Assignment, InputSource
from streaming.label_join import JoinCounters, LabelJoin
from streaming.partition_joiner import BatchConfig, PartitionJoiner
from streaming.sink import EventSink
from streaming.source import EventSource, Partition

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinerConfig:
    """One joiner's process around its joins."""

    batches: BatchConfig = field(default_factory=BatchConfig)
    poll_records: int = 2000
    """Most records of one poll; > 0."""
    poll_timeout_s: float = 0.02
    """How long a poll waits for the first record; bounds how late a due batch can be."""
    tick_period_ms: int = 250
    """How often silence is turned into event time, and progress told; > 0."""
    commit_period_ms: int = 5000
    """How often the state is committed; a restart repeats that much more; > 0."""
    longest_wait_s: float = 5.0
    """Between two attempts to reach a broker that is away; > 0."""

    def __post_init__(self) -> None:
        for name in ("poll_records", "tick_period_ms", "commit_period_ms", "longest_wait_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


JoinStatus = Literal["starting", "joining", "broker_away", "state_unavailable"]


@dataclass(slots=True, kw_only=True)
class JoinProgress:
    """How far a joiner has come; counts since the process began, over all partitions that it had."""

    status: JoinStatus = "starting"
    counters: JoinCounters = field(default_factory=JoinCounters)
    partitions: list[int] = field(default_factory=list)
    """Those that it joins now."""
    lag_records: int = 0
    """Input records that it has not read."""
    watermark_ms: int | None = None
    """Of the slowest partition; None while it is not known."""
    windows_in_memory: int = 0
    windows_on_disk: int = 0


class Connections(Protocol):
    """A joiner's connections to one broker; new ones are made after a failure."""

    @property
    def source(self) -> InputSource:
        """What is joined."""

    @property
    def sink(self) -> EventSink:
        """Where examples and dead letters go."""

    def open_output(self, at: Partition) -> AbstractContextManager[EventSource]:
        """A cursor at the oldest record of an output partition, for as long as the context lasts."""

    def close(self) -> None:
        """Give them back; must not raise, and must not wait long for a broker that is away."""


class JoinWorker:
    """One joiner. Runs in one thread; ``stop`` may be called from any, or from a signal."""

    def __init__(
        self,
        connect: Callable[[Assignment], Connections],
        make_join: Callable[[int], LabelJoin],
        config: JoinerConfig,
        *,
        clock_ms: Callable[[], int],
        on_progress: Callable[[JoinProgress], None] = lambda progress: None,
    ) -> None:
        """``make_join`` opens the state of an input partition, which nobody else has open.

        ``on_progress`` is told each tick, from the worker's own thread.
        """
        self._connect, self._make_join = connect, make_join
        self._config, self._clock_ms, self._on_progress = config, clock_ms, on_progress
        self._connections: Connections | None = None
        self._joiners: dict[int, PartitionJoiner] = {}
        self._heard: set[Partition] = set()
        self._counted = JoinCounters()
        self._stopping = threading.Event()
        self._ticked_ms = self._saved_ms = clock_ms()
        self.progress = JoinProgress()

    def stop(self) -> None:
        """End after the round in hand; open windows are part of what is committed."""
        self._stopping.set()

    def run(self) -> None:
        """Join until ``stop``. Raises OffsetLost where the log has lost what the state builds on."""
        wait_s = 0.25
        while not self._stopping.is_set():
            try:
                while not self._stopping.is_set():
                    self.run_round()
                    wait_s = 0.25
                if self._connections is not None:
                    self._save()
            except OffsetLost:
                self.disconnect()
                raise
            except (SinkUnavailable, SourceUnavailable, StateUnavailable) as error:
                log.warning("joiner_waits", extra={"reason": str(error), "wait_s": wait_s})
                self.disconnect()
                self._tell("state_unavailable" if isinstance(error, StateUnavailable) else "broker_away")
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, self._config.longest_wait_s)
        self.disconnect()

    def run_round(self) -> None:
        """One poll and all that follows from it. Raises SinkUnavailable or SourceUnavailable."""
        if self._connections is None:
            self._connections = self._connect(self)
            self._listen_afresh()
        source = self._connections.source
        records = source.poll(max_records=self._config.poll_records, timeout_s=self._config.poll_timeout_s)
        now_ms = self._clock_ms()
        for record in records:
            self._joiners[record.partition].feed(record, now_ms)
        self._heard.update({(record.topic, record.partition) for record in records})
        if now_ms - self._ticked_ms >= self._config.tick_period_ms:
            self._tick(now_ms)
        for joiner in self._joiners.values():
            joiner.collect(now_ms)
        is_due = now_ms - self._saved_ms >= self._config.commit_period_ms
        if is_due or any(joiner.join.wants_commit for joiner in self._joiners.values()):
            self._saved_ms = now_ms
            self._save()

    def disconnect(self) -> None:
        """Give up every partition as it was last committed, and the connections."""
        for number in list(self._joiners):
            self._drop(number)
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    def gained(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        """As Assignment says."""
        assert self._connections is not None
        offsets: dict[Partition, int] = {}
        for number in sorted({number for _, number in partitions}):
            joiner = PartitionJoiner(
                number,
                self._make_join(number),
                self._connections.sink,
                self._config.batches,
                clock_ms=self._clock_ms,
            )
            self._joiners[number] = joiner
            offsets.update(joiner.open(self._connections.open_output))
        self._listen_afresh()
        return offsets

    def lost(self, partitions: list[Partition]) -> None:
        """As Assignment says. The next owner goes on from the last commit, and finds in the output what
        was stated after it."""
        for number in {number for _, number in partitions} & self._joiners.keys():
            self._drop(number)

    def _listen_afresh(self) -> None:
        """Time in which nothing could be heard is no silence."""
        self._ticked_ms = self._clock_ms()
        self._heard = set()

    def _tick(self, now_ms: int) -> None:
        """Let silent partitions' time pass. A log out of reach is not silent."""
        assert self._connections is not None
        elapsed_ms, heard = max(0, now_ms - self._ticked_ms), self._heard
        try:
            ends = self._connections.source.end_offsets()
        except SourceUnavailable as error:
            log.warning("source_unavailable", extra={"reason": str(error)})
            self._tell("broker_away")
            self._listen_afresh()
            return
        self._listen_afresh()
        positions = self._connections.source.positions()
        lags = {at: ends.get(at, position) - position for at, position in positions.items()}
        for joiner in self._joiners.values():
            silent = [at for at in joiner.inputs if lags.get(at, 0) <= 0 and at not in heard]
            joiner.join.pass_time(elapsed_ms, silent)
        self.progress.lag_records = sum(max(0, lag) for lag in lags.values())
        self._tell("joining")

    def _tell(self, status: JoinStatus) -> None:
        """Tell how things stand."""
        joins = [joiner.join for joiner in self._joiners.values()]
        self.progress.status = status
        self.progress.partitions = sorted(self._joiners)
        self.progress.counters = _sum([self._counted, *(join.counters for join in joins)])
        self.progress.watermark_ms = min((join.watermark_ms for join in joins), default=None)
        self.progress.windows_in_memory = sum(join.windows_in_memory for join in joins)
        self.progress.windows_on_disk = sum(join.windows_on_disk for join in joins)
        self._on_progress(self.progress)

    def _save(self) -> None:
        assert self._connections is not None
        for joiner in self._joiners.values():
            joiner.save(self._connections.source.commit)

    def _drop(self, number: int) -> None:
        joiner = self._joiners.pop(number)
        self._counted = _sum([self._counted, joiner.join.counters])
        joiner.close()


def _sum(counters: list[JoinCounters]) -> JoinCounters:
    names = [one.name for one in fields(JoinCounters)]
    return JoinCounters(**{name: sum(getattr(each, name) for each in counters) for name in names})
