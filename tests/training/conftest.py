"""An online loop that can be stopped or killed at any message."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest
from streaming.deltas import DeltaPublisher
from streaming.memory_log import MemoryLog
from streaming.merged_source import MergedSource
from streaming.source import EventSource, Partition, Record
from streaming.topics import EXAMPLES
from training.checkpoints import CheckpointConfig, Checkpoints
from training.online_loop import LoopConfig, LoopStatus, OnlineLoop
from training.sync import DeltaSync, SyncConfig


class Killed(BaseException):
    """The trainer is gone: nothing after this runs, as after kill -9."""


class OneByOne:
    """An EventSource that gives one record a poll, and calls ``at_end`` after ``left`` of them."""

    def __init__(self, source: EventSource) -> None:
        self._source = source
        self.left = 0
        self.at_end: Callable[[], None] = lambda: None

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        if not self.left:
            self.at_end()
            return []
        self.left -= 1
        return self._source.poll(max_records=1, timeout_s=0)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._source.seek(offsets)

    def positions(self) -> dict[Partition, int]:
        return self._source.positions()

    def end_offsets(self) -> dict[Partition, int]:
        return self._source.end_offsets()


class Witness:
    """A LoopObserver that writes down what it is told."""

    def __init__(self) -> None:
        self.rejections: list[tuple[int, str]] = []
        self.manifests: list[Manifest] = []
        self.paths: list[Path] = []

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        pass

    def rejected(self, record: Record, reason: str) -> None:
        self.rejections.append((record.offset, reason))

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        self.manifests.append(manifest)
        self.paths.append(path)


class Trainer:
    """One start of a training process over an example log, put together as infra.wiring does it."""

    def __init__(
        self,
        small: Any,
        examples: MemoryLog,
        folder: Path,
        *,
        deltas: MemoryLog | None = None,
        keep: int = 3,
        sync_ms: int = 400,
        n_partitions: int = 1,
        **config: Any,
    ) -> None:
        self.learner: RankingLearner = small.learner()
        self._folder, metrics = folder, ProgressiveMetrics(60_000)
        self._checkpoints = checkpoints = Checkpoints(CheckpointConfig(folder=folder, keep=keep))
        self.manifest = checkpoints.restore(self.learner, metrics)
        incarnation = self.manifest.incarnation + 1 if self.manifest else 1
        parts = {(EXAMPLES, n): examples.source([(EXAMPLES, n)]) for n in range(n_partitions)}
        one_by_one = parts[EXAMPLES, 0] if n_partitions == 1 else MergedSource(parts, clock_ms=lambda: 0)
        self.source = OneByOne(one_by_one)
        self.witness = Witness()
        publisher = DeltaPublisher(MemoryLog() if deltas is None else deltas)
        plain: dict[str, Any] = {
            "recipe": "small",
            "schema_fingerprint": small.schema.fingerprint,
            "micro_batch": 4,
        }
        self.loop = OnlineLoop(
            LoopConfig(**(plain | config)),
            self.source,
            self.learner,
            DeltaSync(
                self.learner,
                publisher,
                SyncConfig(model="small-1", incarnation=incarnation, period_ms=sync_ms),
            ),
            checkpoints,
            metrics=metrics,
            observer=self.witness,
            clock_ms=count().__next__,
        )
        if self.manifest is not None:
            self.loop.resume(self.manifest)

    def run(self, *, limit: int | None = None, is_killed: bool = False) -> None:
        """Learn up to ``limit`` messages, then stop in order or be killed; without one, to the end.

        A killed process leaves the files that it was writing; they are put back after it closed them.
        """
        left = sum(self.source.end_offsets().values()) - sum(self.source.positions().values())
        self.source.left = left if limit is None else min(limit, left)
        self.source.at_end = self._die if is_killed else self.loop.stop
        debris = self._folder.with_name(f"{self._folder.name}-debris")
        try:
            self.loop.run()
        except Killed:
            assert is_killed
            shutil.copytree(debris, self._folder, dirs_exist_ok=True)
        finally:
            shutil.rmtree(debris, ignore_errors=True)

    def _die(self) -> None:
        shutil.copytree(self._folder, self._folder.with_name(f"{self._folder.name}-debris"))
        raise Killed


@pytest.fixture(scope="session")
def trainer(small: Any) -> Callable[..., Trainer]:
    """``trainer(examples, folder, **settings)`` starts a trainer from the newest snapshot in a folder;
    ``model`` is what it trains instead of the small one."""

    def start(examples: MemoryLog, folder: Path, *, model: Any = small, **settings: Any) -> Trainer:
        return Trainer(model, examples, folder, **settings)

    return start
