"""Which snapshot a server should load: the newest in a folder, or the one that an alias names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import ConfigError, SnapshotError
from recsys.snapshots import read_manifest, snapshots
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


class AliasSource:
    """Follows a registry alias: its version decides the lineage, and where the trainer of that lineage
    has saved a newer snapshot, that one is loaded. One caller at a time."""

    def __init__(self, registry: ModelRegistry, reference: str, folder: FolderSource) -> None:
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
