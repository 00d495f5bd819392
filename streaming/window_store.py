"""Where a join keeps its windows, and when each is due: the seam, and its slow obvious twin."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Protocol

from streaming.events import decode_shown
from streaming.windows import Window, decode_window, encode_window

NEVER_MS = 1 << 62


class WindowStore(Protocol):
    """Windows by request id, and a commit of all of them at once. One caller at a time."""

    next_due_ms: int
    """No window is due before this; it may be that none is due then either."""

    @property
    def n_windows(self) -> int:
        """Windows that are known."""

    @property
    def n_cached(self) -> int:
        """Those of them that are in memory."""

    @property
    def wants_commit(self) -> bool:
        """Whether what has changed since the last commit takes so much memory that one is due."""

    def bound_cache(self, max_bytes: int) -> None:
        """Keep about so much in memory."""

    def get(self, request_id: str) -> Window | None:
        """The window of a request. Raises StateUnavailable, as all that follow."""

    def put(self, window: Window) -> None:
        """Keep a new window; or take note that one from ``get`` or ``pop_due`` has changed."""

    def remove(self, window: Window) -> None:
        """Drop a window for good."""

    def pop_due(self, watermark_ms: int) -> Window | None:
        """The window whose due time, not above the watermark, comes first, then by request id.

        It must then be put, with a later due time, or removed.
        """

    def commit(self, ledger: bytes, *, keep_from_ms: int) -> None:
        """Make all windows and ``ledger`` durable, all or nothing.

        Windows of which all is older than ``keep_from_ms`` need not stay in memory.
        """

    def restore(self) -> bytes | None:
        """Hold what the last commit held, and nothing else; its ledger, None where there is none."""

    def close(self) -> None:
        """Give up what has not been committed. The store cannot be used afterwards."""


class MemoryStore:
    """Every window in a dict; a commit writes all of them anew. The slow twin. One caller at a time."""

    wants_commit = False

    def __init__(self, committed: tuple[bytes, dict[str, list[bytes]]] | None = None) -> None:
        """``committed`` is another store's: what a process that died has left behind."""
        self.committed = committed
        self.next_due_ms = NEVER_MS
        self._windows: dict[str, Window] = {}
        self._timers: list[tuple[int, str]] = []

    @property
    def n_windows(self) -> int:
        """As WindowStore says."""
        return len(self._windows)

    @property
    def n_cached(self) -> int:
        """All of them."""
        return len(self._windows)

    def bound_cache(self, max_bytes: int) -> None:
        """There is nowhere else to keep a window."""

    def get(self, request_id: str) -> Window | None:
        """As WindowStore says."""
        return self._windows.get(request_id)

    def put(self, window: Window) -> None:
        """As WindowStore says."""
        self._windows[window.request_id] = window
        if window.due_ms != window.armed_ms:
            window.armed_ms = window.due_ms
            heappush(self._timers, (window.due_ms, window.request_id))
            self.next_due_ms = self._timers[0][0]

    def remove(self, window: Window) -> None:
        """As WindowStore says."""
        del self._windows[window.request_id]

    def pop_due(self, watermark_ms: int) -> Window | None:
        """As WindowStore says."""
        found = None
        while found is None and self._timers and self._timers[0][0] <= watermark_ms:
            due_ms, request_id = heappop(self._timers)
            window = self._windows.get(request_id)
            # A timer outlives its window, and the due time that it was set for.
            if window is not None and window.due_ms == due_ms:
                found = window
        self.next_due_ms = self._timers[0][0] if self._timers else NEVER_MS
        return found

    def commit(self, ledger: bytes, *, keep_from_ms: int) -> None:
        """As WindowStore says."""
        windows = {
            request_id: [encode_window(window), *(part.shown.raw for part in window.parts)]
            for request_id, window in self._windows.items()
        }
        self.committed = (ledger, windows)

    def restore(self) -> bytes | None:
        """As WindowStore says."""
        ledger, windows = self.committed or (None, {})
        self._windows = {
            request_id: decode_window(request_id, state, [decode_shown(raw) for raw in shown])
            for request_id, (state, *shown) in windows.items()
        }
        self._timers = [(window.due_ms, request_id) for request_id, window in self._windows.items()]
        heapify(self._timers)
        self.next_due_ms = self._timers[0][0] if self._timers else NEVER_MS
        return ledger

    def close(self) -> None:
        """Nothing is held open."""
