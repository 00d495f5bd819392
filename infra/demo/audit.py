"""After the run: is what was learned what is served, and was learning while serving worth it?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infra.recipes.recipe import Recipe
from infra.wiring.recipes import make_scorer, make_table
from recsys.evaluation.progressive import Tally
from recsys.interactions import ExampleBatch
from recsys.ranking.statements import statements_of
from recsys.ranking.tower import weights_in
from recsys.snapshots import read_dense, read_manifest, read_table
from recsys.table.snapshot import read_rows
from serving.parameters import as_served
from streaming.example_log import NO_MARK
from streaming.example_wire import decode_examples
from streaming.row_codecs import RowCodec
from streaming.source import EventSource


def examples(source: EventSource, snapshot: Path) -> Iterator[ExampleBatch]:
    """What a snapshot has learned: the example log from its beginning to the snapshot's offset.

    Windows go on closing while the processes end, so the log's end may lie further on.
    """
    end, newest = sum(read_manifest(snapshot).source_offsets.values()), NO_MARK
    while sum(source.positions().values()) < end:
        for record in source.poll(max_records=64, timeout_s=1.0):
            message = decode_examples(record.value)
            if newest < message.mark and record.offset < end:
                newest = message.mark
                if len(message.batch):
                    yield message.batch


def distinct_keys(batches: list[ExampleBatch]) -> int:
    """How many different keys the examples carry, counted without the table."""
    seen = np.empty(0, np.uint64)
    for start in range(0, len(batches), 64):
        part = np.concatenate([batch.keys.keys_T for batch in batches[start : start + 64]])
        seen = np.union1d(seen, part)
    return len(seen)


def frozen_tally(recipe: Recipe, snapshot: Path, batches: list[ExampleBatch]) -> Tally:
    """What the model of ``snapshot`` predicts, without learning, for every example after it."""
    manifest = read_manifest(snapshot)
    table, scorer = make_scorer(recipe)
    read_table(snapshot, table)
    scorer.load_dense(weights_in(read_dense(snapshot, manifest)))
    tally, position = Tally(), 0
    for batch in batches:
        if position >= manifest.examples:
            tally.add(scorer.score(batch.keys), batch.label_B, statements_of(batch))
        position += len(batch)
    return tally


def row_mismatches(recipe: Recipe, snapshot: Path, exported_rows: Path) -> int:
    """Rows that serving does not hold as the codec says the training row, and rows that only one has."""
    trained, served = make_table(recipe), make_table(recipe)
    read_table(snapshot, trained)
    as_served(trained, RowCodec.of(recipe.wire_codec, trained.spec))
    read_rows(exported_rows, served)
    in_both = np.intersect1d(trained.keys(), served.keys(), assume_unique=True)
    only_one = len(trained) + len(served) - 2 * len(in_both)
    differing = (trained.lookup(in_both).view(np.uint32) != served.lookup(in_both).view(np.uint32)).any(
        axis=1
    )
    return only_one + int(differing.sum())


def table_size(recipe: Recipe, snapshot: Path) -> tuple[int, float]:
    """(rows, bytes reserved per row, index and optimizer state included) of a snapshot's table."""
    table = make_table(recipe)
    read_table(snapshot, table)
    memory = table.memory()
    return len(table), round((memory.bytes_reserved + memory.bytes_index) / max(len(table), 1), 1)
