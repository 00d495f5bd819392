"""How far event time has come over several partitions: the watermark.

Each partition has a front, the newest event time seen in it. The watermark is the oldest front of
the partitions that count, less the disorder that is allowed; it never goes back.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from recsys.errors import ConfigError
from streaming.errors import StateUnavailable
from streaming.source import Partition

LONG_AGO_MS = -(1 << 62)
"""The watermark before anything is known."""

_STATE = struct.Struct("<BqH")
_FRONT = struct.Struct("<Hiq")
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkState:
    """What must be kept to go on from the same watermark."""

    fronts_ms: dict[Partition, int]
    """Partitions that were heard from."""
    watermark_ms: int


class Watermarks:
    """Event time over fixed partitions. One caller at a time."""

    def __init__(
        self, partitions: Sequence[Partition], *, allowed_disorder_ms: int, idle_after_ms: int
    ) -> None:
        """A partition that was silent for ``idle_after_ms`` of wall time stops holding back."""
        if not partitions or allowed_disorder_ms < 0 or idle_after_ms < 1:
            raise ConfigError(
                f"want partitions, allowed_disorder_ms >= 0 and idle_after_ms > 0; got {list(partitions)}, "
                f"{allowed_disorder_ms}, {idle_after_ms}"
            )
        self._allowed_disorder_ms, self._idle_after_ms = allowed_disorder_ms, idle_after_ms
        self._fronts_ms = dict.fromkeys(partitions, LONG_AGO_MS)
        self._silent_ms = dict.fromkeys(partitions, 0)
        self.watermark_ms = LONG_AGO_MS

    def observe(self, partition: Partition, event_time_ms: int) -> None:
        """An event came from this partition."""
        self._silent_ms[partition] = 0
        front_ms = self._fronts_ms[partition]
        if event_time_ms > front_ms:
            self._fronts_ms[partition] = event_time_ms
            # A front that lay ahead of the watermark was not the one that held it back.
            if front_ms - self._allowed_disorder_ms <= self.watermark_ms:
                self._advance()

    def pass_time(self, elapsed_ms: int, silent: Collection[Partition]) -> None:
        """``elapsed_ms`` of wall time went by in which ``silent`` partitions, all read to their end,
        brought nothing. While every partition is silent, event time goes on with the wall clock."""
        for partition in silent:
            self._silent_ms[partition] += elapsed_ms
        if len(silent) == len(self._fronts_ms):
            for partition, front_ms in self._fronts_ms.items():
                if front_ms != LONG_AGO_MS:
                    self._fronts_ms[partition] = front_ms + elapsed_ms
        self._advance()

    def state(self) -> WatermarkState:
        """What ``restore`` needs."""
        fronts_ms = {at: front for at, front in self._fronts_ms.items() if front != LONG_AGO_MS}
        return WatermarkState(fronts_ms=fronts_ms, watermark_ms=self.watermark_ms)

    def restore(self, state: WatermarkState) -> None:
        """Go on from ``state``; partitions that are no longer read are forgotten."""
        self._fronts_ms.update((at, ms) for at, ms in state.fronts_ms.items() if at in self._fronts_ms)
        self.watermark_ms = state.watermark_ms

    def _advance(self) -> None:
        fronts_ms = self._fronts_ms
        live = [front for at, front in fronts_ms.items() if self._silent_ms[at] < self._idle_after_ms]
        # Where all are idle none of them can hold the others back.
        front_ms = min(live) if live else max(fronts_ms.values())
        self.watermark_ms = max(self.watermark_ms, front_ms - self._allowed_disorder_ms)


def encode_watermark(state: WatermarkState) -> bytes:
    """Bytes that ``decode_watermark`` reads."""
    chunks = [_STATE.pack(_VERSION, state.watermark_ms, len(state.fronts_ms))]
    for (topic, number), front_ms in state.fronts_ms.items():
        name = topic.encode()
        chunks += [_FRONT.pack(len(name), number, front_ms), name]
    return b"".join(chunks)


def decode_watermark(value: bytes) -> WatermarkState:
    """The state. Raises StateUnavailable for other bytes."""
    try:
        version, watermark_ms, n_fronts = _STATE.unpack_from(value)
        if version != _VERSION:
            raise StateUnavailable(f"a watermark of version {version}, want {_VERSION}; use a newer joiner")
        fronts_ms: dict[Partition, int] = {}
        at = _STATE.size
        for _ in range(n_fronts):
            n_name, number, front_ms = _FRONT.unpack_from(value, at)
            at += _FRONT.size
            fronts_ms[value[at : at + n_name].decode(), number] = front_ms
            at += n_name
    except struct.error as error:
        raise StateUnavailable(f"no watermark in {len(value)} bytes: {error}") from error
    return WatermarkState(fronts_ms=fronts_ms, watermark_ms=watermark_ms)
