"""A disk that takes no snapshot costs a warning; learning goes on, and the next one holds it all."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from recsys.snapshots import read_manifest, snapshots
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.topics import EXAMPLES
from training.snapshot_rhythm import SnapshotPeriods

Start = Callable[..., Any]
OFTEN = SnapshotPeriods(period_ms=2, full_period_ms=30, rows_per_turn=8)


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Every file of this process ends there, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def example_log(small: Any, n: int) -> MemoryLog:
    return MemoryLog(
        Entry(EXAMPLES, 0, b"", encode_examples(ExampleMessage(batch=small.examples(i), sequence=i)))
        for i in range(n)
    )


def undisturbed_bits(small: Any, trainer: Start, log: MemoryLog, folder: Path) -> dict[str, bytes]:
    plain = trainer(log, folder)
    plain.run()
    bits: dict[str, bytes] = small.bits_of(plain.learner, plain.loop.metrics)
    return bits


def restored_bits(small: Any, trainer: Start, log: MemoryLog, folder: Path) -> tuple[int, dict[str, bytes]]:
    """(examples in the newest snapshot, bits after the rest was learned on top of it)."""
    one = trainer(log, folder)
    examples = one.manifest.examples if one.manifest else 0
    one.run()
    return examples, small.bits_of(one.learner, one.loop.metrics)


def fill(file: Path) -> None:
    """Take all the room that is left."""
    with file.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(1 << 16))


def no_debris(folder: Path) -> bool:
    return [path for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_stops_snapshots_but_no_learning_and_a_restart_goes_on_from_the_last_good_one(
    small: Any, trainer: Start, small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, folder = example_log(small, 40), small_disk / "snapshots"
    first = trainer(log, folder, snapshots=OFTEN, keep=1)
    first.run(limit=10)
    ballast = small_disk / "ballast"
    fill(ballast)
    victim = trainer(log, folder, snapshots=OFTEN, keep=1)
    with caplog.at_level("WARNING"):
        victim.run(limit=20)
    assert victim.loop.status.examples == 150
    assert victim.loop.status.snapshot_failures > 1
    assert victim.witness.manifests == []
    failed = [record for record in caplog.records if record.message == "snapshot_failed"]
    assert all("could not be written" in r.reason and "No space left" in r.reason for r in failed)
    assert no_debris(folder)
    ballast.unlink()
    examples, bits = restored_bits(small, trainer, log, folder)
    assert examples == 50
    assert bits == undisturbed_bits(small, trainer, log, tmp_path / "plain")


def test_what_changed_while_the_disk_was_full_is_in_the_next_increment(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    log, folder = example_log(small, 30), tmp_path / "a"
    one = trainer(log, folder, snapshots=SnapshotPeriods(period_ms=2, rows_per_turn=8))
    real, polls = one.source.poll, iter(range(10_000))
    limit = None

    def poll(**how: Any) -> Any:
        nonlocal limit
        number = next(polls)
        if number == 8:
            limit = files_of_at_most(1 << 16)
            limit.__enter__()
        if number == 20 and limit is not None:
            limit.__exit__(None, None, None)
        return real(**how)

    one.source.poll = poll
    one.run()
    assert one.loop.status.snapshot_failures > 0
    newest = snapshots(folder)[-1]
    assert read_manifest(newest).kind == "increment"
    examples, bits = restored_bits(small, trainer, log, folder)
    assert examples == 150
    assert bits == undisturbed_bits(small, trainer, log, tmp_path / "plain")


def test_a_folder_that_cannot_be_written_is_read_from_all_the_same(
    small: Any, trainer: Start, small_disk: Path, tmp_path: Path
) -> None:
    log, folder = example_log(small, 20), small_disk / "snapshots"
    trainer(log, folder, snapshots=OFTEN).run(limit=10)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    victim = trainer(log, folder, snapshots=OFTEN)
    assert victim.manifest.examples == 50
    victim.run()
    assert (victim.loop.status.examples, victim.witness.manifests) == (100, [])
    assert victim.loop.status.snapshot_failures > 1
    wanted = undisturbed_bits(small, trainer, log, tmp_path / "plain")
    assert small.bits_of(victim.learner, victim.loop.metrics) == wanted


def test_a_folder_that_cannot_be_made_does_not_keep_a_trainer_from_learning(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    one = trainer(example_log(small, 4), tmp_path / "file" / "snapshots")
    one.run()
    assert (one.loop.status.examples, one.loop.status.snapshot_failures) == (20, 2)


def test_a_corrupt_newest_snapshot_gives_way_and_the_log_brings_the_rest(
    small: Any, trainer: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, folder = example_log(small, 20), tmp_path / "a"
    trainer(log, folder, snapshots=OFTEN).run(limit=15)
    newest = snapshots(folder)[-1]
    rows = newest / "rows" / "rows-00000-of-00001.arrow"
    rows.write_bytes(rows.read_bytes()[:-7])
    examples, bits = restored_bits(small, trainer, log, folder)
    assert 0 < examples <= 75
    (skipped,) = [record for record in caplog.records if record.message == "snapshot_skipped"]
    assert skipped.path == str(newest)
    assert str(rows) in skipped.reason
    assert bits == undisturbed_bits(small, trainer, log, tmp_path / "plain")
