"""A crash repeats, it never loses: a trainer killed in mid-run, or left without a disk, ends where an
undisturbed one ends."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

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

ROWS = 256
PATIENCE_S = 300.0
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


def fill_log(bootstrap: str, batches: int, first: int = 0) -> int:
    """Put examples into their topic; how many there are now."""
    rng = np.random.default_rng(3 + first)
    with closing(KafkaSink(KafkaConfig(bootstrap=bootstrap))) as sink:
        for number in range(first, first + batches):
            message = ExampleMessage(batch=example_batch(rng, number), sequence=number)
            sink.publish(EXAMPLES, b"0", encode_examples(message), partition=0)
        sink.flush()
    return (first + batches) * ROWS


def learned(child: Child) -> float:
    return child.metrics().get("training_examples_total", 0.0)


def saved(folder: Path) -> int:
    """Examples in the newest snapshot."""
    found = snapshots(folder)
    return read_manifest(found[-1]).examples if found else 0


@pytest.mark.parametrize(
    ("kills", "batches"),
    [
        pytest.param(3, 400, id="3-kills"),
        pytest.param(20, 1200, id="20-kills", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ],
)
def test_a_trainer_killed_at_random_moments_ends_with_the_same_bits(
    family: Family, bootstrap: str, tmp_path: Path, until: Callable[..., None], kills: int, batches: int
) -> None:
    def start(name: str, state: str, *options: str) -> Child:
        verb = ["train", "--recipe", RECIPE.name, "--state-dir", str(tmp_path / state)]
        return family.start(name, [*verb, *options])

    often = ["--snapshot-period-s", "0.2", "--full-snapshot-period-s", "2", "--keep", "2"]
    total, rng = fill_log(bootstrap, batches), random.Random(kills)
    undisturbed = start("undisturbed", "a")
    until(
        "the undisturbed trainer", lambda: learned(undisturbed) == total, family=family, timeout_s=PATIENCE_S
    )
    assert undisturbed.stop() == 0

    folder = tmp_path / "b" / RECIPE.name / "snapshots"
    for life in range(kills):
        victim, so_far = start(f"victim-{life}", "b", *often), saved(folder)
        # A life learns about an equal part of the log; it may also end before its first example.
        share = rng.choice([0.0, rng.random(), 2 * rng.random()]) / (kills + 1)
        goal = so_far + share * total
        until("the victim", lambda v=victim, n=goal: learned(v) >= n, family=family)
        time.sleep(rng.random() * 0.05)
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        del family.children[victim.name]
        assert saved(folder) < total, "the victim had finished: this test would prove nothing"
    survivor = start("survivor", "b", *often)
    until("the survivor", lambda: learned(survivor) == total, family=family, timeout_s=PATIENCE_S)
    assert survivor.stop() == 0
    assert_same_model(*(snapshots(tmp_path / state / RECIPE.name / "snapshots")[-1] for state in ("a", "b")))


def test_a_trainer_whose_disk_was_lost_goes_on_from_the_store(
    family: Family, bootstrap: str, tmp_path: Path, until: Callable[..., None]
) -> None:
    def run_to(name: str, total: int) -> Path:
        options = ["--state-dir", str(tmp_path / name), "--snapshot-url", f"file://{tmp_path}/store"]
        child = family.start(name, ["train", "--recipe", RECIPE.name, *options])
        until(name, lambda: learned(child) == total, family=family)
        assert child.stop() == 0
        return snapshots(tmp_path / name / RECIPE.name / "snapshots")[-1]

    first = read_manifest(run_to("first", fill_log(bootstrap, 10)))
    last = run_to("second", fill_log(bootstrap, 10, first=10))
    manifest = read_manifest(last)
    assert (manifest.model, manifest.incarnation) == (first.model, first.incarnation + 1)
    assert manifest.examples == 20 * ROWS
    assert last.name in {path.parent.name for path in (tmp_path / "store").rglob("manifest.json")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_disk_that_fills_turns_read_only_and_corrupts_costs_snapshots_and_nothing_else(
    family: Family, bootstrap: str, tmp_path: Path, small_disk: Path, until: Callable[..., None]
) -> None:
    def start(name: str, state: Path) -> Child:
        periods = ["--snapshot-period-s", "0.5", "--full-snapshot-period-s", "4"]
        return family.start(
            name, ["train", "--recipe", RECIPE.name, "--state-dir", str(state), "--keep", "2", *periods]
        )

    def learns(child: Child, total: int) -> None:
        until(child.name, lambda: learned(child) == total, family=family, timeout_s=PATIENCE_S)

    folder = small_disk / RECIPE.name / "snapshots"
    trainer = start("trainer", small_disk)
    learns(trainer, fill_log(bootstrap, 60))
    until("its snapshot", lambda: saved(folder) == 60 * ROWS, family=family)

    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    learns(trainer, fill_log(bootstrap, 60, first=60))
    until("failures", lambda: failures(trainer) > 1, family=family)
    assert saved(folder) == 60 * ROWS
    ballast.unlink()
    until("the disk to be used again", lambda: saved(folder) == 120 * ROWS, family=family)

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    total, before = fill_log(bootstrap, 60, first=120), failures(trainer)
    learns(trainer, total)
    until("more failures", lambda: failures(trainer) > before, family=family)
    trainer.process.send_signal(signal.SIGKILL)
    trainer.process.wait()
    del family.children["trainer"]
    said = [line for line in trainer.log_path.read_text().splitlines() if "snapshot_failed" in line]
    assert any("No space left" in line for line in said)
    assert any("Read-only" in line for line in said)

    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    newest = snapshots(folder)[-1]
    rows = newest / "rows" / "rows-00000-of-00001.arrow"
    rows.write_bytes(rows.read_bytes()[:-9])
    again = start("again", small_disk)
    learns(again, total)
    assert again.stop() == 0
    assert f"snapshot_skipped path='{newest}'" in again.log_path.read_text()

    plain = start("plain", tmp_path / "plain")
    learns(plain, total)
    assert plain.stop() == 0
    finals = [state / RECIPE.name / "snapshots" for state in (small_disk, tmp_path / "plain")]
    assert_same_model(*(snapshots(final)[-1] for final in finals))


def failures(child: Child) -> float:
    return child.metrics().get("training_snapshot_failures_total", 0.0)


def assert_same_model(one: Path, other: Path) -> None:
    """Every bit that is learned, and every one that decides how learning goes on."""
    manifests = [read_manifest(path) for path in (one, other)]
    assert manifests[0].source_offsets == manifests[1].source_offsets
    assert (manifests[0].examples, manifests[0].marks) == (manifests[1].examples, manifests[1].marks)
    for read in (read_dense, read_metrics):
        assert_same_arrays(*(read(path, read_manifest(path)) for path in (one, other)))
    tables = [NativeTable(RECIPE.table) for _ in range(2)]
    for path, table in zip((one, other), tables, strict=True):
        read_table(path, table)
    assert_same_arrays(*(dict(table.ledger()) for table in tables))
    rows = [table.export_rows(table.keys()) for table in tables]
    names = ("keys_N", "weights_ND", "state_NS", "last_seen_s_N", "count_N")
    assert_same_arrays(*({name: getattr(part, name) for name in names} for part in rows))


def assert_same_arrays(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)
