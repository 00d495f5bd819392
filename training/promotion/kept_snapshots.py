"""Snapshots that outlive the trainer's own: what registered versions point to.

    <root>/<model>/snapshot-0001-000000123456-000007/

An increment is kept with all that it follows. Keeping is hard-linking where the file system can, else
copying: files of a snapshot never change.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from recsys.errors import SnapshotError
from recsys.snapshots import MANIFEST, Manifest, chain_of


class KeptSnapshots:
    """A folder that snapshots are added to and never dropped from. Any number of threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def keep(self, snapshot: Path, manifest: Manifest) -> Path:
        """Give a snapshot, and those that it follows, a place of their own, once; where it is.

        Raises SnapshotError when one cannot be read to its end (its owner may drop it meanwhile), or
        when another snapshot already has its model and name.
        """
        home = self._root / manifest.model
        if snapshot.absolute().parent != home:
            # The full one first: none is ever there without what it builds on.
            for link in chain_of(snapshot):
                _keep_link(link, home / link.name)
        return home / snapshot.name


def _keep_link(snapshot: Path, kept: Path) -> None:
    try:
        if not kept.exists():
            _link_folder(snapshot, kept)
        is_same = (kept / MANIFEST).read_bytes() == (snapshot / MANIFEST).read_bytes()
    except (OSError, shutil.Error) as error:
        raise SnapshotError(f"{snapshot} could not be kept as {kept}: {error}; keep a newer one") from error
    if not is_same:
        raise SnapshotError(f"{kept} is another snapshot than {snapshot}; train that one as a new model")


def _link_folder(source: Path, target: Path) -> None:
    """Make ``target`` whole at once, out of links to the files of ``source``."""
    temporary = target.parent / f".{target.name}.{os.urandom(4).hex()}"
    try:
        shutil.copytree(source, temporary, copy_function=_link)
        temporary.rename(target)
    except (OSError, shutil.Error):
        shutil.rmtree(temporary, ignore_errors=True)
        # Whoever kept the same snapshot at the same moment has done the work.
        if not target.exists():
            raise


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)
