"""The example archive: what was in the messages, in their order, and not one row twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, plain_examples
from streaming.errors import SourceUnavailable, WireError
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, LogSource, MemoryLog
from streaming.source import Partition, Record
from training.archive import Coverage, ExampleArchive, archive_to_end, coverage_of, read_examples
from training.errors import LayoutMismatch, TrainingError

TOPIC, SCHEMA, N_FEATURES = "examples", 7, 3


def examples(n_rows: int, seed: int, *, schema: int = SCHEMA) -> ExampleBatch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 4, (n_rows, N_FEATURES)).astype(np.uint8)
    plain = plain_examples(
        example_id_B=rng.integers(0, 1 << 63, n_rows).astype(np.uint64) * np.uint64(2),
        user_id_B=rng.integers(0, 1 << 40, n_rows).astype(np.uint64),
        item_id_B=rng.integers(0, 1 << 40, n_rows).astype(np.uint64),
        event_time_ms_B=rng.integers(0, 1 << 40, n_rows),
        label_B=rng.integers(0, 2, n_rows).astype(np.float32),
        keys=RaggedKeys(rng.integers(0, 1 << 63, int(lengths.sum())).astype(np.uint64), lengths),
        schema_fingerprint=schema,
    )
    return replace(
        plain,
        domain_B=[f"domain-{number}" for number in rng.integers(0, 3, n_rows)],
        score_B=np.where(rng.random(n_rows) < 0.3, np.nan, rng.random(n_rows)).astype(np.float32),
    )


def assert_same(found: ExampleBatch, wanted: ExampleBatch) -> None:
    for name in ("example_id_B", "user_id_B", "item_id_B", "event_time_ms_B", "label_B", "score_B"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name, strict=True)
    np.testing.assert_array_equal(found.keys.keys_T, wanted.keys.keys_T, strict=True)
    np.testing.assert_array_equal(found.keys.lengths_NF, wanted.keys.lengths_NF, strict=True)
    assert (found.domain_B, found.schema_fingerprint) == (wanted.domain_B, wanted.schema_fingerprint)


def log_of(messages: list[tuple[int, ExampleBatch]]) -> MemoryLog:
    return MemoryLog(
        Entry(TOPIC, 0, b"", encode_examples(ExampleMessage(batch=batch, sequence=number)))
        for number, batch in messages
    )


def archive_all(log: MemoryLog, archive: ExampleArchive) -> int:
    return archive_to_end(log.source([(TOPIC, 0)]), archive)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20), st.data())
def test_archiving_in_any_number_of_runs_gives_every_message_back_once(
    sizes: list[int], rows_per_part: int, data: st.DataObject
) -> None:
    batches = [examples(n_rows, seed) for seed, n_rows in enumerate(sizes)]
    sent = list(enumerate(batches))
    # A producer without an acknowledgement sends the same batch again, under the same number.
    again = data.draw(st.sets(st.sampled_from(range(len(sent))))) if sent else set()
    messages = [message for number, one in enumerate(sent) for message in [one] * (1 + (number in again))]
    cut = data.draw(st.integers(0, len(messages)))
    with TemporaryDirectory() as folder:
        for so_far in (messages[:cut], messages):
            archive_all(log_of(so_far), ExampleArchive(Path(folder), rows_per_part=rows_per_part))
        wanted = [batch for batch in batches if len(batch)]
        found = list(read_examples(Path(folder))) if wanted else []
        covered = coverage_of(Path(folder))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)
    assert covered.rows == sum(sizes)


def test_the_coverage_says_where_to_read_on(tmp_path: Path) -> None:
    log = log_of([(5, examples(4, 0)), (5, examples(4, 0)), (6, examples(2, 1))])
    assert archive_all(log, ExampleArchive(tmp_path)) == 6
    assert coverage_of(tmp_path) == Coverage(
        rows=6,
        messages=2,
        marks={f"{TOPIC}/0": (0, 6)},
        label_names=["label"],
        offsets={f"{TOPIC}/0": 3},
        schema_fingerprint=SCHEMA,
    )
    assert archive_all(log, ExampleArchive(tmp_path)) == 0


class SilentSource(LogSource):
    """A broker that knows its log's end and sends nothing."""

    def end_offsets(self) -> dict[Partition, int]:
        return {(TOPIC, 0): 1}


def test_a_topic_that_cannot_be_read_to_its_end_is_no_archive(tmp_path: Path) -> None:
    log = log_of([])
    with pytest.raises(SourceUnavailable, match="reading stands at"):
        archive_to_end(SilentSource(log, [(TOPIC, 0)]), ExampleArchive(tmp_path), max_empty_polls=1)


def test_a_part_can_be_read_by_anybody_who_reads_parquet(tmp_path: Path) -> None:
    archive_all(log_of([(0, examples(4, 0))]), ExampleArchive(tmp_path))
    table = pq.read_table(tmp_path / "part-00000.parquet")
    assert table.column("labels").to_pylist() == examples(4, 0).label_BL.tolist()
    assert table.schema.metadata[b"schema_fingerprint"] == b"7"


def test_a_part_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    archive_all(log_of([(0, examples(4, 0))]), ExampleArchive(tmp_path))
    (tmp_path / ".part-00001.parquet.123").write_bytes(b"half a part")
    assert sum(len(batch) for batch in read_examples(tmp_path)) == 4


def test_examples_of_other_features_are_refused(tmp_path: Path) -> None:
    archive = ExampleArchive(tmp_path)
    log = log_of([(0, examples(4, 0)), (1, examples(4, 1, schema=8))])
    with pytest.raises(LayoutMismatch, match="another folder"):
        archive_all(log, archive)


def test_bytes_that_are_no_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WireError):
        ExampleArchive(tmp_path).add(Record(TOPIC, 0, 0, b"", b"noise"))


def test_a_folder_without_examples_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="headrace job archive"):
        next(read_examples(tmp_path))


def test_a_part_of_no_rows_is_refused_when_the_archive_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows_per_part must be > 0, got 0"):
        ExampleArchive(tmp_path, rows_per_part=0)


def test_a_message_that_nobody_can_read_is_passed_over(tmp_path: Path) -> None:
    batches = [examples(5, seed) for seed in range(2)]
    log = log_of([(0, batches[0])])
    log.publish(TOPIC, b"", b"somebody else's bytes")
    log.publish(TOPIC, b"", encode_examples(ExampleMessage(batch=batches[1], sequence=1)))
    assert archive_all(log, ExampleArchive(tmp_path)) == 10
    for found, wanted in zip(read_examples(tmp_path), batches, strict=True):
        assert_same(found, wanted)
