"""Row snapshots on disk: what comes back, what lies in the folder, and that damage changes nothing."""

import json

import crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from recsys.errors import ConfigError, SnapshotError
from recsys.table.admission import Occurrence
from recsys.table.initializers import Uniform, Zeros
from recsys.table.native import NativeTable
from recsys.table.optimizers import SGD, Adagrad
from recsys.table.reference import ReferenceTable
from recsys.table.snapshot import read_manifest, read_rows, write_rows
from recsys.table.spec import SliceSpec, TableSpec

VECTOR = SliceSpec(
    name="vector", dim=3, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=0.0, high=1.0)
)
SPEC = TableSpec(name="saved", slices=(VECTOR,), admission=Occurrence(threshold=1, width=16, depth=2))
STATELESS = TableSpec(
    name="plain",
    slices=(SliceSpec(name="w", dim=2, optimizer=SGD(learning_rate=0.1), initializer=Zeros()),),
)
ROWS, REMOVED, LEDGER = "rows-00000-of-00002.arrow", "removed-00000-of-00002.arrow", "ledger-00000-of-00002"


def learned(make_table, keys, spec=SPEC):
    table = make_table(spec)
    keys_N = np.array(keys, dtype=np.uint64)
    table.learn(keys_N, np.ones((len(keys_N), spec.dim), np.float32), event_time_s=7)
    return table


def shards(make_table=NativeTable):
    return [learned(make_table, range(0, 10, 2)), learned(make_table, range(1, 10, 2))]


def parity(keys_N):
    return (keys_N % np.uint64(2)).astype(np.int64)


def content(*tables):
    """Every bit that a table must bring back, its ledger included."""
    bits = []
    for table in tables:
        rows = table.export_rows(table.keys())
        arrays = (rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N, rows.count_N)
        bits += [array.tobytes() for array in arrays]
        bits += [(name, array.tobytes()) for name, array in sorted(table.ledger().items())]
    return bits


