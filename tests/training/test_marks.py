"""What a partition's marks void is not learned, and partitions are learned in an order of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.example_wire import ExampleMessage, encode_examples, no_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.topics import EXAMPLES
from training.snapshot_rhythm import SnapshotPeriods

Start = Callable[..., Any]
END_MS = 1 << 40


def message(small: Any, seed: int, *, epoch: int = 0, sequence: int, watermark_ms: int = 0) -> bytes:
    batch = small.examples(seed)
    return encode_examples(
        ExampleMessage(batch=batch, epoch=epoch, sequence=sequence, watermark_ms=watermark_ms)
    )


def fence(epoch: int, watermark_ms: int = 0) -> bytes:
    return encode_examples(
        ExampleMessage(batch=no_examples(), epoch=epoch, sequence=0, watermark_ms=watermark_ms)
    )


def log_of(*values: bytes) -> MemoryLog:
    return MemoryLog(Entry(EXAMPLES, 0, b"", value) for value in values)


def learned(small: Any, trainer: Start, folder: Path, *values: bytes) -> dict[str, bytes]:
    one = trainer(log_of(*values), folder)
    one.run()
    bits: dict[str, bytes] = small.bits_of(one.learner, one.loop.metrics)
    return bits


LIVES = st.lists(st.lists(st.sampled_from(["batch", "again", "zombie"]), max_size=4), min_size=1, max_size=4)


@given(LIVES)
@settings(max_examples=12, deadline=None)
def test_only_what_no_later_life_had_shut_out_is_learned_and_once(
    small: Any, trainer: Start, lives: list[list[str]]
) -> None:
    values, valid = [], []
    for epoch, doings in enumerate(lives):
        values.append(fence(epoch))
        for sequence, what in enumerate(doings, start=1):
            seed = 10 * epoch + sequence
            if what == "batch":
                valid.append(message(small, seed, epoch=epoch, sequence=sequence))
                values.append(valid[-1])
            elif what == "again" and valid:
                values.append(valid[-1])
            elif what == "zombie" and epoch:
                # A joiner that was declared dead goes on writing under its own epoch.
                values.append(message(small, seed, epoch=epoch - 1, sequence=sequence + 100))
    with TemporaryDirectory() as folder:
        found = learned(small, trainer, Path(folder) / "a", *values)
        assert found == learned(small, trainer, Path(folder) / "b", *valid)


def test_void_messages_are_counted_and_move_the_offset(small: Any, trainer: Start, tmp_path: Path) -> None:
    one = trainer(log_of(fence(2), message(small, 1, epoch=1, sequence=7)), tmp_path)
    one.run()
    assert (one.loop.status.void_messages, one.loop.status.examples) == (1, 0)
    assert one.loop.status.offsets == {f"{EXAMPLES}/0": 2}
    assert one.loop.status.marks == {f"{EXAMPLES}/0": (2, 0)}


def test_a_fence_shuts_out_the_past_after_a_restart_too(small: Any, trainer: Start, tmp_path: Path) -> None:
    log = log_of(message(small, 0, epoch=1, sequence=1), fence(2))
    trainer(log, tmp_path).run()
    log.publish(EXAMPLES, b"", message(small, 1, epoch=1, sequence=2))
    again = trainer(log, tmp_path)
    again.run()
    assert again.loop.status.void_messages == 1
    assert again.loop.status.examples == 5


def test_rows_that_say_nothing_of_the_first_label_are_not_learned(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    whole = small.examples(1, 8)
    is_stated_B = np.arange(8) % 3 != 1
    silent = dataclasses.replace(
        whole, label_BL=np.where(is_stated_B[:, None], whole.label_BL, np.float32(np.nan))
    )
    starts = whole.keys.offsets
    kept = [whole.keys.keys_T[starts[row] : starts[row + 1]] for row in np.flatnonzero(is_stated_B)]
    only = dataclasses.replace(
        whole,
        **{
            field.name: getattr(whole, field.name)[is_stated_B]
            for field in dataclasses.fields(whole)
            if isinstance(getattr(whole, field.name), np.ndarray)
        },
        **{name: [""] * int(is_stated_B.sum()) for name in ("request_id_B", "domain_B", "model_version_B")},
        keys=dataclasses.replace(
            whole.keys, keys_T=np.concatenate(kept), lengths_NF=whole.keys.lengths_NF[is_stated_B]
        ),
    )
    values = [encode_examples(ExampleMessage(batch=batch, sequence=1)) for batch in (silent, only)]
    assert learned(small, trainer, tmp_path / "a", values[0]) == learned(
        small, trainer, tmp_path / "b", values[1]
    )


PARTS = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=2, max_size=3)


@given(PARTS, st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=3), st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_several_partitions_and_any_kills_end_in_the_bits_of_an_undisturbed_run(
    small: Any, trainer: Start, parts: list[list[int]], runs: list[tuple[int, bool]], period_ms: int
) -> None:
    log = MemoryLog()
    for number, times_ms in enumerate(parts):
        for sequence, time_ms in enumerate(times_ms):
            value = message(small, 10 * number + sequence, sequence=sequence, watermark_ms=time_ms)
            log.publish(EXAMPLES, b"", value, partition=number)
        log.publish(EXAMPLES, b"", fence(1, watermark_ms=END_MS), partition=number)
    often = SnapshotPeriods(period_ms=period_ms, full_period_ms=5, rows_per_turn=10)
    with TemporaryDirectory() as folder:
        undisturbed = trainer(log, Path(folder) / "a", n_partitions=len(parts))
        undisturbed.run()
        for limit, is_killed in runs:
            victim = trainer(log, Path(folder) / "b", n_partitions=len(parts), snapshots=often)
            victim.run(limit=limit, is_killed=is_killed)
        last = trainer(log, Path(folder) / "b", n_partitions=len(parts), snapshots=often)
        last.run()
    assert undisturbed.loop.status.examples == 5 * sum(map(len, parts))
    assert last.loop.status.offsets == undisturbed.loop.status.offsets
    assert last.loop.status.marks == undisturbed.loop.status.marks
    wanted = small.bits_of(undisturbed.learner, undisturbed.loop.metrics)
    assert small.bits_of(last.learner, last.loop.metrics) == wanted
