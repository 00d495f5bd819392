"""A trained snapshot into the registry, with the run that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.settings import Settings
from infra.wiring.recipes import build_registry, load_recipe
from infra.wiring.trainer import parameters_of
from recsys.snapshots import read_manifest


def register_snapshot(
    name: str,
    snapshot: Path,
    settings: Settings,
    *,
    parameters: Mapping[str, object],
    history: Sequence[dict[str, float]],
) -> str:
    """Record the run and register its snapshot under ``name``; a line that says so.

    ``history`` holds the metrics on the way, the last of which are the model's.
    """
    registry, manifest = build_registry(settings), read_manifest(snapshot)
    recipe = load_recipe(manifest.recipe)
    with registry.start_run(recipe.name, {**parameters_of(recipe), **parameters}) as run:
        for then in history:
            run.log_metrics(then, step=int(then["examples"]))
        run.log_snapshot(snapshot, manifest)
        version = registry.register(name, snapshot, history[-1], run_id=run.run_id)
    return f"registered: {name} version {version}; `headrace promote {name} {version}` serves it"
