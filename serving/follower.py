"""Keeps a replica current: boots it from a snapshot, reads the delta log, catches up in a shadow."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import ConfigError, RecsysError
from recsys.snapshots import Manifest, read_manifest
from serving.replica import ApplyOutcome, Replica
from serving.snapshot_look import SnapshotLook, SnapshotSource
from streaming.deltas import DeltaSubscriber, DenseDelta, TableDelta
from streaming.errors import DamagedDelta, OffsetLost, SourceUnavailable

log = logging.getLogger(__name__)

_URGENT_PERIOD_S = 0.1
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 5.0
_NOWHERE = (-1, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """How patient a follower is."""

    check_period_s: float = 2.0
    """Between two looks for another model's snapshot; looks for one that is asked for come sooner; > 0."""
    max_catch_up_s: float = 60.0
    """A restored trainer's parameters take over after so long even where they are still behind in event
    time: old ones must not serve for ever; >= 0."""
    quiet_s: float = 10.0
    """Without a delta for so long, which is longer than a trainer's heartbeat, see whether the log is
    still there; > 0."""

    def __post_init__(self) -> None:
        if min(self.check_period_s, self.quiet_s) <= 0 or self.max_catch_up_s < 0:
            raise ConfigError(
                "check_period_s and quiet_s must be > 0 and max_catch_up_s >= 0, got "
                f"{self.check_period_s}, {self.quiet_s} and {self.max_catch_up_s}"
            )


class FollowerStatus(enum.Enum):
    """What a follower is busy with."""

    FOLLOWING = "following"
    CATCHING_UP = "catching_up"
    WAITING_FOR_SNAPSHOT = "waiting_for_snapshot"
    LOG_UNREACHABLE = "log_unreachable"


