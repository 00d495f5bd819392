"""Replicas that are killed, behind a wire that loses, doubles and swaps deltas, never serve a wrong row.

A trainer learns from a log that grows. The test reads the delta log as it was written and so knows
each version of each row; it compares every probe of both replicas with it while they run.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import crc32c
import numpy as np
import pytest
from pristine_log import DIM, RECIPE, PristineLog

from infra.broker import EmbeddedBroker
from infra.child_process import end_with_parent
from infra.demo.processes import Child, Family
from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, plain_examples
from recsys.snapshots import read_table, snapshots
from recsys.table.native import NativeTable
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics
from streaming.topics import ALL_TOPICS, DELTAS, EXAMPLES

PROGRAM = Path(__file__).with_name("replica_program.py")
N_PROBED, ROWS = 300, 64
ANSWER_WITHIN_S = 15.0
FAULT_SHARE = 0.05
"""Of deltas; a wire this bad shows in a short run what one in a hundred shows in a long one."""


@dataclass(slots=True)
class Life:
    """One process of a replica and what it has said."""

    process: subprocess.Popen[str]
    listener: threading.Thread = field(init=False)
    probes: SimpleQueue[dict[str, Any]] = field(default_factory=SimpleQueue)
    last: dict[str, Any] | None = None
    answered_s: float = 0.0
    as_of_ms: int = 0

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self.listen)
        self.listener.start()

    def kill(self) -> None:
        """Return when it is gone and all that it said is here."""
        self.process.kill()
        self.process.wait()
        self.listener.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A killed process may have been in the middle of a line.
            if line.endswith("}\n"):
                self.last, self.answered_s = json.loads(line), time.monotonic()
                self.probes.put(self.last)


class Scene:
    """A trainer, its growing log, two replicas and the checker. Used from one thread."""

    def __init__(self, bootstrap: str, folder: Path, family: Family, seed: int) -> None:
        self.bootstrap, self.folder, self.family = bootstrap, folder, family
        self.random = random.Random(seed)
        self.snapshots = folder / "state" / RECIPE.name / "snapshots"
        kafka = KafkaConfig(bootstrap=bootstrap, fetch_least_bytes=1)
        self.log = PristineLog(KafkaSource(kafka, [(DELTAS, 0)]), self.snapshots)
        self.lives: list[Life] = []
        self.ended: Counter[str] = Counter()
        self.checked, self.wrong, self.trainers = 0, [], 0
        self.waiting: list[dict[str, Any]] = []
        self.went_back = 0
        self.answered_s: float | None = None
        self.longest_silence_s = 0.0
        self.published = 0
        self.is_fed = threading.Event()

    def start_trainer(self) -> Child:
        self.trainers += 1
        verb = ["train", "--recipe", RECIPE.name, "--state-dir", str(self.folder / "state")]
        periods = ["--snapshot-period-s", "1", "--keep", "1000"]
        return self.family.start(f"train-{self.trainers}", [*verb, *periods])

    def start_replica(self, place: int) -> None:
        command = [sys.executable, str(PROGRAM), self.bootstrap, str(self.snapshots)]
        with (self.folder / "replicas.log").open("ab") as errors:
            process = subprocess.Popen(
                [*command, str(FAULT_SHARE), str(self.random.randrange(1 << 30))],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )
        self.lives[place : place + 1] = [Life(process)]

    def feed(self) -> None:
        """Examples for as long as the test lasts."""
        rng = np.random.default_rng(3)
        with closing(KafkaSink(KafkaConfig(bootstrap=self.bootstrap))) as sink:
            while not self.is_fed.wait(0.04):
                message = ExampleMessage(batch=example_batch(rng, self.published), sequence=self.published)
                sink.publish(EXAMPLES, b"0", encode_examples(message), partition=0)
                self.published += 1
            sink.flush()

    def look(self) -> None:
        """Take in what the log and the replicas say, and compare."""
        self.family.check()
        self.log.read()
        now_s = time.monotonic()
        for life in self.lives:
            while not life.probes.empty():
                probe = life.probes.get()
                self.waiting.append(probe)
                self.answered_s = now_s
                self.went_back += probe["as_of_ms"] < life.as_of_ms
                life.as_of_ms = probe["as_of_ms"]
        if self.answered_s is not None:
            self.longest_silence_s = max(self.longest_silence_s, now_s - self.answered_s)
        still_waiting = []
        for probe in self.waiting:
            if self.log.has(probe["incarnation"], probe["after"]):
                self._check(probe)
            else:
                still_waiting.append(probe)
        self.waiting = still_waiting

    def _check(self, probe: dict[str, Any]) -> None:
        rows = bytes.fromhex(probe["rows"])
        for key in range(N_PROBED):
            row = rows[4 * DIM * key : 4 * DIM * (key + 1)]
            place = (probe["incarnation"], key, probe["before"], probe["after"])
            if row not in self.log.allowed(*place):
                self.wrong.append(place)
        self.checked += 1

    def until(self, what: str, is_done: Callable[[], bool], timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_done():
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
            self.look()
            time.sleep(0.02)

    def run_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self.until("time to pass", lambda: time.monotonic() >= end_s)

    def answers(self, place: int) -> bool:
        """Whether the replica there is up and has answered just now."""
        return time.monotonic() - self.lives[place].answered_s < 1.0

    def kill_one(self) -> None:
        """At a random moment, as long as the other one answers: two at once is another bar."""
        place = self.random.randrange(2)
        self.run_for(self.random.uniform(0.2, 2.5))
        self.until("the other replica to answer", lambda: self.answers(1 - place))
        self.lives[place].kill()
        self.count(self.lives[place])
        self.start_replica(place)

    def count(self, life: Life) -> None:
        if life.last is not None:
            self.ended += Counter(life.last["outcomes"] | {"faults": life.last["faults"]})


def example_batch(rng: np.random.Generator, number: int) -> ExampleBatch:
    """Random examples of the recipe's schema, most of them about a few hundred keys."""
    n_features = len(RECIPE.schema.features)
    ids = np.arange(ROWS, dtype=np.uint64) + np.uint64(number * ROWS)
    return plain_examples(
        example_id_B=ids,
        user_id_B=ids,
        item_id_B=ids,
        event_time_ms_B=np.arange(ROWS, dtype=np.int64) + 1_700_000_000_000 + number * ROWS,
        label_B=(rng.random(ROWS) < 0.4).astype(np.float32),
        keys=RaggedKeys(
            rng.zipf(1.3, ROWS * n_features).astype(np.uint64) % np.uint64(5_000),
            np.ones((ROWS, n_features), np.uint8),
        ),
        schema_fingerprint=RECIPE.schema.fingerprint,
    )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        environment = {"HEADRACE_KAFKA_BOOTSTRAP": broker.bootstrap, "OMP_NUM_THREADS": "1"}
        family = Family(tmp_path / "logs", environment)
        scene = Scene(broker.bootstrap, tmp_path, family, seed=11)
        feeder = threading.Thread(target=scene.feed)
        feeder.start()
        try:
            yield scene
        finally:
            scene.is_fed.set()
            feeder.join()
            for life in scene.lives:
                life.kill()
            family.stop_all()
            scene.log.source.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.faults)])
