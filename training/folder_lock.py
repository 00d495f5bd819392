"""One writer of a folder at a time."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from training.errors import FolderInUse


class FolderLock:
    """The right to write a folder, from ``take`` to ``drop``. One caller at a time.

    It is an flock on the folder itself: it needs no room on a full disk, and ends with its process, however
    that ends. For local folders: other file systems may not know it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._release: weakref.finalize[[int], FolderLock] | None = None

    def take(self) -> None:
        """Make the folder and lock it, unless that is done.

        Raises FolderInUse where another one holds it, OSError where it cannot be made or locked.
        """
        if self._release is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(opened)
            if not isinstance(error, BlockingIOError):
                raise
            raise FolderInUse(
                f"{self._folder} is in use by another trainer; end that one first, or train in another folder"
            ) from error
        self._release = weakref.finalize(self, os.close, opened)

    def drop(self) -> None:
        """Let others have it."""
        if self._release is not None:
            self._release()
            self._release = None
