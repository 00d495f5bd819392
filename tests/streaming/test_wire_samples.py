"""Bytes of every wire that ever was, which must be read for ever; a folder for each wire after the first."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from streaming.deltas import decode_delta
from streaming.events import (
    decode_dead_letter,
    decode_feedback,
    decode_impression,
    decode_shown,
    is_replay_mark,
)
from streaming.example_wire import decode_examples
from streaming.row_codecs import RowCodec
from streaming.source import Record

SAMPLES = Path(__file__).parent / "wire_samples"
DECODERS = {
    "impression": (decode_impression, decode_shown),
    "feedback": (decode_feedback,),
    "examples": (decode_examples,),
    "dead_letter": (decode_dead_letter,),
    "replay_mark": (decode_dead_letter,),
    "table_delta": (decode_delta,),
    "table_delta_fp16": (decode_delta,),
    "table_delta_int8_row": (decode_delta,),
    "dense_delta": (decode_delta,),
}
# Taken when each was written: a sample that changes is no sample of an old wire.
FIRST_BYTES = {
    "dead_letter.bin": "e5072f458f8243d9",
    "dense_delta.bin": "b27b35c50239652b",
    "examples.bin": "8daa94792ef55eb4",
    "feedback.bin": "c5c613beccaec58c",
    "impression.bin": "0c021da38155c7fa",
    "table_delta.bin": "851736e24ea80923",
    "v2/dead_letter.bin": "731af309bd604fec",
    "v2/dense_delta.bin": "7e2b5138c3143fe7",
    "v2/examples.bin": "13300a94498614de",
    "v2/replay_mark.bin": "765313a304e7888e",
    "v2/table_delta_fp16.bin": "b1fb14b5daa80e09",
    "v2/table_delta_int8_row.bin": "c04f76bd4e600f81",
}


def named(path):
    return path.relative_to(SAMPLES).as_posix()


@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.bin")), ids=named)
def test_every_sample_is_still_read(path):
    for decode in DECODERS[path.stem]:
        decode(path.read_bytes())


@pytest.mark.parametrize(("name", "begins"), FIRST_BYTES.items())
def test_no_sample_was_changed_after_it_was_written(name, begins):
    assert hashlib.sha256((SAMPLES / name).read_bytes()).hexdigest().startswith(begins)


def test_examples_of_wire_2_are_what_was_written():
    message = decode_examples((SAMPLES / "v2/examples.bin").read_bytes())
    batch = message.batch
    assert (message.mark, message.watermark_ms, message.sent_at_ms) == (
        (3, 42),
        1_700_000_000_500,
        1_700_000_000_900,
    )
    assert (batch.label_names, batch.label_BL.tolist()) == (("click", "watch_s"), [[1.0, 12.5], [0.0, 0.0]])
    assert batch.sample_rate_BL.tolist() == [[1.0, 1.0], [0.25, 0.5]]
    assert (batch.weight_B.tolist(), batch.delay_ms_B.tolist()) == ([1.0, -1.0], [1500, 600_000])
    assert (batch.is_late_B.tolist(), batch.is_fast_B.tolist()) == ([False, True], [True, False])
    assert batch.example_id_B.tolist() == [5, 2**64 - 1]
    assert (list(batch.model_version_B), batch.schema_fingerprint) == (["m.3", "m.4"], 2**63 + 1)
    assert batch.keys.keys_T.tolist() == [1, 2, 3, 2**64 - 1]
    assert batch.keys.lengths_NF.tolist() == [[1, 2, 0], [0, 0, 1]]


def test_a_dead_letter_that_knows_its_key_is_what_was_written():
    value = (SAMPLES / "v2/dead_letter.bin").read_bytes()
    record = Record("headrace.feedback.v1", 2, 17, b"request-1", b"?")
    assert decode_dead_letter(value) == (record, "no Feedback in 1 bytes", 1_700_000_000_000)
    assert not is_replay_mark(value)
    assert is_replay_mark((SAMPLES / "v2/replay_mark.bin").read_bytes())


@pytest.mark.parametrize(
    ("codec", "times_ms", "rows_ND"),
    [
        (
            "fp16",
            (1_700_000_000_500, 1_700_000_000_900),
            [[1.0, -2.0, 0.5, 65504.0], [0.0, 2.0**-24, -0.25, 3.0]],
        ),
        # More of the same seal follows: it has no times yet.
        ("int8_row", (0, 0), [[1.5, 63.5, -63.5, 0.5], [-0.125, 0.0, -31.75, 0.5]]),
    ],
)
def test_rows_in_fewer_bits_are_what_was_written(codec, times_ms, rows_ND):
    delta = decode_delta((SAMPLES / f"v2/table_delta_{codec}.bin").read_bytes())
    assert (delta.model, delta.table, delta.spec_fingerprint) == ("ranker-0a1b2c3d", "movielens", 2**63 + 1)
    assert (delta.shard, delta.incarnation, delta.dense_sequence) == (2, 4, 2**33)
    assert (delta.sequence, delta.base_sequence) == (2**40 + 9, 2**40 + 5)
    assert (delta.as_of_ms, delta.sealed_at_ms) == times_ms
    assert (delta.updated_keys.tolist(), delta.expired_keys.tolist()) == ([1, 2**64 - 1], [7, 2**63])
    assert delta.codec == codec
    # A slice of one weight and one of three, as a wide part beside a vector.
    assert RowCodec(codec, (1, 3)).unpack(delta.rows).tolist() == rows_ND


def test_dense_parameters_are_what_was_written():
    delta = decode_delta((SAMPLES / "v2/dense_delta.bin").read_bytes())
    assert (delta.model, delta.incarnation, delta.sequence) == ("ranker-0a1b2c3d", 4, 2**33)
    assert (delta.as_of_ms, delta.sealed_at_ms) == (1_700_000_000_500, 1_700_000_000_900)
    assert {name: tensor.tolist() for name, tensor in delta.tensors.items()} == {
        "tower.0.weight": [[1.0, -2.0, 0.5]],
        "tower.0.bias": [0.25],
    }
    assert {tensor.dtype.name for tensor in delta.tensors.values()} == {"float32"}
