"""Which snapshot a server should load: the newest in a folder or under a URL, or what an alias names."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from infra.snapshot_store import SnapshotStore, clear_old_fetches, fetch_newer
from recsys.errors import ConfigError, SnapshotError
from recsys.snapshots import drop_oldest, read_manifest, snapshots
from serving.replica import newest_first

if TYPE_CHECKING:
    from training.promotion.mlflow_registry import ModelRegistry


class FolderSource:
    """Follows whatever model was saved last. Reads only; any number of callers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def model(self) -> str | None:
        """Lineage of the readable snapshot that was written last."""
        latest_first = sorted(snapshots(self._folder), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in latest_first:
            with suppress(SnapshotError):
                return read_manifest(path).model
        return None

    def candidates(self, model: str) -> list[Path]:
        """Snapshots of a lineage, the newest first."""
        return newest_first(snapshots(self._folder), model)


class UrlSource:
    """Follows whatever model a store holds, through a folder on this host. One caller at a time.

    Once a period it looks for a newer snapshot and brings it here, increments one by one: a replica that
    asks for one finds it at hand.
    """

    def __init__(
        self,
        store: SnapshotStore,
        cache: Path,
        *,
        period_s: float = 5.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._cache, self._folder = store, cache, FolderSource(cache)
        self._period_s, self._clock_s = period_s, clock_s
        self._looked_s = -math.inf

    def model(self) -> str | None:
        """Lineage of the store's newest snapshot. Raises SnapshotError while nothing at all is known."""
        self._refresh()
        return self._folder.model()

    def candidates(self, model: str) -> list[Path]:
        """Snapshots of a lineage that were brought here, the newest first."""
        self._refresh()
        return self._folder.candidates(model)

    def _refresh(self) -> None:
        if self._clock_s() - self._looked_s < self._period_s:
            return
        is_first = self._looked_s == -math.inf
        self._looked_s = self._clock_s()
        self._cache.mkdir(parents=True, exist_ok=True)
        if is_first:
            clear_old_fetches(self._cache)
        fetch_newer(self._store, self._cache, replaces=True)
        drop_oldest(self._cache, keep=2)


class AliasSource:
    """Follows a registry alias: its version decides the lineage, and where the trainer of that lineage
    has saved a newer snapshot, that one is loaded. One caller at a time."""

    def __init__(self, registry: ModelRegistry, reference: str, folder: FolderSource | UrlSource) -> None:
        name, at, alias = reference.partition("@")
        if not (name and at and alias):
            raise ConfigError(
                f"want a model as NAME@ALIAS, got {reference!r}; for example movielens@champion"
            )
        self._registry, self._name, self._alias, self._folder = registry, name, alias, folder

    def model(self) -> str | None:
        """Lineage of the version that the alias names now."""
        named = self._registry.resolve(self._name, self._alias)
        return named[0] if named else None

    def candidates(self, model: str) -> list[Path]:
        """The alias's own snapshot and the trainer's of the same lineage, the newest first."""
        named = self._registry.resolve(self._name, self._alias)
        registered = [named[1]] if named and named[0] == model else []
        return newest_first([*registered, *self._folder.candidates(model)], model)
