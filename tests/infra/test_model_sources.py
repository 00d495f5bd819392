"""A server follows the model that was saved last, past snapshots that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from infra.model_sources import FolderSource
from recsys.snapshots import MANIFEST, Manifest, write_manifest


def saved(folder: Path, model: str, examples: int, at_s: int) -> Path:
    """A snapshot's manifest, written at that time."""
    path = folder / f"snapshot-0001-{examples:012d}"
    path.mkdir(parents=True)
    write_manifest(
        path,
        Manifest(
            model=model,
            incarnation=1,
            table_sequence=0,
            dense_sequence=0,
            delta_position=0,
            as_of_ms=0,
            examples=examples,
            source_offsets={},
            marks={},
            recipe="movielens",
            schema_fingerprint=1,
        ),
    )
    os.utime(path, (at_s, at_s))
    return path


def test_the_model_that_was_saved_last_is_followed(tmp_path: Path) -> None:
    saved(tmp_path, "older", 900, at_s=1)
    newest = saved(tmp_path, "newer", 100, at_s=2)
    source = FolderSource(tmp_path)
    assert source.model() == "newer"
    assert source.candidates("newer") == [newest]


def test_a_damaged_snapshot_hides_no_older_one(tmp_path: Path) -> None:
    saved(tmp_path, "whole", 100, at_s=1)
    damaged = saved(tmp_path, "damaged", 200, at_s=2)
    (damaged / MANIFEST).write_bytes(b"{}")
    os.utime(damaged, (2, 2))
    assert FolderSource(tmp_path).model() == "whole"


def test_an_empty_folder_names_no_model(tmp_path: Path) -> None:
    assert FolderSource(tmp_path / "absent").model() is None
