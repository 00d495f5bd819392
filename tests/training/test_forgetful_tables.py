"""A table that filters keys and forgets rows is resumed to the same bits too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.table import Adagrad, Expiry, Occurrence, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.native import NativeTable
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.topics import EXAMPLES
from training.snapshot_rhythm import SnapshotPeriods

Start = Callable[..., Any]
N_MESSAGES = 20


@pytest.fixture(scope="module")
def forgetful(small: Any) -> Any:
    """The small model over a table whose rows expire after two minutes and need two occurrences."""

    class Forgetful(type(small)):  # type: ignore[misc]
        def table(self, name: str = "rows") -> NativeTable:
            rule = Adagrad(learning_rate=0.1)
            wide = SliceSpec(name="wide", dim=1, optimizer=rule, initializer=Zeros())
            vector = SliceSpec(name="vector", dim=3, optimizer=rule, initializer=Uniform(low=-0.5, high=0.5))
            spec = TableSpec(
                name=name,
                slices=(wide, vector),
                expiry=Expiry(max_idle_s=120),
                admission=Occurrence(threshold=2),
            )
            return NativeTable(spec, threads=1)

    return Forgetful()


def example_log(small: Any) -> MemoryLog:
    """Few keys a message, so that most are idle for a while now and then."""
    return MemoryLog(
        Entry(EXAMPLES, 0, b"", encode_examples(ExampleMessage(batch=small.examples(i, 2), sequence=i)))
        for i in range(N_MESSAGES)
    )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=2), st.integers(2, 6))
@settings(max_examples=5, deadline=None)
def test_kills_change_nothing_of_what_is_let_in_and_forgotten(
    forgetful: Any, trainer: Start, limits: list[int], period_ms: int
) -> None:
    log, often = example_log(forgetful), SnapshotPeriods(period_ms=period_ms, full_period_ms=9)
    plain: dict[str, Any] = {"model": forgetful, "sweep_every_s": 60}
    with TemporaryDirectory() as folder:
        undisturbed = trainer(log, Path(folder) / "a", **plain)
        undisturbed.run()
        for limit in limits:
            trainer(log, Path(folder) / "b", snapshots=often, **plain).run(limit=limit, is_killed=True)
        last = trainer(log, Path(folder) / "b", snapshots=often, **plain)
        last.run()
    counters = undisturbed.learner.table.counters()
    assert min(counters.expired, counters.filtered) > 0, "this test would prove nothing"
    wanted = forgetful.bits_of(undisturbed.learner, undisturbed.loop.metrics)
    assert forgetful.bits_of(last.learner, last.loop.metrics) == wanted
    ledgers = [dict(one.learner.table.ledger()) for one in (undisturbed, last)]
    for name, array in ledgers[0].items():
        np.testing.assert_array_equal(ledgers[1][name], array, err_msg=name)
