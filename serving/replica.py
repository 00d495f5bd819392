"""What a server serves: one set of parameters, and a second one that catches up before it takes over."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.errors import SnapshotError
from recsys.features import RaggedKeys
from recsys.snapshots import Manifest, read_manifest
from serving.errors import NotReady
from serving.parameters import ApplyOutcome, MakeScorer, Parameters, apply, load_parameters
from streaming.deltas import DenseDelta, TableDelta
from streaming.row_codecs import CodecName

__all__ = ["ApplyOutcome", "Parameters", "Replica", "newest_first"]

Floats = NDArray[np.float32]


class Replica:
    """Scores with the newest parameters it was given. One applying thread, any number of readers;
    a reader that takes ``parameters`` once sees whole rows and one consistent set of dense weights.

    ``codec`` is how rows travel, and so what a row of a snapshot is served as.
    """

    def __init__(
        self, make_scorer: MakeScorer, schema_fingerprint: int, *, codec: CodecName = "fp32"
    ) -> None:
        self._make_scorer = make_scorer
        self._schema_fingerprint = schema_fingerprint
        self._codec: CodecName = codec
        self._parameters: Parameters | None = None
        self.shadow: Parameters | None = None
        """A newer snapshot that takes deltas but no requests until ``swap``."""
        self.refusal = ""
        """Why the newest delta that was not applied was not."""
        self.ready = threading.Event()

    @property
    def parameters(self) -> Parameters:
        """What is served now. Raises NotReady before the first snapshot."""
        if self._parameters is None:
            raise NotReady("no parameters are loaded yet; start a trainer or name a snapshot, then retry")
        return self._parameters

    @property
    def following(self) -> Parameters:
        """What deltas are applied to: the shadow where there is one. Raises NotReady."""
        return self.shadow or self.parameters

    def score(self, keys: RaggedKeys) -> Floats:
        """Probability of the label for each row of features, (N,)."""
        return self.parameters.scorer.score(keys)

    def load(self, path: Path) -> Manifest:
        """Serve a snapshot from now on. Until it is loaded whole, the old parameters serve."""
        self._parameters, self.shadow = self._read(path), None
        self.ready.set()
        return self._parameters.manifest

    def prepare(self, path: Path) -> Manifest:
        """Load a snapshot beside what is served; deltas go to it from now on, requests after ``swap``.

        Until then both are in memory.
        """
        self.shadow = self._read(path)
        return self.shadow.manifest

    def is_caught_up(self) -> bool:
        """Whether swapping the shadow in would not take readers back in event time."""
        return self.shadow is not None and self.shadow.as_of_ms >= self.parameters.as_of_ms

    def swap(self) -> None:
        """Serve the shadow from now on; nothing where there is none. Requests under way end as they began."""
        if self.shadow is not None:
            self._parameters, self.shadow = self.shadow, None

    def apply(self, delta: TableDelta | DenseDelta) -> ApplyOutcome:
        """Fold one delta in, or say why not; ``refusal`` has it in words.

        Raises SpecMismatch for another table, shard or layout, and SnapshotError or ShapeError for weights
        or rows of another shape.
        """
        now = self.following
        outcome, reason = apply(delta, now)
        if outcome is not ApplyOutcome.APPLIED:
            self.refusal = reason
        if outcome is ApplyOutcome.SNAPSHOT_NEEDED and isinstance(delta, TableDelta):
            # The log says how rows travel; the snapshot that is asked for must be served alike.
            self._codec = delta.codec
        return outcome

    def _read(self, path: Path) -> Parameters:
        return load_parameters(path, self._make_scorer, self._schema_fingerprint, self._codec)


def newest_first(paths: list[Path], model: str) -> list[Path]:
    """Snapshots of ``model`` whose manifests can be read, the newest first."""
    found: list[tuple[tuple[int, int, int], Path]] = []
    for path in paths:
        with suppress(SnapshotError):
            manifest = read_manifest(path)
            if manifest.model == model:
                found.append((manifest.position, path))
    return [path for _, path in sorted(found, reverse=True)]
