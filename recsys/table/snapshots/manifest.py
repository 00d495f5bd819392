"""What a snapshot says of itself, and whether several of them follow one another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import SnapshotError

MANIFEST = "rows.json"
PIECE_PATTERNS = ("rows-*-of-*.arrow", "removed-*-of-*.arrow", "ledger-*-of-*.safetensors")
FORMAT = 2


class PieceFile(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """File name inside the folder."""
    entries: int
    """Rows, removed keys or arrays in it; a row that was written twice counts twice."""
    bytes: int
    """Its length."""
    crc32c: int
    """Of all its bytes."""


class ShardFiles(BaseModel):
    """The files of one shard. Its table is ``rows`` in order, the later of equal keys, less ``removed``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: PieceFile
    removed: PieceFile
    ledger: PieceFile


class RowsManifest(BaseModel):
    """A snapshot's kind, its table and its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    kind: Literal["full", "increment"]
    """All rows, or those that changed since the snapshot before."""
    table: str
    """TableSpec.name."""
    spec_fingerprint: int
    """TableSpec.fingerprint: only a table with the same one can be restored from this."""
    spec: dict[str, Any]
    """TableSpec.to_json, for whoever has lost the recipe."""
    place: int
    """Snapshots before this one in its chain; 0 for a full one."""
    base: str | None
    """``id`` of the snapshot before; None for a full one."""
    shards: tuple[ShardFiles, ...]

    @property
    def id(self) -> str:
        """32 hex digits of a hash of all the above: through the checksums, of every byte."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=16).hexdigest()

    def to_json(self) -> bytes:
        """What ``rows.json`` holds: the fields, and the id that proves them whole."""
        return json.dumps({"id": self.id, **self.model_dump(mode="json")}, indent=1).encode()

    @property
    def pieces(self) -> list[PieceFile]:
        """All files but the manifest."""
        return [piece for shard in self.shards for piece in (shard.rows, shard.removed, shard.ledger)]


def shard_names(shard: int, n_shards: int) -> tuple[str, str, str]:
    """File names of one shard: rows, removed, ledger."""
    place = f"{shard:05d}-of-{n_shards:05d}"
    return f"rows-{place}.arrow", f"removed-{place}.arrow", f"ledger-{place}.safetensors"


def read_manifest(folder: Path) -> RowsManifest:
    """The manifest of the snapshot in ``folder``. Raises SnapshotError where there is no whole one."""
    path = folder / MANIFEST
    try:
        plain = json.loads(path.read_bytes())
        found, stored_id = plain["format"], plain.pop("id", None)
    except OSError as error:
        raise SnapshotError(f"cannot read {path}: {error.strerror}; take another snapshot") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotError(f"{path} is damaged ({error!r}); take another snapshot") from error
    if found != FORMAT:
        raise SnapshotError(
            f"{path} has format {found!r}, want {FORMAT}; read it with the release that wrote it"
        )
    try:
        manifest = RowsManifest.model_validate(plain)
    except ValidationError as error:
        reason = str(error).splitlines()[1:3]
        raise SnapshotError(f"{path} is damaged ({' '.join(reason)}); take another snapshot") from error
    if stored_id != manifest.id:
        raise SnapshotError(
            f"{path} says it is {stored_id}, its content is {manifest.id}: altered; take another"
        )
    _check_names(path, manifest)
    return manifest


def check_chain(folders: Sequence[Path], manifests: Sequence[RowsManifest]) -> None:
    """Raise SnapshotError unless a full snapshot is followed by its increments, none missing."""
    before = None
    for folder, manifest in zip(folders, manifests, strict=True):
        what = f"{folder / MANIFEST} is {manifest.kind} snapshot {manifest.id}"
        if before is None:
            if manifest.kind != "full":
                raise SnapshotError(
                    f"{what}, number {manifest.place} of its chain, want a full one first; "
                    f"name the snapshots back to the full one, {manifest.base} before this"
                )
        elif manifest.kind != "increment":
            raise SnapshotError(
                f"{what}, want an increment after {before.id}; begin the chain with it instead"
            )
        elif manifest.base != before.id:
            gap = "one is missing between" if manifest.place > before.place + 1 else "it is of another chain"
            raise SnapshotError(
                f"{what}, number {manifest.place} of its chain after {manifest.base}, "
                f"want number {before.place + 1} after {before.id}: {gap}; name each once, oldest first"
            )
        before = manifest


def _check_names(path: Path, manifest: RowsManifest) -> None:
    n_shards = len(manifest.shards)
    wanted = [name for shard in range(n_shards) for name in shard_names(shard, n_shards)]
    if not wanted or [piece.name for piece in manifest.pieces] != wanted:
        raise SnapshotError(f"{path} does not name the files of {n_shards} shards; take another snapshot")
