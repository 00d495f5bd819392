"""Looking for snapshots beside the thread that follows the log: a store or a registry may take minutes."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)


class SnapshotSource(Protocol):
    """Knows which model is to be served and where its snapshots are. It may be slow, and may drop old
    snapshots while it is asked."""

    def model(self) -> str | None:
        """Lineage to serve now; None while there is none. May raise anything; it is asked again."""

    def candidates(self, model: str) -> list[Path]:
        """Snapshots of that lineage on this host, the newest first. May raise anything."""


class SnapshotLook:
    """Asks a source in a thread of its own, one look at a time. One caller at a time.

    A look begins only when it is told to: what its caller is loading is not dropped meanwhile.
    """

    def __init__(self, source: SnapshotSource) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._is_looking = self._is_stopped = False
        self._found: list[Path] | None = None
        self._reason = ""
        """Why the newest look failed; empty where it did not."""
        self._thread = threading.Thread(target=self._run, name="snapshot-look", daemon=True)

    def start(self) -> None:
        """Be ready to look."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Look no more; a look that takes longer ends with the process."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def begin(self) -> None:
        """Look now, unless a look is on its way or its finding was not taken yet."""
        with self._changed:
            if self._found is None:
                self._is_looking = True
                self._changed.notify_all()

    def take(self) -> list[Path] | None:
        """What a look found, once; None while there is nothing new."""
        with self._changed:
            found, self._found = self._found, None
            return found

    def _run(self) -> None:
        while self._is_told_to_look():
            found = self._look()
            with self._changed:
                self._found, self._is_looking = found, False

    def _is_told_to_look(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_looking or self._is_stopped)
            return not self._is_stopped

    def _look(self) -> list[Path]:
        try:
            model = self._source.model()
            found = self._source.candidates(model) if model is not None else []
        except Exception as error:  # noqa: BLE001
            # The thread's outermost loop: clients of stores and registries raise classes of their own.
            reason = str(error) or type(error).__name__
            if reason != self._reason:
                log.warning("snapshots_unreadable", extra={"reason": reason})
            self._reason = reason
            return []
        self._reason = ""
        return found
