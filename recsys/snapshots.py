"""A whole model on disk: rows, dense parameters, and where in its source it stands.

    snapshot-0001-000000123456/
        rows/            the table, written by recsys.table.snapshot
        dense.safetensors    tower weights and dense optimiser state
        metrics.safetensors  progressive metrics, so that a restart goes on counting
        manifest.json    what it is, its checksums, its source offsets: written last

The folder is made under a temporary name and renamed, so a snapshot either exists whole or not at
all; a name that begins with a dot is one that is being made or dropped. Every byte is under a
checksum, the manifest's own included. Training and serving share these bytes and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import crc32c
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys.errors import SnapshotError
from recsys.table.snapshot import MANIFEST as ROWS_MANIFEST
from recsys.table.snapshot import read_rows, write_rows
from recsys.table.table import EmbeddingTable

Arrays = Mapping[str, NDArray[Any]]

MANIFEST = "manifest.json"
PREFIX = "snapshot-"
_ROWS = f"rows/{ROWS_MANIFEST}"
_OWN_CHECKSUM = b',\n "crc32c": '


class Manifest(BaseModel):
    """What a snapshot is and where its stream stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: str
    """Lineage: the same through every restart of one model."""
    incarnation: int
    """Rises at each start of the training shard."""
    table_sequence: int
    """Number of the newest delta that the rows contain."""
    dense_sequence: int
    delta_position: int
    """Offset in the delta log after the newest delta that is contained."""
    as_of_ms: int
    """Event time of the newest example learned."""
    examples: int
    """Examples learned since the model began."""
    source_offsets: dict[str, int]
    """Next offset to read, by "topic/partition"."""
    source_sequence: int
    """Number of the newest example batch learned."""
    recipe: str
    schema_fingerprint: int
    checksums: dict[str, int] = {}
    """CRC-32C of the other files; those of rows/ are in turn under the one that is named here."""

    @property
    def version(self) -> str:
        """What a ranking answer names as its model version."""
        return f"{self.model}.{self.incarnation}"

    @property
    def position(self) -> tuple[int, int, int]:
        """Newer snapshots of one model compare greater."""
        return (self.incarnation, self.table_sequence, self.examples)


def write_snapshot(
    folder: Path, manifest: Manifest, table: EmbeddingTable, dense: Arrays, metrics: Arrays
) -> Path:
    """Write ``folder/snapshot-<incarnation>-<examples>``, replacing one of that name; its path."""
    target = folder / f"{PREFIX}{manifest.incarnation:04d}-{manifest.examples:012d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write_rows(temporary / "rows", table)
        checksums = {_ROWS: int(crc32c.crc32c((temporary / _ROWS).read_bytes()))}
        for name, arrays in (("dense.safetensors", dense), ("metrics.safetensors", metrics)):
            checksums[name] = _write_file(temporary / name, save(dict(arrays)))
        write_manifest(temporary, manifest.model_copy(update={"checksums": checksums}))
        drop_snapshot(target)
        temporary.rename(target)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SnapshotError(
            f"snapshot {target}: could not be written: {error}; free space or rights"
        ) from error
    return target


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of the snapshot in ``path``, which then is one. Raises OSError as the disk does."""
    _write_file(path / MANIFEST, _with_checksum(manifest.model_dump_json(indent=1).encode()))
    _sync_folder(path)


def drop_snapshot(path: Path) -> None:
    """Remove a snapshot, if it is there; no reader finds half of it under its name.

    Raises OSError when it cannot be taken from its name.
    """
    doomed = path.with_name(f".{path.name}.dropped")
    shutil.rmtree(doomed, ignore_errors=True)
    if path.exists():
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left; for the folder's only writer, between two snapshots."""
    for leftover in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def read_manifest(path: Path) -> Manifest:
    """The manifest of one snapshot. Raises SnapshotError where it is missing or not one of ours."""
    file = path / MANIFEST
    try:
        content = file.read_bytes()
        body = content.rpartition(_OWN_CHECKSUM)[0] + b"\n}"
        if content != _with_checksum(body):
            raise SnapshotError(f"{file}: its checksum does not fit its content; use another snapshot")
        return Manifest.model_validate_json(body)
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise SnapshotError(f"{file}: no usable manifest ({reason}); use another snapshot") from error


def read_dense(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Tower weights and dense optimiser state, checked against the manifest."""
    return _read_arrays(path, "dense.safetensors", manifest)


def read_metrics(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Progressive metrics as saved, checked against the manifest."""
    return _read_arrays(path, "metrics.safetensors", manifest)


def read_table(path: Path, table: EmbeddingTable) -> None:
    """Replace the table's rows by the snapshot's; on an error the table is as it was."""
    _read_checked(path, _ROWS, read_manifest(path))
    read_rows(path / "rows", table)


def snapshots(folder: Path) -> list[Path]:
    """Finished snapshots in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / MANIFEST).is_file())


def incarnation_of(path: Path) -> int:
    """The incarnation in a snapshot's name: known even where its files are damaged; 0 for another name."""
    digits = path.name.removeprefix(PREFIX).partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _with_checksum(body: bytes) -> bytes:
    """A JSON object with the checksum of all that stands before it as its last member."""
    head = body.removesuffix(b"\n}")
    return head + _OWN_CHECKSUM + b"%d\n}" % crc32c.crc32c(head)


def _write_file(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return int(crc32c.crc32c(content))


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable, as fsync makes the bytes of a file."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_checked(path: Path, name: str, manifest: Manifest) -> bytes:
    try:
        content = (path / name).read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path / name}: cannot be read ({error}); use another snapshot") from error
    found = int(crc32c.crc32c(content))
    if found != manifest.checksums.get(name):
        raise SnapshotError(
            f"{path / name}: checksum {found:08x} differs from its manifest; use another snapshot"
        )
    return content


def _read_arrays(path: Path, name: str, manifest: Manifest) -> dict[str, NDArray[Any]]:
    content = _read_checked(path, name, manifest)
    try:
        arrays: dict[str, NDArray[Any]] = load(content)
    except SafetensorError as error:
        raise SnapshotError(f"{path / name}: cannot be read ({error}); use another snapshot") from error
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