@settings(max_examples=25, deadline=None)
@given(keys=st.sets(st.integers(0, 2**64 - 1), max_size=30), chunk=st.integers(1, 12))
@pytest.mark.parametrize("spec", [SPEC, STATELESS], ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    ("saved", "restored"), [(NativeTable, ReferenceTable), (ReferenceTable, NativeTable)]
)
def test_a_snapshot_brings_back_every_bit_in_either_table(
    saved, restored, spec, keys, chunk, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("snapshot")
    before = learned(saved, sorted(keys), spec)
    write_rows(folder, before, rows_per_chunk=chunk)
    after = learned(restored, [1, 2, 3], spec)
    follower = after.follow()
    read_rows(folder, after)
    assert content(after) == content(before)
    changes = after.drain(follower)
    assert not len(changes.touched_N)
    assert not len(changes.removed_N)


def test_rows_are_plain_arrow_streams_and_every_file_is_under_its_checksum(tmp_path):
    tables = shards()
    manifest = write_rows(tmp_path, tables, rows_per_chunk=2)
    assert {path.name for path in tmp_path.iterdir()} == {p.name for p in manifest.pieces} | {"rows.json"}
    for piece in manifest.pieces:
        found = (tmp_path / piece.name).read_bytes()
        assert (piece.bytes, piece.crc32c) == (len(found), crc32c.crc32c(found))
    with pa.OSFile(str(tmp_path / ROWS)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all().sort_by("key").to_pydict()
    wanted = tables[0].export_rows(tables[0].keys())
    assert rows == {
        "key": [0, 2, 4, 6, 8],
        "weights": wanted.weights_ND.tolist(),
        "state": wanted.state_NS.tolist(),
        "last_seen_s": [7] * 5,
        "count": [1] * 5,
    }
    assert load_file(tmp_path / f"{LEDGER}.safetensors")["steps"].tolist() == [1]


def test_the_manifest_keeps_the_spec_for_whoever_lost_the_recipe(tmp_path):
    write_rows(tmp_path, learned(NativeTable, [1]))
    assert TableSpec.from_json(json.dumps(read_manifest(tmp_path).spec)) == SPEC


def cut(name):
    def damage(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
        return name

    return damage


def flip_a_bit_of(name):
    def damage(folder):
        damaged = bytearray((folder / name).read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (folder / name).write_bytes(damaged)
        return name

    return damage


def lose(name):
    def damage(folder):
        (folder / name).unlink()
        return name

    return damage


def swap_shards(folder):
    first, second = folder / ROWS, folder / ROWS.replace("00000", "00001")
    content_of_first = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content_of_first)
    return ROWS


def alter_manifest(**changes):
    def damage(folder):
        manifest = json.loads((folder / "rows.json").read_text())
        (folder / "rows.json").write_text(json.dumps(manifest | changes))
        return "rows.json"

    return damage


def replace_rows_by(batches):
    """A file that is whole, by its manifest, and holds something else."""

    def damage(folder):
        manifest = read_manifest(folder)
        with pa.OSFile(str(folder / ROWS), "wb") as file, pa.ipc.new_stream(file, batches.schema) as stream:
            stream.write_table(batches)
        found = (folder / ROWS).read_bytes()
        changes = {"bytes": len(found), "crc32c": crc32c.crc32c(found), "entries": len(batches)}
        piece = manifest.shards[0].rows.model_copy(update=changes)
        shard = manifest.shards[0].model_copy(update={"rows": piece})
        forged = manifest.model_copy(update={"shards": (shard, manifest.shards[1])})
        (folder / "rows.json").write_bytes(forged.to_json())
        return ROWS

    return damage


DAMAGE = {
    "cut rows": cut(ROWS),
    "cut manifest": cut("rows.json"),
    "flipped rows": flip_a_bit_of(ROWS),
    "flipped removed": flip_a_bit_of(REMOVED),
    "flipped ledger": flip_a_bit_of(f"{LEDGER}.safetensors"),
    "lost rows": lose(ROWS),
    "lost removed": lose(REMOVED),
    "lost ledger": lose(f"{LEDGER}.safetensors"),
    "lost manifest": lose("rows.json"),
    "swapped shards": swap_shards,
    "another format": alter_manifest(format=1),
    "another count": alter_manifest(place=1),
    "a list": lambda folder: (folder / "rows.json").write_text("[]") and "rows.json",
    "other columns": replace_rows_by(pa.table({"key": pa.array([1], pa.uint64())})),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_snapshot_is_refused_by_file_name_and_the_tables_stay(damage, tmp_path):
    write_rows(tmp_path, shards(), rows_per_chunk=2)
    name = damage(tmp_path)
    tables = [learned(NativeTable, [8, 10]), learned(NativeTable, [9])]
    before = content(*tables)
    with pytest.raises(SnapshotError, match=name):
        read_rows(tmp_path, tables, shard_of=parity)
    assert content(*tables) == before


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unseen(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshot")
    manifest = write_rows(folder, learned(ReferenceTable, range(5)), rows_per_chunk=2)
    piece = data.draw(st.sampled_from(manifest.pieces))
    damaged = bytearray((folder / piece.name).read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / piece.name).write_bytes(damaged)
    table = learned(ReferenceTable, [8])
    with pytest.raises(SnapshotError, match=piece.name):
        read_rows(folder, table)
    assert table.keys().tolist() == [8]


def test_a_file_that_changes_between_check_and_load_leaves_the_tables_empty(tmp_path):
    write_rows(tmp_path, shards(), rows_per_chunk=2)

    def damaging_shard_of(keys_N):
        (tmp_path / ROWS.replace("00000", "00001")).write_bytes(b"")
        return parity(keys_N)

    tables = shards()
    with pytest.raises(SnapshotError, match=r"rows-00001-of-00002\.arrow .* is empty now"):
        read_rows(tmp_path, tables, shard_of=damaging_shard_of)
    assert [len(table) for table in tables] == [0, 0]


def test_a_snapshot_of_another_spec_is_refused(tmp_path):
    write_rows(tmp_path, learned(NativeTable, range(5)))
    with pytest.raises(SnapshotError, match=r"rows.json is of table 'saved' .* want 'plain'"):
        read_rows(tmp_path, NativeTable(STATELESS))


def test_a_second_snapshot_in_one_folder_is_refused(tmp_path):
    write_rows(tmp_path, learned(NativeTable, [1]))
    with pytest.raises(SnapshotError, match="folder of its own"):
        write_rows(tmp_path, learned(NativeTable, [1]))


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rows_per_chunk must be >= 1, got 0"):
        write_rows(tmp_path, NativeTable(SPEC), rows_per_chunk=0)
    with pytest.raises(ConfigError, match="shards of one table"):
        write_rows(tmp_path, [NativeTable(SPEC), NativeTable(STATELESS)])
    with pytest.raises(ConfigError, match="need a shard_of"):
        read_rows(tmp_path, shards())
    with pytest.raises(ConfigError, match="at least one snapshot"):
        read_rows([], NativeTable(SPEC))