def test_killed_replicas_behind_a_bad_wire_never_serve_a_wrong_row(scene: Scene, kills: int) -> None:
    trainer = scene.start_trainer()
    for place in range(2):
        scene.start_replica(place)
    scene.until("both replicas to answer", lambda: all(life.last for life in scene.lives))
    for number in range(kills):
        scene.kill_one()
        if number == kills // 2:
            trainer.process.send_signal(signal.SIGKILL)
            trainer.process.wait()
            del scene.family.children[trainer.name]
            trainer = scene.start_trainer()
    scene.is_fed.set()

    def is_drained() -> bool:
        learned = trainer.metrics().get("training_examples_total", 0.0)
        if learned < scene.published * ROWS or not all(life.last for life in scene.lives):
            return False
        incarnation, _, wanted = scene.log.newest()
        found = [(life.last["incarnation"], life.last["digest"]) for life in scene.lives if life.last]
        return found == [(incarnation, wanted)] * 2

    scene.until("both replicas to hold what was learned", is_drained, timeout_s=180.0)
    assert trainer.stop() == 0
    final = NativeTable(RECIPE.table)
    read_table(snapshots(scene.snapshots)[-1], final)
    keys = final.keys()
    learned_digest = crc32c.crc32c(keys.tobytes() + final.lookup(keys).tobytes())
    assert [life.last and life.last["digest"] for life in scene.lives] == [learned_digest] * 2
    for life in scene.lives:
        scene.count(life)
    assert scene.wrong == []
    assert scene.went_back == 0, "a replica served an older state than before"
    assert scene.checked > 30 * kills, "so few probes prove nothing"
    assert scene.ended["faults"] > 0, "the wire behaved"
    assert scene.ended["snapshot_needed"] > 0, "no gap was seen"
    assert scene.longest_silence_s < ANSWER_WITHIN_S
    report = {"probes": scene.checked, "silence_s": round(scene.longest_silence_s, 2), **scene.ended}
    (scene.folder / "seen.json").write_text(json.dumps(report))
