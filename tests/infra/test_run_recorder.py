"""A tracker that is slow or away holds no learning up; it is told of full snapshots and of the last one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.observers.run_recorder import RunRecorder
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest, read_manifest
from training.checkpoints import CheckpointConfig, Checkpoints
from training.errors import TrainingError
from training.loop_status import LoopStatus


class Tracker:
    """A TrackedRun that writes down what it is told, once ``may_go`` is set."""

    def __init__(self, *, fails: bool = False) -> None:
        self.may_go, self.is_asked, self.has_ended = threading.Event(), threading.Event(), threading.Event()
        self.snapshots: list[int] = []
        self.metrics: list[int] = []
        self.ends: list[bool] = []
        self._fails = fails

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._answer()
        self.metrics.append(step)

    def log_snapshot(self, path: Path, manifest: Manifest) -> None:
        self._answer()
        self.snapshots.append(manifest.examples)

    def finish(self, *, failed: bool = False) -> None:
        self.may_go.wait(30)
        self.ends.append(failed)
        self.has_ended.set()

    def _answer(self) -> None:
        self.is_asked.set()
        self.may_go.wait(30)
        if self._fails:
            raise TrainingError("told to fail")


Save = Callable[..., tuple[Path, Manifest]]


@pytest.fixture
def save(small: Any, tmp_path: Path) -> Iterator[Save]:
    """``save(examples, full=...)`` takes a snapshot of a model; its path and manifest."""
    checkpoints = Checkpoints(CheckpointConfig(folder=tmp_path, keep=20))
    learner, metrics = small.learner(), ProgressiveMetrics(60_000)

    def one(examples: int, *, full: bool) -> tuple[Path, Manifest]:
        small.learn(learner, examples)
        path = checkpoints.save(small.manifest(examples=examples), learner, metrics, full=full)
        return path, read_manifest(path)

    yield one
    checkpoints.close()


def test_full_snapshots_are_recorded_at_once_and_the_last_one_at_the_end(small: Any, save: Save) -> None:
    tracker, metrics = Tracker(), ProgressiveMetrics(60_000)
    recorder = RunRecorder(tracker)
    batch = small.examples(1, 50)
    metrics.add(batch.label_B * 0 + 0.5, batch.label_B, int(batch.event_time_ms_B.max()))
    recorder.start()
    recorder.progressed(LoopStatus(), metrics)
    recorder.snapshot_written(*save(1, full=True))
    assert tracker.is_asked.wait(30)
    tracker.may_go.set()
    for examples in (2, 3, 4):
        recorder.snapshot_written(*save(examples, full=False))
    recorder.close(failed=False)
    assert (tracker.snapshots, tracker.metrics, tracker.ends) == ([1, 4], [1, 4], [False])


def test_learning_goes_on_beside_a_tracker_that_does_not_answer_and_only_the_newest_waits(
    save: Save,
) -> None:
    tracker = Tracker()
    recorder = RunRecorder(tracker)
    recorder.start()
    recorder.snapshot_written(*save(1, full=True))
    assert tracker.is_asked.wait(30)
    for examples in (2, 3, 4):
        recorder.snapshot_written(*save(examples, full=True))
    assert tracker.snapshots == []
    tracker.may_go.set()
    recorder.close(failed=True)
    assert (tracker.snapshots, tracker.ends) == ([1, 4], [True])


def test_a_snapshot_is_recorded_once(save: Save) -> None:
    tracker = Tracker()
    tracker.may_go.set()
    recorder = RunRecorder(tracker)
    recorder.start()
    recorder.snapshot_written(*save(1, full=True))
    recorder.close(failed=False)
    assert tracker.snapshots == [1]


def test_a_run_whose_tracker_does_not_answer_is_given_up_at_the_end(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker()
    recorder = RunRecorder(tracker)
    recorder.start()
    recorder.snapshot_written(*save(1, full=True))
    recorder.close(failed=False, timeout_s=0.05)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["run_not_ended"]
    tracker.may_go.set()
    assert tracker.has_ended.wait(30)


def test_a_tracker_that_fails_costs_a_warning_and_the_run_is_ended_all_the_same(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(fails=True)
    tracker.may_go.set()
    recorder = RunRecorder(tracker)
    recorder.start()
    recorder.snapshot_written(*save(1, full=True))
    recorder.close(failed=False)
    (lost,) = [record for record in caplog.records if record.message == "run_not_recorded"]
    assert lost.reason == "told to fail"
    assert tracker.ends == [False]
