"""Models out of a data set's log, and scores out of models: no broker, no topic."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.datasets import columns as files
from feature_store.datasets.examples import examples_of
from feature_store.datasets.log import Dataset
from infra.recipes.recipe import Recipe
from infra.wiring.recipes import make_scorer
from infra.wiring.trainer import build_learner
from recsys.errors import ConfigError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.interactions import ExampleBatch
from recsys.ranking.tower import weights_in
from recsys.snapshots import (
    Manifest,
    drop_oldest,
    incarnation_of,
    read_dense,
    read_manifest,
    read_table,
    snapshots,
    write_snapshot,
)
from training.batch_loop import train_on

BATCH = "batch"
KEPT = 3
_WINDOW_MS = 86_400_000
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """A model that was trained in batch."""

    snapshot: Path
    examples: int
    metrics: dict[str, float]
    """Of the first label, each example predicted before it was learned."""


def batch_folder(state_dir: Path, recipe: str) -> Path:
    """Where a recipe's models from files are kept."""
    return state_dir / recipe / BATCH


def examples_until(recipe: Recipe, dataset: Dataset, last_day: date) -> ExampleBatch:
    """The log's examples up to the end of a day, by the clock of the people in it.

    Raises ConfigError when there are none.
    """
    zone = timezone(timedelta(hours=dataset.utc_offset_hours))
    end = datetime.combine(last_day + timedelta(days=1), time(), zone)
    time_N = dataset.log.event_time_ms_N
    stop = int(np.searchsorted(time_N, round(end.timestamp() * 1000)))
    if not stop:
        first = datetime.fromtimestamp(int(time_N[0]) / 1000, zone).date() if len(time_N) else "nowhere"
        raise ConfigError(f"no examples until {last_day}: the log of {dataset.name} begins {first}")
    examples = examples_of(dataset, recipe.schema, rows=slice(0, stop), at_least=_least(recipe))
    return labelled_as(recipe, examples)


def _least(recipe: Recipe) -> dict[str, float]:
    """From which value on each kind of feedback makes its label 1."""
    rules = recipe.join.rules.labels
    least = {rule.kind: rule.at_least for rule in rules if rule.at_least is not None}
    if len(least) < len(rules):
        raise ConfigError(
            f"recipe {recipe.name!r} has labels that are values, or two of a kind; join its log"
        )
    return least


def labelled_as(recipe: Recipe, examples: ExampleBatch) -> ExampleBatch:
    """A log's examples with the recipe's labels, in its order and under its names."""
    rules = recipe.join.rules.labels
    places = [examples.label_names.index(rule.kind) for rule in rules]
    return replace(
        examples,
        label_names=recipe.join.rules.label_names,
        label_BL=np.ascontiguousarray(examples.label_BL[:, places]),
        sample_rate_BL=np.ascontiguousarray(examples.sample_rate_BL[:, places]),
    )


def train_batch(
    recipe: Recipe,
    examples: ExampleBatch,
    out: Path,
    *,
    keep: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> BatchResult:
    """Learn examples once, in time order, into a snapshot in ``out``, as the online loop would those that
    leave the joiner in the same order.

    ``progress`` is told how many more were learned. With ``keep``, that many of the newest snapshots in the
    folder stay.
    """
    learner, metrics = build_learner(recipe), ProgressiveMetrics(_WINDOW_MS)
    status = train_on(
        _pieces(examples, recipe.micro_batch, progress),
        learner,
        micro_batch=recipe.micro_batch,
        metrics=metrics,
    )
    out.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        model=f"{recipe.name}-{uuid.uuid4().hex[:8]}",
        incarnation=1 + max((incarnation_of(path) for path in snapshots(out)), default=0),
        table_sequence=0,
        dense_sequence=0,
        delta_position=0,
        as_of_ms=status.as_of_ms,
        examples=status.examples,
        source_offsets={},
        marks={},
        recipe=recipe.name,
        schema_fingerprint=recipe.schema.fingerprint,
    )
    path = write_snapshot(out, manifest, learner.table, learner.dense_state(), metrics.state())
    if keep is not None:
        drop_oldest(out, keep)
    return BatchResult(snapshot=path, examples=status.examples, metrics=metrics.total.metrics())


def _pieces(
    examples: ExampleBatch, micro_batch: int, progress: Callable[[int], None]
) -> Iterator[ExampleBatch]:
    """Consecutive examples, cut where a learning step ends."""
    size = max(_AT_ONCE // micro_batch, 1) * micro_batch
    for start in range(0, len(examples), size):
        piece = examples.take(np.arange(start, min(start + size, len(examples))))
        yield piece
        progress(len(piece))


def newest_batch_model(state_dir: Path, recipes: Collection[str]) -> Path:
    """The snapshot of any of these recipes that was trained last. Raises ConfigError where there is none."""
    found = [path for recipe in recipes for path in snapshots(batch_folder(state_dir, recipe))]
    if not found:
        raise ConfigError(
            f"no model was trained in {state_dir}; run `headrace train batch` first, or name one with --model"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FileScores:
    """Scores of a file's rows, in its order."""

    ids: pa.Table
    """What the file says each row is."""
    labels: tuple[str, ...]
    score_NL: NDArray[np.float32]

    def write(self, path: Path) -> None:
        """As parquet, or as csv where the name ends so; whole or not at all."""
        table = self.ids
        for label, score_N in zip(self.labels, self.score_NL.T, strict=True):
            table = table.append_column(label, pa.array(score_N))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            if path.suffix.lower() == ".csv":
                pa_csv.write_csv(table, unfinished)
            else:
                pq.write_table(table, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def score_file(recipe: Recipe, dataset: Dataset, model: Path, file: Path) -> FileScores:
    """Probability of each label for each row of a file in its owner's columns.

    Raises ConfigError for a recipe that knows no such files, SnapshotError for a model of other features,
    DatasetLayoutError for a file of other columns.
    """
    reader = recipe.rows
    if reader is None:
        raise ConfigError(
            f"recipe {recipe.name!r} cannot read files to be scored; use another recipe's model"
        )
    manifest = read_manifest(model)
    if manifest.schema_fingerprint != recipe.schema.fingerprint:
        raise SnapshotError(
            f"{model} has feature schema {manifest.schema_fingerprint:016x}, recipe {recipe.name!r} wants "
            f"{recipe.schema.fingerprint:016x}; train it again"
        )
    rows, labels = reader.read(file), recipe.join.rules.label_names
    table, scorer = make_scorer(recipe)
    dense = read_dense(model, manifest)
    read_table(model, table)
    scorer.load_dense(weights_in(dense))
    parts = [np.empty((0, recipe.tower.n_tasks), np.float32)]
    for start in range(0, len(rows.user_ids_N), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        user_ids = rows.user_ids_N[some]
        columns = dataset.columns(
            user_ids, rows.item_ids_N[some], rows.domain_index_N[some], rows.event_time_ms_N[some]
        )
        parts.append(scorer.score_tasks(recipe.schema.encode(columns, len(user_ids))))
    ids = files.read_table(file).select(list(reader.columns))
    return FileScores(ids, labels[: recipe.tower.n_tasks], np.concatenate(parts))
