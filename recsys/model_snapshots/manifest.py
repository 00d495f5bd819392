"""What a model snapshot says of itself; the file that is written last."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import crc32c
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from recsys.errors import SnapshotError
from recsys.model_snapshots.files import sync_folder, write_file

MANIFEST = "manifest.json"
_OWN_CHECKSUM = b',\n "crc32c": '


class Manifest(BaseModel):
    """What a snapshot is and where its stream stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    kind: Literal["full", "increment"] = "full"
    """All rows, or those that changed since ``base``; everything else is whole in either."""
    base: str | None = None
    """Name of the snapshot that an increment follows, in the same folder; None for a full one."""
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
    marks: dict[str, tuple[int, int]]
    """(epoch, sequence) of the newest message, by "topic/partition": what is not above it is void."""
    recipe: str
    schema_fingerprint: int
    checksums: dict[str, int] = {}
    """CRC-32C of the other files; those of rows/ are in turn under the one that is named here."""

    @model_validator(mode="after")
    def _increments_follow(self) -> Self:
        if (self.kind == "increment") != (self.base is not None):
            raise ValueError(f"kind {self.kind} does not go with base {self.base!r}")
        return self

    @property
    def version(self) -> str:
        """What a ranking answer names as its model version."""
        return f"{self.model}.{self.incarnation}"

    @property
    def position(self) -> tuple[int, int, int]:
        """Newer snapshots of one model compare greater."""
        return (self.incarnation, self.table_sequence, self.examples)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of the snapshot in ``path``, which then is one. Raises OSError as the disk does."""
    write_file(path / MANIFEST, _with_checksum(manifest.model_dump_json(indent=1).encode()))
    sync_folder(path)


def read_manifest(path: Path) -> Manifest:
    """The manifest of one snapshot. Raises SnapshotError where it is missing or not one of ours."""
    file = path / MANIFEST
    try:
        return parse_manifest(file.read_bytes(), str(file))
    except OSError as error:
        raise SnapshotError(f"{file}: no usable manifest ({error}); use another snapshot") from error


def parse_manifest(content: bytes, source: str) -> Manifest:
    """The manifest in the bytes that ``source`` names. Raises SnapshotError where they are none of ours."""
    body = content.rpartition(_OWN_CHECKSUM)[0] + b"\n}"
    if content != _with_checksum(body):
        raise SnapshotError(f"{source}: its checksum does not fit its content; use another snapshot")
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        reason = " ".join(str(error).splitlines()[:3])
        raise SnapshotError(f"{source}: no usable manifest ({reason}); use another snapshot") from error


def _with_checksum(body: bytes) -> bytes:
    """A JSON object with the checksum of all that stands before it as its last member."""
    head = body.removesuffix(b"\n}")
    return head + _OWN_CHECKSUM + b"%d\n}" % crc32c.crc32c(head)
