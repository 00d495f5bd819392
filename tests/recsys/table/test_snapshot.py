"""Row snapshots on disk: what comes back, and that damage changes nothing."""

import json

import crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from recsys.errors import ConfigError, SnapshotError
from recsys.table.native import NativeTable
from recsys.table.reference import ReferenceTable
from recsys.table.snapshot import read_rows, write_rows
from recsys.table.spec import SGD, Adagrad, SliceSpec, TableSpec, Uniform, Zeros

VECTOR = SliceSpec(
    name="vector", dim=3, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=0, high=1)
)
SPEC = TableSpec(name="saved", slices=(VECTOR,))
STATELESS = TableSpec(
    name="plain",
    slices=(SliceSpec(name="w", dim=2, optimizer=SGD(learning_rate=0.1), initializer=Zeros()),),
)


def learned(make_table, keys, spec=SPEC):
    table = make_table(spec)
    keys_N = np.array(keys, dtype=np.uint64)
    table.learn(keys_N, np.ones((len(keys_N), spec.dim), np.float32), event_time_s=7)
    return table


def content(table):
    rows = table.export_rows(table.keys())
    arrays = (rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N)
    return [array.tobytes() for array in arrays]


@settings(max_examples=25, deadline=None)
@given(keys=st.sets(st.integers(0, 2**64 - 1), max_size=30), chunk=st.integers(1, 12))
@pytest.mark.parametrize("spec", [SPEC, STATELESS], ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    ("saved", "restored"), [(NativeTable, ReferenceTable), (ReferenceTable, NativeTable)]
)
def test_a_snapshot_brings_back_every_row_in_either_table(
    saved, restored, spec, keys, chunk, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("snapshot")
    before = learned(saved, sorted(keys), spec)
    write_rows(folder, before, rows_per_chunk=chunk)
    after = learned(restored, [1, 2, 3], spec)
    read_rows(folder, after)
    assert content(after) == content(before)
    assert not len(after.drain_touched())


def test_pieces_are_plain_safetensors_with_their_crc32c(tmp_path):
    files = write_rows(tmp_path, learned(NativeTable, range(5)), rows_per_chunk=2)
    assert [file.rows for file in files] == [2, 2, 1]
    assert [file.crc32c for file in files] == [crc32c.crc32c((tmp_path / f.name).read_bytes()) for f in files]
    piece = load_file(tmp_path / "rows-00001.safetensors")
    assert piece["keys"].tolist() == [2, 3]
    assert {name: array.shape for name, array in piece.items()} == {
        "keys": (2,),
        "weights": (2, 3),
        "state": (2, 3),
        "last_seen_s": (2,),
    }
    assert json.loads((tmp_path / "rows.json").read_text())["spec_fingerprint"] == SPEC.fingerprint


def cut_a_piece(folder):
    piece = folder / "rows-00001.safetensors"
    piece.write_bytes(piece.read_bytes()[:-1])
    return piece.name


def flip_a_bit(folder):
    piece = folder / "rows-00001.safetensors"
    damaged = bytearray(piece.read_bytes())
    damaged[-3] ^= 1
    piece.write_bytes(damaged)
    return piece.name


def lose_a_piece(folder):
    (folder / "rows-00001.safetensors").unlink()
    return "rows-00001.safetensors"


def lose_the_manifest(folder):
    (folder / "rows.json").unlink()
    return "rows.json"


def cut_the_manifest(folder):
    (folder / "rows.json").write_bytes((folder / "rows.json").read_bytes()[:-2])
    return "rows.json"


def swap_pieces(folder):
    manifest = json.loads((folder / "rows.json").read_text())
    manifest["files"].reverse()
    (folder / "rows.json").write_text(json.dumps(manifest))
    return "rows.json"


def write_another_format(folder):
    manifest = json.loads((folder / "rows.json").read_text())
    (folder / "rows.json").write_text(json.dumps(manifest | {"format": 2}))
    return "rows.json"


def miscount_a_piece(folder):
    manifest = json.loads((folder / "rows.json").read_text())
    manifest["files"][0]["rows"] += 1
    (folder / "rows.json").write_text(json.dumps(manifest))
    return "rows-00000.safetensors"


@pytest.mark.parametrize(
    "damage",
    [
        cut_a_piece,
        flip_a_bit,
        lose_a_piece,
        lose_the_manifest,
        cut_the_manifest,
        swap_pieces,
        write_another_format,
        miscount_a_piece,
    ],
)
def test_a_damaged_snapshot_is_refused_by_file_name_and_the_table_stays(damage, tmp_path):
    write_rows(tmp_path, learned(NativeTable, range(5)), rows_per_chunk=2)
    name = damage(tmp_path)
    table = learned(NativeTable, [8, 9])
    before = content(table)
    with pytest.raises(SnapshotError, match=name):
        read_rows(tmp_path, table)
    assert content(table) == before
    assert table.drain_touched().tolist() == [8, 9]


def test_a_snapshot_of_another_spec_is_refused(tmp_path):
    write_rows(tmp_path, learned(NativeTable, range(5)))
    with pytest.raises(SnapshotError, match="spec"):
        read_rows(tmp_path, NativeTable(STATELESS))


def test_a_second_snapshot_in_one_folder_is_refused(tmp_path):
    write_rows(tmp_path, learned(NativeTable, [1]))
    with pytest.raises(SnapshotError, match="folder of its own"):
        write_rows(tmp_path, learned(NativeTable, [1]))


def test_what_a_crash_left_behind_is_written_over(tmp_path):
    write_rows(tmp_path, learned(NativeTable, range(5)), rows_per_chunk=2)
    lose_the_manifest(tmp_path)
    write_rows(tmp_path, learned(NativeTable, [1]))
    table = NativeTable(SPEC)
    read_rows(tmp_path, table)
    assert table.keys().tolist() == [1]


def test_chunks_without_rows_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rows_per_chunk must be >= 1"):
        write_rows(tmp_path, NativeTable(SPEC), rows_per_chunk=0)
