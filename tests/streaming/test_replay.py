"""A recorded log gives back what was published, and says where it is damaged."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import DamagedLog, OffsetLost
from streaming.memory_log import Entry, MemoryLog
from streaming.replay import LogWriter, load_log, read_log, replay

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.text(min_size=1, max_size=8),
        st.integers(0, 3),
        st.binary(max_size=9),
        st.binary(max_size=40),
    ),
    max_size=12,
)


def record(path, entries):
    with LogWriter(path) as writer:
        replay(entries, writer)
        return {(e.topic, e.partition): writer.position(e.topic, e.partition) for e in entries}


@given(ENTRIES)
def test_a_recorded_log_gives_back_what_was_published(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("log") / "incident.log"
    positions = record(path, entries)
    assert list(read_log(path)) == entries
    log = load_log(path)
    source = log.source(sorted({(e.topic, e.partition) for e in entries}) or [("none", 0)])
    assert source.end_offsets() == positions or not entries
    records = source.poll(max_records=10**6, timeout_s=0)
    for topic, partition in positions:
        got = [(r.key, r.value) for r in records if (r.topic, r.partition) == (topic, partition)]
        assert got == [(e.key, e.value) for e in entries if (e.topic, e.partition) == (topic, partition)]


@given(ENTRIES.filter(bool), st.data())
def test_damage_is_noticed_and_all_before_it_is_given(tmp_path_factory, entries, data):
    path = tmp_path_factory.mktemp("log") / "incident.log"
    record(path, entries)
    value = bytearray(path.read_bytes())
    # Beyond the magic and outside the lengths, which can only make a record look cut.
    starts, at = [], 8
    for entry in entries:
        starts.append(at)
        at += 8 + 2 + len(entry.topic.encode()) + 8 + len(entry.key) + len(entry.value)
    hit = data.draw(st.integers(0, len(entries) - 1))
    stop = [*starts, at][hit + 1]
    value[data.draw(st.integers(starts[hit] + 4, stop - 1))] ^= 0xFF
    path.write_bytes(value)
    got = []
    with pytest.raises(DamagedLog, match=f"byte {starts[hit]} is damaged"):
        got.extend(read_log(path))
    assert got == entries[:hit]


def test_a_record_cut_off_at_the_end_is_left_out(tmp_path):
    path = tmp_path / "incident.log"
    record(path, [Entry("t", 0, b"k", b"one"), Entry("t", 0, b"k", b"two")])
    whole = path.read_bytes()
    for size in range(len(whole) - 1, len(whole) - 10, -1):
        path.write_bytes(whole[:size])
        assert [entry.value for entry in read_log(path)] == [b"one"]


def test_another_file_is_no_log(tmp_path):
    (tmp_path / "x").write_bytes(b"something else")
    with pytest.raises(DamagedLog, match="is no recorded log"):
        list(read_log(tmp_path / "x"))


def test_a_poll_gives_each_partition_its_share_in_order():
    log = MemoryLog(Entry(topic, 0, b"", bytes([n])) for n in range(10) for topic in "ab")
    source = log.source([("a", 0), ("b", 0)])
    records = source.poll(max_records=6, timeout_s=0)
    assert [(r.topic, r.offset) for r in records] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
        ("b", 2),
    ]
    source.seek({("a", 0): 9})
    rest = source.poll(max_records=100, timeout_s=0)
    assert [r.offset for r in rest if r.topic == "a"] == [9]
    assert all(y == x + 1 for x, y in pairwise(r.offset for r in rest if r.topic == "b"))


def test_a_waiting_poll_wakes_when_something_is_published():
    log = MemoryLog()
    source = log.source([("a", 0)])
    writer = threading.Timer(0.02, log.publish, ("a", b"", b"news"))
    writer.start()
    assert [r.value for r in source.poll(max_records=1, timeout_s=30)] == [b"news"]
    writer.join()


def test_an_offset_beyond_the_end_is_refused():
    with pytest.raises(OffsetLost, match="offset 1 is beyond the end 0"):
        MemoryLog().source([("a", 0)]).seek({("a", 0): 1})
