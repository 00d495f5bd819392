"""A crash repeats, it never loses: a trainer killed in mid-run ends where an undisturbed one ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from infra.demo.processes import Child, Family
from infra.recipes.movielens import movielens
from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, plain_examples
from recsys.snapshots import read_dense, read_manifest, read_metrics, read_table, snapshots
from recsys.table.native import NativeTable
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.kafka import KafkaConfig, KafkaSink
from streaming.topics import EXAMPLES

BATCHES, ROWS = 250, 256
RECIPE = movielens()


def example_batch(rng: np.random.Generator, number: int) -> ExampleBatch:
    """Random examples of the recipe's schema over a few thousand keys."""
    n_features = len(RECIPE.schema.features)
    ids = np.arange(ROWS, dtype=np.uint64) + np.uint64(number * ROWS)
    return plain_examples(
        example_id_B=ids,
        user_id_B=ids,
        item_id_B=ids,
        event_time_ms_B=np.arange(ROWS, dtype=np.int64) + 1_700_000_000_000 + number * ROWS,
        label_B=(rng.random(ROWS) < 0.4).astype(np.float32),
        keys=RaggedKeys(
            rng.zipf(1.3, ROWS * n_features).astype(np.uint64) % np.uint64(20_000),
            np.ones((ROWS, n_features), np.uint8),
        ),
        schema_fingerprint=RECIPE.schema.fingerprint,
    )


@pytest.fixture
def example_log(bootstrap: str) -> None:
    """Fills the example topic."""
    rng = np.random.default_rng(3)
    with closing(KafkaSink(KafkaConfig(bootstrap=bootstrap))) as sink:
        for number in range(BATCHES):
            message = ExampleMessage(batch=example_batch(rng, number), sequence=number)
            sink.publish(EXAMPLES, b"0", encode_examples(message), partition=0)
        sink.flush()


def learned(child: Child) -> float:
    return child.metrics().get("training_examples_total", 0.0)


@pytest.mark.usefixtures("example_log")
def test_a_trainer_killed_twice_ends_with_the_same_bits(
    family: Family, tmp_path: Path, until: Callable[..., None]
) -> None:
    def start(name: str, state: str) -> Child:
        verb = ["train", "--recipe", RECIPE.name, "--state-dir", str(tmp_path / state)]
        return family.start(name, [*verb, "--snapshot-period-s", "0.2", "--keep", "2"])

    total = BATCHES * ROWS
    undisturbed = start("undisturbed", "a")
    until("the undisturbed trainer", lambda: learned(undisturbed) == total, family=family)
    assert undisturbed.stop() == 0

    for life, share in enumerate((0.2, 0.6)):
        victim = start(f"victim-{life}", "b")
        until("the victim to be in mid-run", lambda v=victim, s=share: learned(v) > s * total, family=family)
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        assert learned(victim) == 0.0
        del family.children[victim.name]
        newest = read_manifest(snapshots(tmp_path / "b" / RECIPE.name / "snapshots")[-1])
        assert newest.examples < total, "the victim had finished: this test would prove nothing"
    survivor = start("survivor", "b")
    until("the survivor", lambda: learned(survivor) == total, family=family)
    assert survivor.stop() == 0

    finals = [snapshots(tmp_path / state / RECIPE.name / "snapshots")[-1] for state in ("a", "b")]
    one, other = (read_manifest(path) for path in finals)
    assert (one.examples, one.source_offsets) == (other.examples, other.source_offsets)
    assert (one.incarnation, other.incarnation) == (1, 3)
    for read in (read_dense, read_metrics):
        left, right = (read(path, read_manifest(path)) for path in finals)
        assert left.keys() == right.keys()
        for name, array in left.items():
            np.testing.assert_array_equal(array, right[name], err_msg=name)
    tables = [NativeTable(RECIPE.table) for _ in finals]
    for path, table in zip(finals, tables, strict=True):
        read_table(path, table)
    keys = tables[0].keys()
    np.testing.assert_array_equal(keys, tables[1].keys())
    left_rows, right_rows = (table.export_rows(keys) for table in tables)
    np.testing.assert_array_equal(left_rows.weights_ND, right_rows.weights_ND)
    np.testing.assert_array_equal(left_rows.state_NS, right_rows.state_NS)
    np.testing.assert_array_equal(left_rows.last_seen_s_N, right_rows.last_seen_s_N)
