"""Deltas arrive as they were sealed, or are refused."""

from __future__ import annotations

from pathlib import Path

import crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.errors import ShapeError
from streaming.deltas import (
    DeltaPublisher,
    DeltaSubscriber,
    DenseDelta,
    TableDelta,
    decode_delta,
    encode_delta,
)
from streaming.errors import DamagedDelta, OffsetLost
from streaming.memory_log import Entry, MemoryLog
from streaming.proto import delta_pb2
from streaming.topics import DELTAS

SAMPLES = Path(__file__).parent / "wire_samples"
COUNTS = st.integers(0, 2**62)


def table_delta(keys=(1, 2**64 - 1), rows=((1.0, -2.0), (3.0, 0.5)), expired=(7,), sequence=5):
    return TableDelta(
        model="ranker",
        table="embedding",
        spec_fingerprint=2**64 - 1,
        shard=0,
        incarnation=3,
        sequence=sequence,
        base_sequence=sequence - 1,
        as_of_ms=1000,
        sealed_at_ms=2000,
        updated_keys=np.array(keys, np.uint64),
        rows=np.array(rows, "<f4").reshape(len(keys), -1 if len(keys) else 2).view(np.uint8),
        expired_keys=np.array(expired, np.uint64),
    )


def dense_delta():
    tensors = {"tower.0": np.array([[1.0, 2.0]], np.float32), "bias": np.array([0.25], np.float32)}
    return DenseDelta(model="ranker", incarnation=3, sequence=9, as_of_ms=1, sealed_at_ms=2, tensors=tensors)


def assert_same(got, wanted):
    assert type(got) is type(wanted)
    for name in wanted.__dataclass_fields__:
        ours, theirs = getattr(got, name), getattr(wanted, name)
        if name == "tensors":
            assert ours.keys() == theirs.keys()
            assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)
        elif isinstance(theirs, np.ndarray):
            # Bit for bit: a NaN must arrive as the same NaN.
            assert ours.tobytes() == theirs.tobytes()
        else:
            assert ours == theirs


@given(
    st.integers(0, 20).flatmap(lambda n: st.tuples(hnp.arrays(np.uint64, n), hnp.arrays(np.uint8, (n, 7)))),
    hnp.arrays(np.uint64, st.integers(0, 5)),
    COUNTS,
    st.sampled_from(["fp32", "fp16", "int8_row"]),
)
def test_a_table_delta_arrives_bit_for_bit(updated, expired, sequence, codec):
    delta = table_delta(expired=expired, sequence=sequence + 1)
    delta = TableDelta(
        **{
            name: getattr(delta, name)
            for name in delta.__dataclass_fields__
            if name not in ("updated_keys", "rows", "codec", "dense_sequence")
        },
        updated_keys=updated[0],
        rows=updated[1],
        codec=codec,
        dense_sequence=sequence,
    )
    assert_same(decode_delta(encode_delta(delta)), delta)


def test_a_dense_delta_arrives_bit_for_bit():
    assert_same(decode_delta(encode_delta(dense_delta())), dense_delta())


@given(st.data(), st.sampled_from([table_delta(), dense_delta()]))
def test_a_changed_bit_anywhere_is_noticed(data, delta):
    value = bytearray(encode_delta(delta))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedDelta):
        decode_delta(bytes(value))


@given(st.data())
def test_a_cut_delta_is_noticed(data):
    value = encode_delta(table_delta())
    with pytest.raises(DamagedDelta):
        decode_delta(value[: data.draw(st.integers(0, len(value) - 1))])


def test_deltas_are_followed_from_a_position_in_their_order():
    log = MemoryLog()
    publisher = DeltaPublisher(log)
    assert publisher.position() == 0
    sizes = [publisher.publish(table_delta(sequence=number)) for number in (1, 2, 3)]
    publisher.flush()
    assert publisher.position() == 3
    assert sizes[0] == len(encode_delta(table_delta(sequence=1)))
    subscriber = DeltaSubscriber(log.source([(DELTAS, 0)]))
    subscriber.seek(1)
    assert [delta.sequence for delta in subscriber.poll(timeout_s=0)] == [2, 3]
    assert subscriber.poll(timeout_s=0) == []


def test_a_codec_of_a_newer_writer_is_refused_by_its_number():
    message = delta_pb2.Delta.FromString(encode_delta(table_delta()))
    message.table.codec = 9
    message.ClearField("crc32c")
    body = message.SerializeToString()
    value = body + b"\x1d" + crc32c.crc32c(body).to_bytes(4, "little")
    with pytest.raises(DamagedDelta, match="'embedding' shard 0: delta 5 has codec 9, want one of"):
        decode_delta(value)


def test_a_log_that_ends_before_what_was_read_is_lost():
    log = MemoryLog([Entry(DELTAS, 0, b"", encode_delta(table_delta()))])
    source = log.source([(DELTAS, 0)])
    subscriber = DeltaSubscriber(source)
    subscriber.poll(timeout_s=0)
    subscriber.check()
    emptied = DeltaSubscriber(Emptied(source))
    with pytest.raises(OffsetLost, match="read up to 1, but the log ends at 0; load a snapshot"):
        emptied.check()


class Emptied:
    """A source whose broker came back without its records."""

    def __init__(self, source):
        self.positions, self.poll, self.seek = source.positions, source.poll, source.seek

    def end_offsets(self):
        return {(DELTAS, 0): 0}


def test_a_row_without_a_key_is_refused_when_the_delta_is_built():
    with pytest.raises(ShapeError, match="want one packed row per key"):
        TableDelta(
            **{
                **{n: getattr(table_delta(), n) for n in table_delta().__dataclass_fields__},
                "rows": np.zeros((1, 8), np.uint8),
            }
        )


@pytest.mark.parametrize(("name", "wanted"), [("table_delta", table_delta()), ("dense_delta", dense_delta())])
def test_samples_of_every_delta_still_read_as_they_were_written(name, wanted):
    assert_same(decode_delta((SAMPLES / f"{name}.bin").read_bytes()), wanted)
