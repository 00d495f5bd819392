"""Snapshots under a URL: any store that fsspec knows, for hosts that share no disk.

    <url>/snapshot-0001-000000123456-000007/...    as in a folder, the manifest written last

A store has one writer, the trainer's mirror. What cannot be read in a moment is never half believed:
a snapshot without its manifest is not there, and every byte is checked once it is on this host.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from recsys.errors import ConfigError, SnapshotError
from recsys.snapshots import (
    MANIFEST,
    PREFIX,
    Manifest,
    check_snapshot,
    drop_snapshot,
    incarnation_of,
    parse_manifest,
    read_manifest,
    snapshots,
)

log = logging.getLogger(__name__)


class SnapshotStore:
    """The snapshots under one URL. Any number of readers; one writer."""

    def __init__(self, url: str) -> None:
        self.url = _without_password(url.rstrip("/"))
        """Where it is, as messages may say it."""
        try:
            self._files, self._root = fsspec.url_to_fs(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            reason = _without_password(str(error))
            raise ConfigError(f"snapshots cannot be kept at {self.url}: {reason}; correct the URL") from error

    def names(self) -> list[str]:
        """Finished snapshots, oldest first. Raises SnapshotError where the store is out of reach."""
        with self._one_error("listed"):
            self._files.invalidate_cache()
            found = self._files.glob(f"{self._root}/{PREFIX}*/{MANIFEST}")
        return sorted(str(path).split("/")[-2] for path in found)

    def manifest(self, name: str) -> Manifest:
        """Manifest of one snapshot. Raises SnapshotError."""
        return parse_manifest(self._manifest_bytes(name), f"{self.url}/{name}/{MANIFEST}")

    def is_copy_of(self, path: Path) -> bool:
        """Whether what is there under the name of this host's snapshot is the same one.

        Raises SnapshotError, also where nothing is there under that name, and OSError.
        """
        return self._manifest_bytes(path.name) == (path / MANIFEST).read_bytes()

    def put(self, path: Path) -> None:
        """Copy a snapshot of this host; what it follows must be there. Raises SnapshotError."""
        there = f"{self._root}/{path.name}"
        with self._one_error(f"written with {path.name}"):
            names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
            # The manifest is last: with it the snapshot begins to be there.
            for name in sorted(names, key=lambda one: one == MANIFEST):
                self._files.makedirs(f"{there}/{name}".rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path / name), f"{there}/{name}")

    def fetch(self, name: str, folder: Path) -> Path:
        """Bring a snapshot and what it follows into a folder of this host; its path.

        Only what is not there yet is copied. Raises SnapshotError where any of it is damaged or gone.
        """
        manifest = self.manifest(name)
        if manifest.base is not None:
            self.fetch(manifest.base, folder)
        path = folder / name
        with suppress(SnapshotError):
            if read_manifest(path) == manifest:
                return path
        temporary = folder / f".{name}.{os.getpid()}"
        try:
            with self._one_error(f"read for {name}"):
                self._copy(name, temporary)
            check_snapshot(temporary)
            drop_snapshot(path)
            temporary.rename(path)
        except OSError as error:
            raise SnapshotError(f"{path}: could not be written: {error}; free space or rights") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return path

    def drop(self, name: str) -> None:
        """Remove a snapshot; it stops being there with its manifest. Raises SnapshotError."""
        with self._one_error(f"rid of {name}"):
            self._files.rm_file(f"{self._root}/{name}/{MANIFEST}")
            self._files.rm(f"{self._root}/{name}", recursive=True)

    def _manifest_bytes(self, name: str) -> bytes:
        with self._one_error(f"read for {name}"):
            return bytes(self._files.cat_file(f"{self._root}/{name}/{MANIFEST}"))

    def _copy(self, name: str, folder: Path) -> None:
        there = f"{self._root}/{name}"
        folder.mkdir(parents=True)
        for file in self._files.find(there):
            here = folder / str(file).rpartition(f"{name}/")[2]
            here.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(file, str(here))

    @contextmanager
    def _one_error(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Clients of object stores raise classes of their own, and quote the URL.
            reason = _without_password(str(error)) or type(error).__name__
            raise SnapshotError(f"{self.url} could not be {what}: {reason}; check the store") from error


def _without_password(text: str) -> str:
    return re.sub(r"://[^/\s]+@", "://***@", text)


def fetch_newer(store: SnapshotStore, folder: Path, *, replaces: bool = False) -> int:
    """Bring the newest whole snapshot of a store into a folder that holds none, or only older ones.

    With ``replaces`` the folder is no more than a copy: another model in the store takes its place.
    Returns the highest incarnation that the store knows, 0 where it is empty. A store that is out of reach
    is a warning where the folder holds a model already, and SnapshotError where it does not: beginning
    anew would silently forget a model. Without ``replaces``, raises ConfigError where the two hold different
    models.
    """
    local = _newest_local(folder)
    try:
        names = store.names()
    except SnapshotError as error:
        if local is None:
            raise
        log.warning("store_unreachable", extra={"reason": str(error)})
        return 0
    reason: SnapshotError | None = None
    for name in reversed(names):
        try:
            manifest = store.manifest(name)
            is_other = local is not None and manifest.model != local.model
            if is_other and not replaces:
                raise ConfigError(
                    f"{store.url} holds snapshots of {manifest.model!r}, {folder} those of another model; "
                    "choose another URL, or move one of them away"
                )
            if local is None or is_other or manifest.position > local.position:
                store.fetch(name, folder)
            if is_other:
                _drop_others(folder, manifest.model)
            break
        except SnapshotError as error:
            log.warning("snapshot_skipped", extra={"path": f"{store.url}/{name}", "reason": str(error)})
            reason = error
    else:
        if local is None and reason is not None:
            raise SnapshotError(f"{store.url}: none of {len(names)} snapshots can be read ({reason})")
    return max((incarnation_of(Path(name)) for name in names), default=0)


def clear_old_fetches(folder: Path, *, min_age_s: float = 3600.0) -> None:
    """Remove what killed processes left of snapshots that they fetched into a folder.

    Another process may be fetching into it: what was written to lately stays.
    """
    for leftover in folder.glob(f".{PREFIX}*"):
        # What vanishes meanwhile is its owner's.
        with suppress(OSError):
            newest_s = max(path.stat().st_mtime for path in [leftover, *leftover.rglob("*")])
            if time.time() - newest_s > min_age_s:
                shutil.rmtree(leftover, ignore_errors=True)


def _newest_local(folder: Path) -> Manifest | None:
    for path in reversed(snapshots(folder)):
        with suppress(SnapshotError):
            return read_manifest(path)
    return None


def _drop_others(folder: Path, model: str) -> None:
    for path in reversed(snapshots(folder)):
        with suppress(SnapshotError, OSError):
            if read_manifest(path).model != model:
                drop_snapshot(path)
