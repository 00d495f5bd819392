"""A folder of model snapshots: their names, which of them follow one another, and what is left of others.

A name that begins with a dot is of a snapshot that is being made or dropped.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from recsys.errors import SnapshotError
from recsys.model_snapshots.manifest import MANIFEST, Manifest, read_manifest

PREFIX = "snapshot-"


def plain_name(incarnation: int, examples: int) -> str:
    """What a snapshot that stands alone is called."""
    return f"{PREFIX}{incarnation:04d}-{examples:012d}"


def numbered_name(folder: Path, manifest: Manifest) -> str:
    """A name for the next of many: later ones of an incarnation sort higher, however few examples lie
    between them."""
    taken = [path.name.split("-") for path in folder.glob(f"{PREFIX}{manifest.incarnation:04d}-*")]
    numbers = [int(words[3]) for words in taken if len(words) == 4 and words[3].isdecimal()]
    return f"{plain_name(manifest.incarnation, manifest.examples)}-{max(numbers, default=-1) + 1:06d}"


def snapshots(folder: Path) -> list[Path]:
    """Finished snapshots in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / MANIFEST).is_file())


def incarnation_of(path: Path) -> int:
    """The incarnation in a snapshot's name: known even where its files are damaged; 0 for another name."""
    digits = path.name.removeprefix(PREFIX).partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def chain_of(path: Path) -> list[Path]:
    """The full snapshot that one builds on, the increments after it, and the one itself, in this order.

    Raises SnapshotError where one of them is missing or has no usable manifest.
    """
    chain, base = [path], read_manifest(path).base
    while base is not None:
        before = path.with_name(base)
        if before in chain:
            raise SnapshotError(f"{path / MANIFEST}: its chain of increments is a ring; use another snapshot")
        chain.append(before)
        base = read_manifest(before).base
    return chain[::-1]


def drop_snapshot(path: Path) -> None:
    """Remove a snapshot, if it is there; no reader finds half of it under its name.

    Raises OSError when it cannot be taken from its name.
    """
    doomed = path.with_name(f".{path.name}.dropped")
    shutil.rmtree(doomed, ignore_errors=True)
    if path.exists():
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def drop_oldest(folder: Path, keep: int) -> None:
    """Drop all but the newest ``keep`` snapshots and what they build on.

    Where more than one is kept and all build on one full snapshot, the newest of the chain before stays
    too: a damaged full snapshot then takes not everything with it.
    """
    found = snapshots(folder)
    kept = _kept(found, keep)
    # The newest first: none is ever there without what it builds on.
    for path in reversed(found):
        if path not in kept:
            # One that will not go yet is dropped with the next.
            with suppress(OSError):
                drop_snapshot(path)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left; for the folder's only writer, between two snapshots."""
    for leftover in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _kept(found: list[Path], keep: int) -> set[Path]:
    """The newest ``keep`` of ``found`` (oldest first), one of an older chain, and what these build on."""
    kept: set[Path] = set()
    roots: set[Path] = set()
    n_points = 0
    for path in reversed(found):
        is_spare = n_points >= keep
        if is_spare and (keep == 1 or len(roots) > 1):
            break
        try:
            chain = chain_of(path)
        except SnapshotError:
            # Nothing can be restored from it; its name still tells that its incarnation was.
            kept.update([] if is_spare else [path])
            continue
        if not is_spare or chain[0] not in roots:
            kept.update(chain)
            roots.add(chain[0])
            n_points += 1
    return kept
