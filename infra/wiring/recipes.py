"""What every process begins with: settings, a recipe, its data, empty tables."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store.datasets.log import Dataset
from infra.recipes.kuairand import kuairand
from infra.recipes.kuairand_multidomain import kuairand_multidomain
from infra.recipes.movielens import movielens
from infra.recipes.recipe import Recipe
from infra.settings import Settings, settings_from
from infra.snapshot_store import SnapshotStore
from recsys.errors import ConfigError
from recsys.ranking.scorer import RankingScorer
from recsys.table.native import NativeTable

if TYPE_CHECKING:
    from training.promotion.mlflow_registry import ModelRegistry

RECIPES = {"movielens": movielens, "kuairand": kuairand, "kuairand_multidomain": kuairand_multidomain}


def now_ms() -> int:
    """The wall clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def load_recipe(name: str) -> Recipe:
    """A recipe by name. Raises ConfigError for one that does not exist."""
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} does not exist; use one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()


def readable_recipes() -> list[str]:
    """Names of the recipes that read files to be scored."""
    return [name for name, recipe in RECIPES.items() if recipe().rows is not None]


def current_settings(**overrides: str | Path | None) -> Settings:
    """Settings of this process's environment, with what the command line said on top."""
    said = {name: value for name, value in overrides.items() if value is not None}
    return settings_from(os.environ).model_copy(update=said)


def load_dataset(recipe: Recipe, settings: Settings, data_dir: Path | None = None) -> Dataset:
    """The recipe's data: from ``data_dir`` in its owners' layout, else from where the recipe finds it."""
    return recipe.load(data_dir, settings)


def make_table(recipe: Recipe) -> NativeTable:
    """An empty table of the recipe's layout."""
    return NativeTable(recipe.table, threads=2)


def make_scorer(recipe: Recipe) -> tuple[NativeTable, RankingScorer]:
    """An empty read-only table and a scorer over it."""
    table = make_table(recipe)
    return table, RankingScorer(table, recipe.tower, recipe.pooling)


def build_registry(settings: Settings) -> ModelRegistry:
    """The MLflow registry that the settings name; imported late because it takes seconds."""
    from training.promotion.mlflow_registry import ModelRegistry  # noqa: PLC0415

    return ModelRegistry(settings.registry_uri, settings.state_dir / "registry")


def snapshot_folder(recipe: Recipe, settings: Settings) -> Path:
    """Where a recipe's online trainer keeps its snapshots."""
    return settings.state_dir / recipe.name / "snapshots"


def snapshot_store(recipe: Recipe, settings: Settings) -> SnapshotStore | None:
    """Where a recipe's snapshots are mirrored; None where they are not."""
    if not settings.snapshot_url:
        return None
    return SnapshotStore(f"{settings.snapshot_url.rstrip('/')}/{recipe.name}")
