"""A whole model on disk: rows, dense parameters, and where in its source it stands.

    snapshot-0001-000000123456/
        rows/            the table, written by recsys.table.snapshot
        dense.safetensors    tower weights and dense optimiser state
        metrics.safetensors  progressive metrics, so that a restart goes on counting
        manifest.json    what it is, its checksums, its source offsets: written last

The folder is made under a temporary name and renamed, so a snapshot either exists whole or not at
all. Training and serving share these bytes and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys.errors import SnapshotError
from recsys.table.snapshot import read_rows, write_rows
from recsys.table.table import EmbeddingTable

Arrays = Mapping[str, NDArray[Any]]

MANIFEST = "manifest.json"
PREFIX = "snapshot-"


class Manifest(BaseModel):
    """What a snapshot is and where its stream stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
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
    """CRC-32C of the files that this module writes."""

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
    temporary.mkdir(parents=True)
    try:
        write_rows(temporary / "rows", table)
        checksums = {
            name: _write_file(temporary / name, save(dict(arrays)))
            for name, arrays in (("dense.safetensors", dense), ("metrics.safetensors", metrics))
        }
        complete = manifest.model_copy(update={"checksums": checksums})
        _write_file(temporary / MANIFEST, complete.model_dump_json(indent=1).encode())
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SnapshotError(
            f"snapshot {target}: could not be written: {error}; free space or rights"
        ) from error
    return target


def read_manifest(path: Path) -> Manifest:
    """The manifest of one snapshot. Raises SnapshotError where it is missing or not one of ours."""
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise SnapshotError(
            f"snapshot {path}: no usable {MANIFEST} ({reason}); use another snapshot"
        ) from error


def read_dense(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Tower weights and dense optimiser state, checked against the manifest."""
    return _read_arrays(path / "dense.safetensors", manifest)


def read_metrics(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Progressive metrics as saved, checked against the manifest."""
    return _read_arrays(path / "metrics.safetensors", manifest)


def read_table(path: Path, table: EmbeddingTable) -> None:
    """Replace the table's rows by the snapshot's; on an error the table is as it was."""
    read_rows(path / "rows", table)


def snapshots(folder: Path) -> list[Path]:
    """Finished snapshots in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / MANIFEST).is_file())


def _write_file(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return int(crc32c.crc32c(content))


def _read_arrays(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    try:
        content = path.read_bytes()
        found = int(crc32c.crc32c(content))
        if found != manifest.checksums.get(path.name):
            raise SnapshotError(
                f"{path}: checksum {found:08x} differs from its manifest; use another snapshot"
            )
        arrays: dict[str, NDArray[Any]] = load(content)
    except (OSError, SafetensorError) as error:
        raise SnapshotError(f"{path}: cannot be read ({error}); use another snapshot") from error
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
