"""A table's rows in a folder: safetensors pieces, and a JSON that names them and is written last.

A folder without ``rows.json`` holds no snapshot, whatever else lies in it. Every file is written
under another name, flushed to disk and then renamed, so a crash leaves no half file under a real name.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import crc32c
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys.errors import ConfigError, ShapeError, SnapshotError
from recsys.table.table import EmbeddingTable, TableRows

MANIFEST = "rows.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFile:
    """One piece of a snapshot."""

    name: str
    """File name inside the folder."""
    rows: int
    """How many rows it holds."""
    crc32c: int
    """Of all its bytes."""


def write_rows(path: Path, table: EmbeddingTable, *, rows_per_chunk: int = 65_536) -> list[RowsFile]:
    """Write all rows of ``table`` into the folder ``path``, made if need be; return its pieces.

    Keys ascend through the pieces, so equal tables give equal bytes. No writer may change the table
    meanwhile. Raises SnapshotError when the folder holds a snapshot already, and OSError as the disk does.
    """
    if rows_per_chunk < 1:
        raise ConfigError(f"rows_per_chunk must be >= 1, got {rows_per_chunk}")
    if (path / MANIFEST).exists():
        raise SnapshotError(f"{path / MANIFEST} exists already; write each snapshot to a folder of its own")
    path.mkdir(parents=True, exist_ok=True)
    keys_N = table.keys()
    files: list[RowsFile] = []
    for begin in range(0, len(keys_N), rows_per_chunk):
        rows = table.export_rows(keys_N[begin : begin + rows_per_chunk])
        content = _encode(rows)
        name = _piece_name(len(files))
        _write_durably(path / name, content)
        files.append(RowsFile(name=name, rows=len(rows.keys_N), crc32c=crc32c.crc32c(content)))
    manifest = {
        "format": _FORMAT,
        "table": table.spec.name,
        "spec_fingerprint": table.spec.fingerprint,
        "files": [asdict(file) for file in files],
    }
    _write_durably(path / MANIFEST, json.dumps(manifest, indent=1).encode())
    return files


def read_rows(path: Path, table: EmbeddingTable) -> None:
    """Replace all rows of ``table`` by the snapshot in ``path``; nothing is marked as touched.

    Every piece is verified before the first row is loaded: on SnapshotError, which names the file
    at fault, the table is as it was. Readers see the table fill up.
    """
    files = _read_manifest(path / MANIFEST, table)
    for file in files:
        _read_piece(path / file.name, file, table)
    table.clear()
    for file in files:
        table.import_rows(_read_piece(path / file.name, file, table))


def _piece_name(index: int) -> str:
    return f"rows-{index:05d}.safetensors"


def _encode(rows: TableRows) -> bytes:
    return save(
        {
            "keys": rows.keys_N,
            "weights": rows.weights_ND,
            "state": rows.state_NS,
            "last_seen_s": rows.last_seen_s_N,
        }
    )


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    # The rename itself is durable once the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read {path}: {error.strerror}; take another snapshot") from error


def _read_manifest(path: Path, table: EmbeddingTable) -> list[RowsFile]:
    content = _read_bytes(path)
    try:
        manifest: Any = json.loads(content)
        found, fingerprint = manifest["format"], manifest["spec_fingerprint"]
        files = [RowsFile(**entry) for entry in manifest["files"]]
    except (ValueError, TypeError, KeyError) as error:
        raise SnapshotError(f"{path} is damaged ({error!r}); take another snapshot") from error
    if found != _FORMAT:
        raise SnapshotError(
            f"{path} has format {found!r}, want {_FORMAT}; read it with the release that wrote it"
        )
    if fingerprint != table.spec.fingerprint:
        raise SnapshotError(
            f"{path} is of a table with spec {fingerprint!r}, want {table.spec.fingerprint} "
            f"({table.spec.name!r}); build the table from the spec that was saved"
        )
    if [file.name for file in files] != [_piece_name(i) for i in range(len(files))]:
        raise SnapshotError(f"{path} names pieces out of order; take another snapshot")
    return files


def _read_piece(path: Path, expected: RowsFile, table: EmbeddingTable) -> TableRows:
    content = _read_bytes(path)
    found = crc32c.crc32c(content)
    if found != expected.crc32c:
        raise SnapshotError(
            f"{path} has crc32c {found:#010x}, want {expected.crc32c:#010x}; take another snapshot"
        )
    try:
        arrays = load(content)
        rows = TableRows(
            keys_N=arrays["keys"],
            weights_ND=arrays["weights"],
            state_NS=arrays["state"],
            last_seen_s_N=arrays["last_seen_s"],
        )
        rows.check(table.spec)
    except (SafetensorError, KeyError, ShapeError) as error:
        raise SnapshotError(f"{path} does not hold rows of {table.spec.name!r}: {error}") from error
    if len(rows.keys_N) != expected.rows:
        raise SnapshotError(
            f"{path} holds {len(rows.keys_N)} rows, want {expected.rows}; take another snapshot"
        )
    return rows
