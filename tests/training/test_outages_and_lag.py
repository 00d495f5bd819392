"""A log out of reach is waited for, and a trainer that lags says so and does as its policy says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.errors import OffsetLost, SourceUnavailable
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.topics import EXAMPLES
from training.lag import LagConfig

Start = Callable[..., Any]
N_MESSAGES, N_ROWS = 20, 40


def example_log(small: Any, n: int = N_MESSAGES) -> MemoryLog:
    items_B = np.arange(N_ROWS, dtype=np.uint64)
    batches = (dataclasses.replace(small.examples(i, N_ROWS), item_id_B=items_B) for i in range(n))
    values = (
        encode_examples(ExampleMessage(batch=batch, sequence=i, watermark_ms=7 + i, sent_at_ms=1))
        for i, batch in enumerate(batches)
    )
    return MemoryLog(Entry(EXAMPLES, 0, b"", value) for value in values)


def fail_at(one: Any, polls: range, error: Exception) -> None:
    """Let some polls of a trainer's source raise."""
    real, numbers = one.source.poll, iter(range(1000))

    def poll(**how: Any) -> Any:
        if next(numbers) in polls:
            raise error
        return real(**how)

    one.source.poll = poll


def test_a_log_out_of_reach_is_asked_again_and_warned_of_once(
    small: Any, trainer: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = trainer(example_log(small, 4), tmp_path)
    fail_at(one, range(2, 4), SourceUnavailable("no broker at 127.0.0.1:1"))
    one.run()
    assert one.loop.status.examples == 4 * N_ROWS
    cut_off = [record for record in caplog.records if record.message == "examples_unreachable"]
    assert [record.reason for record in cut_off] == ["no broker at 127.0.0.1:1"]


def test_a_log_that_lost_what_is_next_ends_the_run(small: Any, trainer: Start, tmp_path: Path) -> None:
    one = trainer(example_log(small, 4), tmp_path)
    fail_at(one, range(2, 3), OffsetLost("it has moved on"))
    with pytest.raises(OffsetLost):
        one.run()


def test_the_status_tells_how_far_behind_it_is(small: Any, trainer: Start, tmp_path: Path) -> None:
    one = trainer(example_log(small), tmp_path, lag_period_ms=1)
    one.run(limit=5, is_killed=True)
    status = one.loop.status
    assert (status.lag_records, status.watermark_ms, status.sent_at_ms) == (N_MESSAGES - 5, 11, 1)
    assert status.lag_ms > 0
    one = trainer(example_log(small), tmp_path, lag_period_ms=1)
    one.run()
    assert (one.loop.status.lag_records, one.loop.status.lag_ms) == (0, 0)


@pytest.mark.parametrize(("policy", "is_whole"), [("catch_up", True), ("thin", False)])
def test_a_lagging_trainer_learns_all_or_fewer_negatives_as_its_policy_says(
    small: Any, trainer: Start, tmp_path: Path, policy: Any, is_whole: bool
) -> None:
    lag = LagConfig(policy=policy, max_records=2, max_wait_ms=1, least_share=0.25)
    one = trainer(example_log(small), tmp_path, lag=lag, lag_period_ms=1)
    steps: list[int] = []
    learn = one.learner.step

    def step(keys: Any, *args: Any, **how: Any) -> Any:
        steps.append(len(keys))
        return learn(keys, *args, **how)

    one.learner.step = step
    one.run()
    assert one.loop.status.examples == N_MESSAGES * N_ROWS
    assert (sum(steps) == N_MESSAGES * N_ROWS) is is_whole