class ReplicaFollower:
    """Keeps a replica current in a thread of its own, and looks for snapshots in another.

    The first is the only one that changes the replica; any may read ``status``.
    """

    def __init__(
        self,
        replica: Replica,
        subscriber: DeltaSubscriber,
        snapshots: SnapshotSource,
        config: FollowerConfig | None = None,
        *,
        on_applied: Callable[[], None] = lambda: None,
    ) -> None:
        self._replica, self._subscriber = replica, subscriber
        self._look = SnapshotLook(snapshots)
        self._config, self._on_applied = config or FollowerConfig(), on_applied
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica-follower", daemon=True)
        # Every outcome from the start: others iterate over it, and its size must not change meanwhile.
        self.outcomes: Counter[ApplyOutcome] = Counter(dict.fromkeys(ApplyOutcome, 0))
        self._wants_snapshot = False
        self._gap_at = _NOWHERE
        self._asked_s: float | None = None
        self._checked_s = float("-inf")
        self._heard_s = time.monotonic()
        self._failures = 0
        """Reads of the log in a row that found it out of reach."""
        self._seek_to: int | None = None

    @property
    def status(self) -> FollowerStatus:
        """What it is busy with; the old parameters serve meanwhile."""
        if self._failures:
            return FollowerStatus.LOG_UNREACHABLE
        if self._wants_snapshot or not self._replica.ready.is_set():
            return FollowerStatus.WAITING_FOR_SNAPSHOT
        return FollowerStatus.CATCHING_UP if self._replica.shadow else FollowerStatus.FOLLOWING

    def start(self) -> None:
        """Begin to follow; ``replica.ready`` is set once the first snapshot is loaded."""
        self._look.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop following; return when the thread has ended."""
        self._stop.set()
        self._thread.join()
        self._look.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:
                # The thread's outermost loop: a server whose parameters silently stop is worse than noise.
                log.exception("follower_turn_failed")
                self._ask_for_snapshot("a turn failed half way")
                self._stop.wait(0.5)

    def _turn(self) -> None:
        # A replica that found a gap looks more often: old parameters serve meanwhile.
        urgent = self._wants_snapshot or not self._replica.ready.is_set()
        longest_s = self._config.check_period_s
        period_s = min(_URGENT_PERIOD_S, longest_s) if urgent else longest_s
        if time.monotonic() - self._checked_s >= period_s:
            self._checked_s = time.monotonic()
            self._look.begin()
        found = self._look.take()
        if found is not None:
            self._load_first_of(found)
        if self._replica.ready.is_set():
            self._follow()
        else:
            self._stop.wait(_URGENT_PERIOD_S)

    def _load_first_of(self, candidates: list[Path]) -> None:
        """Load the newest whole snapshot that should be served, where it is not the one that is."""
        for path in candidates:
            try:
                manifest = read_manifest(path)
                if self._is_other_model(manifest):
                    self._serve(path)
                elif self._wants_snapshot and manifest.position[:2] > self._newest_known():
                    self._catch_up_from(path)
                return
            except (RecsysError, OSError) as error:
                # Damaged, or dropped by its owner while it was read: an older one may do until the next.
                log.warning("snapshot_refused", extra={"path": str(path), "reason": str(error)})

    def _is_other_model(self, manifest: Manifest) -> bool:
        is_ready = self._replica.ready.is_set()
        return not is_ready or manifest.model != self._replica.parameters.manifest.model

    def _newest_known(self) -> tuple[int, int]:
        """A snapshot no newer than this lies before the gap: the log after it cannot be followed."""
        return max(self._replica.parameters.position, self._gap_at)

    def _serve(self, path: Path) -> None:
        """Serve another model, or the first, at once: event times of two models do not compare."""
        manifest = self._replica.load(path)
        self._gap_at, self._asked_s = _NOWHERE, None
        self._follow_from(path, manifest)

    def _catch_up_from(self, path: Path) -> None:
        self._follow_from(path, self._replica.prepare(path))
        self._swap_in_time()

    def _follow_from(self, path: Path, manifest: Manifest) -> None:
        self._seek_to = manifest.delta_position
        self._wants_snapshot = False
        log.info("snapshot_loaded", extra={"path": str(path), "version": manifest.version})
        self._on_applied()

    def _ask_for_snapshot(self, reason: str) -> None:
        self.outcomes[ApplyOutcome.SNAPSHOT_NEEDED] += 1
        if self._wants_snapshot:
            return
        log.warning("snapshot_wanted", extra={"reason": reason})
        if self._replica.ready.is_set():
            self._gap_at = max(self._gap_at, self._replica.following.position)
        self._replica.shadow = None
        self._asked_s = time.monotonic() if self._asked_s is None else self._asked_s
        self._wants_snapshot = True

    def _follow(self) -> None:
        try:
            if self._seek_to is not None:
                self._subscriber.seek(self._seek_to)
                self._seek_to = None
            deltas = self._subscriber.poll(timeout_s=0.05)
            self._check_log(has_news=bool(deltas))
        except (SourceUnavailable, DamagedDelta) as error:
            self._bear_with(error)
            return
        self._failures = 0
        for delta in deltas:
            self._follow_on(delta)
        self._swap_in_time()
        if deltas:
            self._on_applied()

    def _follow_on(self, delta: TableDelta | DenseDelta) -> None:
        try:
            outcome, reason = self._replica.apply(delta), self._replica.refusal
        except RecsysError as error:
            # Rows or weights of another layout: this log holds nothing for this server.
            outcome, reason = ApplyOutcome.SNAPSHOT_NEEDED, str(error)
        if outcome is ApplyOutcome.SNAPSHOT_NEEDED:
            self._ask_for_snapshot(reason)
            return
        self.outcomes[outcome] += 1
        if outcome is ApplyOutcome.APPLIED and isinstance(delta, TableDelta) and self._wants_snapshot:
            # A sender that missed the acknowledgement sent all of it again: nothing is missing any more.
            self._wants_snapshot = False
            self._gap_at, self._asked_s = _NOWHERE, None

    def _swap_in_time(self) -> None:
        if self._replica.shadow is None:
            return
        asked_s = time.monotonic() if self._asked_s is None else self._asked_s
        is_late = time.monotonic() - asked_s >= self._config.max_catch_up_s
        if not (is_late or self._replica.is_caught_up()):
            return
        old_ms, new_ms = self._replica.parameters.as_of_ms, self._replica.shadow.as_of_ms
        self._replica.swap()
        self._gap_at, self._asked_s = _NOWHERE, None
        report = log.info if new_ms >= old_ms else log.warning
        report("caught_up", extra={"as_of_ms": new_ms, "behind_ms": max(0, old_ms - new_ms)})

    def _check_log(self, *, has_news: bool) -> None:
        """A source that gives nothing may have lost its log, or the way to it."""
        if not has_news and time.monotonic() - self._heard_s < self._config.quiet_s:
            return
        if not has_news:
            self._subscriber.check()
        self._heard_s = time.monotonic()

    def _bear_with(self, error: SourceUnavailable | DamagedDelta) -> None:
        if isinstance(error, DamagedDelta | OffsetLost):
            # What could not be read may be missing: only a snapshot is sure to hold it.
            self._failures = 0
            self._ask_for_snapshot(str(error))
        else:
            self._failures += 1
            if self._failures == 1:
                log.warning("delta_log_unreachable", extra={"reason": str(error)})
        self._stop.wait(min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(self._failures, 10)))
