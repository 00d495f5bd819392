"""Snapshots are kept, fallen back on and dropped without a reader ever loading half of one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import read_manifest, snapshots
from recsys.table.snapshot import read_manifest as read_rows_manifest
from serving.replica import Replica
from training.checkpoints import CheckpointConfig, Checkpoints, restore_from

FILES = [
    "manifest.json",
    "dense.safetensors",
    "metrics.safetensors",
    "rows/rows.json",
    "rows/rows-00000-of-00001.arrow",
]


class Run:
    """A learner that is saved as it learns, and its bits at each save."""

    def __init__(self, small: Any, folder: Path, *, keep: int = 3) -> None:
        self.small, self.folder = small, folder
        self.checkpoints = Checkpoints(CheckpointConfig(folder=folder, keep=keep))
        self.learner, self.metrics = small.learner(), ProgressiveMetrics(60_000)
        self.saved: dict[Path, dict[str, bytes]] = {}

    def save(self, examples: int, *, full: bool = False, **changes: Any) -> Path:
        batch = self.small.examples(examples)
        self.small.learn(self.learner, examples)
        self.metrics.add(batch.label_B, batch.label_B, int(batch.event_time_ms_B.max()))
        manifest = self.small.manifest(examples=examples, **changes)
        path = self.checkpoints.save(manifest, self.learner, self.metrics, full=full)
        self.saved[path] = self.small.bits_of(self.learner, self.metrics)
        return path

    def restored(self) -> tuple[Any, dict[str, bytes]]:
        learner, metrics = self.small.learner(), ProgressiveMetrics(60_000)
        manifest = self.checkpoints.restore(learner, metrics)
        return manifest, self.small.bits_of(learner, metrics)


@pytest.fixture
def run(small: Any, tmp_path: Path) -> Run:
    return Run(small, tmp_path / "run")


def damage(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)


def test_the_newest_comes_back_bit_for_bit(run: Run) -> None:
    paths = [run.save(examples) for examples in (1, 2, 10)]
    manifest, bits = run.restored()
    assert manifest.examples == 10
    assert bits == run.saved[paths[-1]]


def test_a_folder_without_snapshots_restores_nothing(run: Run) -> None:
    fresh = run.small.bits_of(run.small.learner(), ProgressiveMetrics(60_000))
    assert run.restored() == (None, fresh)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_gives_way_to_the_one_before_it(run: Run, name: str) -> None:
    before, newest = run.save(1), run.save(2)
    damage(newest, name)
    manifest, bits = run.restored()
    assert manifest.examples == 1
    assert bits == run.saved[before]


def test_after_a_fall_back_the_next_start_is_new_to_every_replica(run: Run) -> None:
    run.save(1, incarnation=3)
    damage(run.save(1, incarnation=4), "manifest.json")
    assert run.restored()[0].incarnation == 4, "replicas have seen deltas of start 4; the next must be 5"


@pytest.mark.parametrize("name", FILES)
def test_when_all_are_damaged_the_model_is_not_silently_forgotten(run: Run, name: str) -> None:
    for examples in (1, 2):
        damage(run.save(examples), name)
    with pytest.raises(SnapshotError, match="none of 2 snapshots can be loaded"):
        run.restored()


def test_a_snapshot_of_another_table_is_refused_with_the_reason(run: Run, small: Any) -> None:
    run.save(1)
    other = small.learner_over(small.table(name="other"))
    with pytest.raises(SnapshotError, match="build the table from the spec that was saved"):
        run.checkpoints.restore(other, ProgressiveMetrics(60_000))
    assert len(other.table) == 0


SAVES = st.lists(st.booleans(), min_size=1, max_size=7)


@given(SAVES, st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_the_newest_stay_with_what_they_build_on_and_one_of_another_chain(
    small: Any, tmp_path_factory: pytest.TempPathFactory, fulls: list[bool], keep: int
) -> None:
    run = Run(small, tmp_path_factory.mktemp("kept"), keep=keep)
    chains: list[list[Path]] = []
    for number, is_full in enumerate(fulls):
        path = run.save(number, full=is_full)
        if is_full or number == 0:
            chains.append([])
        chains[-1].append(path)
    newest = [path for chain in chains for path in chain][-keep:]
    wanted = {path for chain in chains if set(chain) & set(newest) for path in chain}
    if set(newest) <= set(chains[-1]) and keep > 1:
        wanted |= {path for chain in chains[-2:] for path in chain}
    assert set(snapshots(run.folder)) == wanted
    assert sorted(run.folder.iterdir()) == snapshots(run.folder)


@given(SAVES, st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_whole_up_to_its_full_snapshot_comes_back_bit_for_bit(
    small: Any, tmp_path_factory: pytest.TempPathFactory, fulls: list[bool], data: st.DataObject
) -> None:
    run = Run(small, tmp_path_factory.mktemp("whole"), keep=20)
    paths = [run.save(number, full=is_full) for number, is_full in enumerate(fulls)]
    hurt = data.draw(st.sets(st.sampled_from(range(len(paths)))))
    names = {number: data.draw(st.sampled_from(FILES)) for number in hurt}
    for number, name in names.items():
        damage(paths[number], name)
    whole, is_chain_whole = [], False
    for number, is_full in enumerate(fulls):
        # Nobody builds on the dense weights and metrics of another snapshot.
        has_rows = names.get(number, "dense.safetensors") in ("dense.safetensors", "metrics.safetensors")
        is_chain_whole = has_rows and (is_chain_whole or is_full or number == 0)
        whole += [number] if is_chain_whole and number not in hurt else []
    if whole:
        manifest, bits = run.restored()
        assert manifest.examples == whole[-1]
        assert bits == run.saved[paths[whole[-1]]]
    else:
        with pytest.raises(SnapshotError, match="can be loaded"):
            run.restored()


def test_a_damaged_link_is_named_and_each_point_that_is_passed_over_is_warned_of(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before, first, second = run.save(1, full=True), run.save(2), run.save(3)
    damage(first, "rows/rows-00000-of-00001.arrow")
    with caplog.at_level("WARNING"):
        assert run.restored()[0].examples == 1
    skipped = [record for record in caplog.records if record.message == "snapshot_skipped"]
    assert [record.path for record in skipped] == [str(second), str(first)]
    assert all(str(first) in record.reason for record in skipped)
    assert run.restored()[1] == run.saved[before]


def test_an_increment_after_a_lost_link_is_a_full_snapshot(run: Run) -> None:
    run.save(1)
    lost = run.save(2)
    shutil.rmtree(lost)
    healed = run.save(3)
    assert read_manifest(healed).kind == "full"
    assert run.restored()[1] == run.saved[healed]


def test_an_increment_holds_only_what_changed(run: Run) -> None:
    run.learner.table.assign(run.small.keys(*range(24)), np.ones((24, 4), np.float32))
    full = run.save(1)
    increment = run.save(2)
    n_rows = [read_rows_manifest(path / "rows").shards[0].rows.entries for path in (full, increment)]
    assert n_rows[1] < n_rows[0]
    assert read_manifest(increment).base == full.name


def test_what_a_killed_writer_left_goes_with_the_next_save(run: Run) -> None:
    run.save(1)
    (run.folder / ".snapshot-0001-000000000002.4711" / "rows").mkdir(parents=True)
    run.save(3)
    assert sorted(run.folder.iterdir()) == snapshots(run.folder)


def test_a_snapshot_without_metrics_wanted_is_restored_for_its_parameters(run: Run, small: Any) -> None:
    path, learner = run.save(1), small.learner()
    assert restore_from(path, learner).examples == 1
    assert learner.table.keys().tolist() == run.learner.table.keys().tolist()


def test_a_replica_that_reads_what_is_being_dropped_loads_all_of_it_or_nothing(run: Run, small: Any) -> None:
    run.checkpoints.close()
    run = Run(small, run.folder, keep=1)
    keys = small.keys(*range(24))
    replica, is_done = Replica(small.scorer, small.schema.fingerprint), threading.Event()
    mixed: list[Any] = []

    def read(load: Callable[[], Any]) -> None:
        while not is_done.is_set():
            try:
                examples = load().examples
            except (SnapshotError, IndexError):
                continue
            if set(replica.parameters.table.lookup(keys).ravel().tolist()) != {float(examples)}:
                mixed.append(examples)

    reader = threading.Thread(target=read, args=(lambda: replica.load(snapshots(run.folder)[-1]),))
    reader.start()
    for examples in range(1, 60):
        run.learner.table.assign(keys, np.full((24, 4), examples, np.float32))
        is_full = examples % 3 == 0
        run.checkpoints.save(small.manifest(examples=examples), run.learner, run.metrics, full=is_full)
    replica.ready.wait(timeout=30)
    is_done.set()
    reader.join()
    assert mixed == []
    assert replica.ready.is_set()


def test_keeping_nothing_is_refused_when_the_config_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep must be > 0, got 0"):
        CheckpointConfig(folder=tmp_path, keep=0)


def test_a_snapshot_that_cannot_be_removed_does_not_end_the_training(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for examples in range(3):
        run.save(examples, full=True)
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target.name.endswith(".dropped"):
            raise PermissionError(1, "Operation not permitted")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    run.save(3, full=True)
    monkeypatch.undo()
    assert len(snapshots(run.folder)) == 4
    run.save(4, full=True)
    assert len(snapshots(run.folder)) == 3
