"""A snapshot exists whole or not at all, and no changed byte of it is ever loaded."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import (
    clear_leftovers,
    drop_snapshot,
    incarnation_of,
    read_dense,
    read_manifest,
    read_metrics,
    read_table,
    snapshots,
    write_manifest,
    write_snapshot,
)

FILES = ("manifest.json", "dense.safetensors", "metrics.safetensors", "rows/rows.json")
PIECE = "rows/rows-00000-of-00001.arrow"


class Killed(BaseException):
    """The writer is gone: nothing after this runs, as after kill -9."""


def write(small: Any, folder: Path, *, seeds: int = 3, **changes: Any) -> Path:
    learner, metrics = small.learner(), ProgressiveMetrics(60_000)
    for seed in range(seeds):
        small.learn(learner, seed)
    manifest = small.manifest(examples=5 * seeds, **changes)
    return write_snapshot(folder, manifest, learner.table, learner.dense_state(), metrics.state())


def load(small: Any, path: Path) -> Any:
    """Every part of a snapshot, as its readers read it."""
    manifest, table = read_manifest(path), small.table()
    arrays = read_dense(path, manifest) | read_metrics(path, manifest)
    read_table(path, table)
    return manifest, {name: array.tobytes() for name, array in arrays.items()}, small.rows_of(table)


@pytest.fixture(scope="module")
def whole(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(small, tmp_path_factory.mktemp("whole"))


@given(st.sampled_from([*FILES, PIECE]), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(max_examples=120, deadline=None)
def test_a_changed_byte_anywhere_is_refused_with_the_name_of_its_file(
    small: Any, whole: Path, name: str, place: float, flip: int
) -> None:
    file = whole / name
    content = file.read_bytes()
    at = int(place * len(content))
    file.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
    try:
        with pytest.raises(SnapshotError, match=str(file)):
            load(small, whole)
    finally:
        file.write_bytes(content)


@given(st.sampled_from([*FILES, PIECE]), st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None)
def test_a_file_cut_short_is_refused_with_its_name(small: Any, whole: Path, name: str, place: float) -> None:
    file = whole / name
    content = file.read_bytes()
    file.write_bytes(content[: int(place * len(content))])
    try:
        with pytest.raises(SnapshotError, match=str(file)):
            load(small, whole)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, PIECE])
def test_a_missing_file_is_refused_with_its_name(small: Any, tmp_path: Path, name: str) -> None:
    path = write(small, tmp_path)
    (path / name).unlink()
    with pytest.raises(SnapshotError, match=str(path / name)):
        load(small, path)


def failing(monkeypatch: pytest.MonkeyPatch, operation: str, number: int, error: BaseException) -> None:
    """Let call ``number`` of a file operation raise instead."""
    owner = Path if operation == "rename" else os
    real, calls = getattr(owner, operation), iter(range(1000))

    def call(*args: Any) -> Any:
        if next(calls) == number:
            raise error
        return real(*args)

    monkeypatch.setattr(owner, operation, call)


STEPS = [("fsync", number) for number in range(9)] + [("rename", number) for number in range(2)]


@pytest.mark.parametrize(("operation", "number"), STEPS)
def test_a_writer_killed_at_any_step_leaves_only_whole_snapshots(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    older = write(small, tmp_path, seeds=1)
    write(small, tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, operation, number, Killed())
        with pytest.raises(Killed):
            write(small, tmp_path, table_sequence=7)
    found = snapshots(tmp_path)
    assert older in found
    assert all(load(small, path)[0].table_sequence in (0, 7) for path in found)
    newest = write(small, tmp_path, table_sequence=8)
    assert load(small, newest)[0].table_sequence == 8
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == [older, newest]


@pytest.mark.parametrize("number", range(8))
def test_a_full_disk_is_a_snapshot_error_and_leaves_nothing(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(monkeypatch, "fsync", number, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(SnapshotError, match=r"could not be written.*No space left"):
        write(small, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_snapshot_error(small: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SnapshotError, match="could not be written"):
        write(small, tmp_path / "file")


def test_a_folder_that_is_not_there_holds_no_snapshots(tmp_path: Path) -> None:
    assert snapshots(tmp_path / "absent") == []


def test_a_snapshot_of_another_format_is_refused(small: Any, tmp_path: Path) -> None:
    path = write(small, tmp_path)
    write_manifest(path, small.manifest().model_copy(update={"format": 1}))
    with pytest.raises(SnapshotError, match="no usable manifest"):
        read_manifest(path)


def test_a_dropped_snapshot_is_gone_and_dropping_it_again_is_harmless(small: Any, tmp_path: Path) -> None:
    path = write(small, tmp_path)
    drop_snapshot(path)
    drop_snapshot(path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_snapshot_still_tells_its_incarnation(small: Any, tmp_path: Path) -> None:
    path = write(small, tmp_path, incarnation=12)
    (path / "manifest.json").write_bytes(b"")
    assert incarnation_of(path) == 12
    assert incarnation_of(tmp_path / "snapshot-of-something") == 0
