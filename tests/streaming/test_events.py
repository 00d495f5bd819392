"""Records survive the wire; what is no record is refused with a reason."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, Feedback, Impression
from streaming.errors import WireError
from streaming.events import (
    decode_dead_letter,
    decode_feedback,
    decode_impression,
    decode_shown,
    encode_dead_letter,
    encode_feedback,
    encode_impression,
)
from streaming.example_wire import ExampleMessage, decode_examples, encode_examples, no_examples
from streaming.proto import event_pb2
from streaming.shown import Joined, assemble, example_ids
from streaming.source import Record

SAMPLES = Path(__file__).parent / "wire_samples"
U64 = st.integers(0, 2**64 - 1)
TIMES = st.integers(0, 2**45)


@st.composite
def ragged_keys(draw, n_rows):
    n_features = draw(st.integers(1, 4))
    lengths = st.just(1) if draw(st.booleans()) else st.integers(0, 3)
    lengths_NF = draw(hnp.arrays(np.uint8, (n_rows, n_features), elements=lengths))
    return RaggedKeys(draw(hnp.arrays(np.uint64, int(lengths_NF.sum()))), lengths_NF)


@st.composite
def impressions(draw):
    n_items = draw(st.integers(1, 5))
    return Impression(
        request_id=draw(st.text(min_size=1, max_size=20)),
        user_id=draw(U64),
        event_time_ms=draw(TIMES),
        domain=draw(st.text(max_size=5)),
        policy="explore",
        model_version="m.3",
        schema_fingerprint=draw(U64),
        item_ids_K=draw(hnp.arrays(np.uint64, n_items)),
        scores_K=draw(hnp.arrays(np.float32, n_items)),
        propensities_K=draw(hnp.arrays(np.float32, n_items)),
        keys=draw(ragged_keys(n_items)),
    )


@st.composite
def example_batches(draw):
    n_rows, n_labels = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    ids, floats = hnp.arrays(np.uint64, n_rows), hnp.arrays(np.float32, (n_rows, n_labels))
    mask = hnp.arrays(np.bool_, n_rows)
    texts = st.lists(st.text(max_size=5), min_size=n_rows, max_size=n_rows)
    return ExampleBatch(
        example_id_B=draw(ids),
        request_id_B=draw(texts),
        model_version_B=draw(texts),
        label_names=tuple(f"label-{i}" for i in range(n_labels)),
        label_BL=draw(floats),
        sample_rate_BL=draw(floats),
        weight_B=draw(hnp.arrays(np.float32, n_rows)),
        delay_ms_B=draw(hnp.arrays(np.int64, n_rows)),
        is_late_B=draw(mask),
        is_fast_B=draw(mask),
        user_id_B=draw(ids),
        item_id_B=draw(ids),
        event_time_ms_B=draw(hnp.arrays(np.int64, n_rows)),
        domain_B=draw(texts),
        score_B=draw(hnp.arrays(np.float32, n_rows)),
        keys=draw(ragged_keys(n_rows)),
        schema_fingerprint=draw(U64),
    )


def assert_same(got, wanted):
    for name in wanted.__dataclass_fields__:
        ours, theirs = getattr(got, name), getattr(wanted, name)
        if isinstance(theirs, RaggedKeys):
            np.testing.assert_array_equal(ours.keys_T, theirs.keys_T)
            np.testing.assert_array_equal(ours.lengths_NF, theirs.lengths_NF)
        else:
            np.testing.assert_array_equal(ours, theirs)


@given(impressions())
def test_an_impression_survives_the_wire(impression):
    assert_same(decode_impression(encode_impression(impression)), impression)


@given(example_batches(), st.integers(0, 2**60), st.integers(0, 2**60))
def test_an_example_batch_and_its_mark_survive_the_wire(batch, epoch, sequence):
    sent = ExampleMessage(batch=batch, epoch=epoch, sequence=sequence, watermark_ms=3, sent_at_ms=4)
    got = decode_examples(encode_examples(sent))
    assert_same(got.batch, batch)
    assert (got.mark, got.watermark_ms, got.sent_at_ms) == ((epoch, sequence), 3, 4)


def test_a_fence_survives_the_wire():
    got = decode_examples(encode_examples(ExampleMessage(batch=no_examples(7), epoch=2, sequence=0)))
    assert (len(got.batch), got.mark, got.batch.schema_fingerprint) == (0, (2, 0), 7)


@given(example_batches())
def test_columns_and_metadata_of_a_newer_writer_are_passed_over(batch):
    with pa.ipc.open_stream(encode_examples(ExampleMessage(batch=batch, sequence=1))) as reader:
        rows = reader.read_next_batch()
    newer = rows.append_column("dwell", pa.array([1.5] * len(rows)))
    newer = newer.replace_schema_metadata({**rows.schema.metadata, b"flavour": b"plum"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, newer.schema) as writer:
        writer.write_batch(newer)
    assert_same(decode_examples(sink.getvalue().to_pybytes()).batch, batch)


@given(
    st.builds(
        Feedback,
        event_id=U64,
        request_id=st.text(min_size=1),
        user_id=U64,
        item_id=U64,
        kind=st.text(),
        value=st.floats(allow_nan=False),
        event_time_ms=TIMES,
    )
)
def test_a_feedback_survives_the_wire(feedback):
    assert decode_feedback(encode_feedback(feedback)) == feedback


@given(st.binary(), st.integers(0, 2**40))
def test_a_dead_letter_holds_the_bytes_as_they_came(payload, offset):
    record = Record("topic", 3, offset, b"", payload)
    assert decode_dead_letter(encode_dead_letter(record, "why", rejected_at_ms=5)) == (record, "why", 5)


@given(
    st.binary(max_size=200),
    st.sampled_from([decode_impression, decode_shown, decode_feedback, decode_examples]),
)
def test_arbitrary_bytes_are_read_or_refused_but_never_break_the_reader(value, decode):
    with suppress(WireError):
        decode(value)


@given(example_batches(), st.data())
def test_a_cut_example_batch_is_refused(batch, data):
    value = encode_examples(ExampleMessage(batch=batch, sequence=1))
    # The stream's end mark, its last eight bytes, may be missing: the rows are whole without it.
    with pytest.raises(WireError):
        decode_examples(value[: data.draw(st.integers(0, len(value) - 9))])


@given(impressions())
def test_an_assembled_example_has_the_features_its_item_was_served_with(impression):
    shown = decode_shown(encode_impression(impression))
    rows = [Joined(shown, position, 1.0) for position in reversed(range(len(shown.item_ids)))]
    batch = assemble(rows)
    offsets = impression.keys.offsets
    for row, (_, position, *_) in enumerate(rows):
        start, stop = batch.keys.offsets[row : row + 2]
        served = impression.keys.keys_T[offsets[position] : offsets[position + 1]]
        np.testing.assert_array_equal(batch.keys.keys_T[start:stop], served)
        np.testing.assert_array_equal(batch.keys.lengths_NF[row], impression.keys.lengths_NF[position])
        assert batch.item_id_B[row] == impression.item_ids_K[position]
        np.testing.assert_array_equal(batch.score_B[row], impression.scores_K[position])


def test_example_ids_differ_when_request_or_item_differs_and_never_change():
    items = np.array([1, 2, 1], np.uint64)
    first, second, other = example_ids(["a", "a", "b"], items).tolist()
    assert len({first, second, other}) == 3
    assert example_ids(["a"], items[:1]).tolist() == [first]
    # Ids in old outputs must stay theirs, or a restart would send examples twice.
    assert first == 4917199001715927179


def test_an_impression_whose_keys_do_not_fit_its_items_is_refused():
    value = (SAMPLES / "impression.bin").read_bytes()
    message = event_pb2.Impression.FromString(value)
    message.feature_keys = message.feature_keys[:-8]
    with pytest.raises(WireError, match="do not make 2 items of 3 features"):
        decode_shown(message.SerializeToString())


def test_an_example_batch_of_another_wire_is_refused():
    value = (SAMPLES / "examples.bin").read_bytes()
    with pa.ipc.open_stream(value) as reader:
        rows = reader.read_next_batch()
    metadata = {**rows.schema.metadata, b"wire": b"3"}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.with_metadata(metadata)) as writer:
        writer.write_batch(rows.replace_schema_metadata(metadata))
    with pytest.raises(WireError, match="wire 3, want one of"):
        decode_examples(sink.getvalue().to_pybytes())


def test_samples_of_every_message_still_read_as_they_were_written():
    impression = decode_impression((SAMPLES / "impression.bin").read_bytes())
    assert (impression.request_id, impression.item_ids_K.tolist()) == ("request-1", [11, 2**63])
    assert impression.keys.lengths_NF.tolist() == [[1, 2, 0], [1, 1, 1]]
    assert impression.keys.keys_T.tolist() == [1, 2, 3, 4, 5, 2**64 - 1]
    feedback = decode_feedback((SAMPLES / "feedback.bin").read_bytes())
    assert (feedback.event_id, feedback.kind, feedback.value) == (9, "rating", 4.5)
    record, reason, _ = decode_dead_letter((SAMPLES / "dead_letter.bin").read_bytes())
    assert (record.offset, record.value, reason) == (17, b"?", "no Impression in 1 bytes")
    message = decode_examples((SAMPLES / "examples.bin").read_bytes())
    batch = message.batch
    assert (batch.label_B.tolist(), batch.domain_B, message.mark) == ([1.0, 0.0], ["home", "home"], (0, 42))
    assert batch.keys.keys_T.tolist() == impression.keys.keys_T.tolist()


@pytest.mark.parametrize(
    ("n_items", "lengths"), [(2, b"\x01\x01"), (0, b"\x01"), (2, b"")], ids=["lengths", "heartbeat", "none"]
)
def test_an_impression_without_features_is_refused_before_it_is_joined(n_items, lengths):
    message = event_pb2.Impression(request_id="r", item_ids=list(range(n_items)), feature_lengths=lengths)
    with pytest.raises(WireError):
        decode_shown(message.SerializeToString())
