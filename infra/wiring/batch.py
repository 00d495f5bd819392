"""Models out of a data set's log, and scores out of models: no broker, no topic."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    kinds = {rule.kind: rule.at_least for rule in recipe.join.rules.labels if rule.at_least is not None}
    return examples_of(dataset, recipe.schema, rows=slice(0, stop), at_least=kinds)


def train_batch(
    recipe: Recipe, examples: ExampleBatch, out: Path, *, progress: Callable[[int], None] = lambda _: None
) -> BatchResult:
    """Learn examples once, in time order, as the online loop would, into a snapshot in ``out``.

    ``progress`` is told how many more were learned.
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
    drop_oldest(out, KEPT)
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


def newest_batch_model(state_dir: Path) -> Path:
    """The snapshot that was trained last, of whatever recipe. Raises ConfigError where there is none."""
    found = [path for folder in state_dir.glob(f"*/{BATCH}") for path in snapshots(folder)]
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
        unfinished = path.with_name(f".{path.name}.unfinished")
        if path.suffix == ".csv":
            pa_csv.write_csv(table, unfinished)
        else:
            pq.write_table(table, unfinished)
        unfinished.replace(path)


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
