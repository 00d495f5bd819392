"""A trainer that learns nothing new takes full snapshots only, whatever its joiners say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from recsys.snapshots import read_manifest
from streaming.example_wire import ExampleMessage, encode_examples, no_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.topics import EXAMPLES
from training.snapshot_rhythm import SnapshotPeriods

Start = Callable[..., Any]
N_HEARTBEATS = 80


def log_of(small: Any, n_batches: int) -> MemoryLog:
    """Batches, and then messages without rows."""
    batches = chain(map(small.examples, range(n_batches)), (no_examples() for _ in range(N_HEARTBEATS)))
    messages = (ExampleMessage(batch=batch, sequence=number) for number, batch in enumerate(batches))
    return MemoryLog(Entry(EXAMPLES, 0, b"", encode_examples(message)) for message in messages)


def test_what_was_learned_is_saved_once_and_not_again_for_every_heartbeat(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    one = trainer(log_of(small, 3), tmp_path, snapshots=SnapshotPeriods(period_ms=4))
    one.run()
    saved = [manifest.examples for manifest in one.witness.manifests]
    assert saved.count(15) == 2, "once when it was learned, and once at the end"
    assert one.witness.manifests[-1].source_offsets == {f"{EXAMPLES}/0": 3 + N_HEARTBEATS}


def test_offsets_of_heartbeats_are_saved_with_full_snapshots(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    periods = SnapshotPeriods(period_ms=4, full_period_ms=20)
    one = trainer(log_of(small, 1), tmp_path, keep=100, snapshots=periods)
    one.run(is_killed=True)
    idle = [
        path for path in one.witness.paths if read_manifest(path).source_offsets.get(f"{EXAMPLES}/0", 0) > 9
    ]
    assert len(idle) > 1
    assert {read_manifest(path).kind for path in idle} == {"full"}


def test_an_idle_trainer_tries_again_when_a_snapshot_failed(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_bytes(b"a file where a folder should be")
    one = trainer(log_of(small, 0), blocker / "snapshots", snapshots=SnapshotPeriods(period_ms=4))
    real, polls = one.source.poll, iter(range(10_000))

    def poll(**how: Any) -> Any:
        if next(polls) == 9:
            blocker.unlink()
        return real(**how)

    one.source.poll = poll
    one.run(is_killed=True)
    assert one.loop.status.snapshot_failures > 0
    (healed,) = one.witness.manifests
    assert 9 <= healed.source_offsets[f"{EXAMPLES}/0"] < N_HEARTBEATS
