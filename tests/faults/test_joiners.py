"""Joiners of one group, killed and joined by others in mid-run, state exactly what the definition says."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from join_oracle import Statement, expected
from joiner_program import JOIN

from infra.broker import EmbeddedBroker
from infra.child_process import end_with_parent
from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.events import decode_shown, encode_feedback, encode_impression
from streaming.example_log import NO_MARK
from streaming.example_wire import Mark, decode_examples
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics
from streaming.shown import Shown
from streaming.source import Partition
from streaming.topics import ALL_TOPICS, EXAMPLES, FEEDBACK, IMPRESSIONS

PROGRAM = Path(__file__).with_name("joiner_program.py")
N_PARTITIONS, N_ITEMS, BEGIN_MS = 6, 5, 1_700_000_000_000
NO_KEYS = RaggedKeys(np.empty(0, np.uint64), np.empty((0, 1), np.uint8))


def impression(request: int, time_ms: int, items: range) -> Impression:
    n = len(items)
    return Impression(
        request_id=f"r{request}" if n else "",
        user_id=request % 997,
        event_time_ms=time_ms,
        model_version="m1",
        schema_fingerprint=1,
        item_ids_K=np.array(items, np.uint64),
        scores_K=np.full(n, 0.5, np.float32),
        propensities_K=np.ones(n, np.float32),
        keys=RaggedKeys(np.arange(n, dtype=np.uint64), np.ones((n, 1), np.uint8)) if n else NO_KEYS,
    )


def events(n_requests: int, seed: int) -> Iterator[tuple[float, Impression | Feedback]]:
    """(when it arrives, event): shuffled within the allowed disorder, some twice, some late, some early."""
    rng = np.random.default_rng(seed)
    for request in range(n_requests):
        shown_ms = BEGIN_MS + 2 * request
        one = impression(request, shown_ms, range(N_ITEMS))
        for _ in range(1 + (rng.random() < 0.03)):
            yield shown_ms + rng.random() * 400, one
        for number in range(rng.poisson(1.5)):
            kind = "click" if rng.random() < 0.6 else "watch_s"
            done_ms = shown_ms + int(
                rng.choice([rng.integers(-250, 1_900), rng.integers(1_900, 8_000)], p=[0.7, 0.3])
            )
            answer = Feedback(
                event_id=request * 64 + number,
                request_id=f"r{request}",
                user_id=request % 997,
                item_id=int(rng.integers(0, N_ITEMS)),
                kind=kind,
                value=float(rng.integers(1, 30)),
                event_time_ms=done_ms,
            )
            for _ in range(1 + (rng.random() < 0.03)):
                yield done_ms + rng.random() * 400, answer


def publish(bootstrap: str, n_requests: int) -> dict[Statement, set[int]]:
    """Fill the input topics; what the join of it all is by definition."""
    impressions: list[Shown] = []
    feedback: list[Feedback] = []
    with closing(KafkaSink(KafkaConfig(bootstrap=bootstrap, linger_ms=50))) as sink:
        for _, one in sorted(events(n_requests, seed=5), key=lambda event: event[0]):
            key = str(one.user_id).encode()
            if isinstance(one, Impression):
                value = encode_impression(one)
                impressions.append(decode_shown(value))
                sink.publish(IMPRESSIONS, key, value)
            else:
                feedback.append(one)
                sink.publish(FEEDBACK, key, encode_feedback(one))
        end_ms = BEGIN_MS + 2 * n_requests + 60_000
        heartbeat = Feedback(
            event_id=0, request_id="", user_id=0, item_id=0, kind="", value=0.0, event_time_ms=end_ms
        )
        for number in range(N_PARTITIONS):
            nothing = encode_impression(impression(0, end_ms, range(0)))
            sink.publish(IMPRESSIONS, b"", nothing, partition=number)
            sink.publish(FEEDBACK, b"", encode_feedback(heartbeat), partition=number)
        sink.flush()
    return expected(JOIN, impressions, feedback)


@dataclass(slots=True)
class Output:
    """What the example topic states so far. Used from one thread."""

    source: KafkaSource
    marks: dict[Partition, Mark] = field(default_factory=dict)
    stated: Counter[Statement] = field(default_factory=Counter)
    delays: dict[Statement, int] = field(default_factory=dict)

    def read(self) -> int:
        """Take what is new; how many rows there are."""
        for record in self.source.poll(max_records=64, timeout_s=0.1):
            message, at = decode_examples(record.value), (record.topic, record.partition)
            if message.mark <= self.marks.get(at, NO_MARK):
                continue
            self.marks[at] = message.mark
            batch = message.batch
            for row in range(len(batch)):
                labels = tuple(None if np.isnan(x) else float(x) for x in batch.label_BL[row])
                key = Statement(
                    batch.request_id_B[row],
                    int(batch.item_id_B[row]),
                    int(batch.event_time_ms_B[row]),
                    labels,
                    float(batch.weight_B[row]),
                    round(float(batch.sample_rate_BL[row, 0]), 6),
                    bool(batch.is_late_B[row]),
                    bool(batch.is_fast_B[row]),
                )
                self.stated[key] += 1
                self.delays[key] = int(batch.delay_ms_B[row])
        return sum(self.stated.values())


@dataclass(slots=True)
class Joiners:
    """Joiner processes by name. Used from one thread."""

    bootstrap: str
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, str(PROGRAM), self.bootstrap, str(self.folder / "state")],
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )

    def kill(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGKILL)
        self.running.pop(name).wait()

    def stop(self, name: str) -> None:
        self.running[name].terminate()
        assert self.running.pop(name).wait(60) == 0

    def check(self) -> None:
        for name, process in self.running.items():
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-2000:]


@pytest.fixture
def bootstrap() -> Iterator[str]:
    """host:port of an embedded broker with our topics."""
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, N_PARTITIONS))
        yield broker.bootstrap


def run_through(
    bootstrap: str, folder: Path, n_requests: int, script: list[tuple[float, Callable[[Joiners], None]]]
) -> None:
    """Join everything while the script's acts happen, each at its share of the output."""
    wanted = publish(bootstrap, n_requests)
    joiners = Joiners(bootstrap, folder)
    at = [(EXAMPLES, number) for number in range(N_PARTITIONS)]
    acts = list(script)
    try:
        with closing(KafkaSource(KafkaConfig(bootstrap=bootstrap), at)) as source:
            output, deadline = Output(source), time.monotonic() + 240
            done = 0
            while acts or done < len(wanted):
                while acts and done >= acts[0][0] * len(wanted):
                    acts.pop(0)[1](joiners)
                joiners.check()
                done = output.read()
                assert time.monotonic() < deadline, f"{done} of {len(wanted)} rows, {len(acts)} acts left"
            for name in list(joiners.running):
                joiners.stop(name)
            for _ in range(10):
                output.read()
    finally:
        for process in joiners.running.values():
            process.kill()
    rounded = {key._replace(rate=round(key.rate, 6)): delays for key, delays in wanted.items()}
    assert output.stated == Counter(rounded.keys())
    assert all(output.delays[key] in delays for key, delays in rounded.items())


@pytest.mark.slow
def test_a_killed_joiner_and_a_third_one_change_nothing(bootstrap: str, tmp_path: Path) -> None:
    script = [
        (0.0, lambda joiners: (joiners.start("a"), joiners.start("b"))),
        (0.25, lambda joiners: (joiners.kill("a"), joiners.start("c"), joiners.start("d"))),
    ]
    run_through(bootstrap, tmp_path, 20_000, script)


@pytest.mark.faults
def test_three_kills_and_rebalances_between_two_and_three_joiners_change_nothing(
    bootstrap: str, tmp_path: Path
) -> None:
    script = [
        (0.0, lambda joiners: (joiners.start("a"), joiners.start("b"))),
        (0.1, lambda joiners: (joiners.kill("a"), joiners.start("c"))),
        (0.3, lambda joiners: joiners.start("d")),
        (0.45, lambda joiners: (joiners.kill("b"), joiners.start("e"))),
        (0.65, lambda joiners: joiners.stop("d")),
        (0.8, lambda joiners: (joiners.kill("c"), joiners.start("f"))),
    ]
    run_through(bootstrap, tmp_path, 150_000, script)
