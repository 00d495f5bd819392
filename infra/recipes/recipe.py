"""A whole configuration in one value: what is learned, from what, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from feature_store.datasets.log import Dataset
from feature_store.entities import RequestRows
from infra.settings import Settings
from recsys.features import FeatureSchema
from recsys.ranking.adam import AdamConfig
from recsys.ranking.tower import TowerConfig
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from streaming.join_rules import JoinConfig
from streaming.row_codecs import CodecName


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads a file of rows to be scored, in its owner's columns."""

    read: Callable[[Path], RequestRows]
    """The rows in the file's order."""
    columns: tuple[str, ...]
    """Those of the file that say what a row is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model's features, table, tower, label rule and data; shared by every process of its loop."""

    name: str
    title: str
    """For people."""
    schema: FeatureSchema
    pooling: Mapping[str, Literal["sum", "mean"]]
    """How a multi-valued feature's rows become one, by feature name."""
    table: TableSpec
    tower: TowerConfig
    adam: AdamConfig = field(default_factory=AdamConfig)
    """How the tower learns."""
    join: JoinConfig
    domains: tuple[str, ...]
    """What a request may name; the first is the default."""
    has_open_domains: bool = False
    """Whether it may name another one, which the model then answers as one that it has not seen."""
    load: Callable[[Path | None, Settings], Dataset]
    """(folder that the user named or None, settings) -> the data set."""
    rows: RowReader | None = None
    """How files to be scored are read; None: they cannot be."""
    context: frozenset[str] = frozenset()
    """Numbers that a request may carry to replace a "request." column of the same name."""
    micro_batch: int = 64
    """Examples per learning step: part of the model."""
    wire_codec: CodecName = "fp32"
    """How rows travel from training to serving, and so what is served of them."""
    dense_period_ms: int = 0
    """Dense parameters travel with the first seal after so much time; 0: with each."""
    demo_events: int | None = None
    """How many rows of the log the demo replays; None: all."""


def wide_and_vector(
    name: str, *, dim: int, wide_rate: float, vector_rate: float, n_tasks: int = 1
) -> TableSpec:
    """Rows of a first-order weight for each task and a vector, under Adagrad, as towers read them."""
    return TableSpec(
        name=name,
        slices=(
            SliceSpec(
                name="wide", dim=n_tasks, optimizer=Adagrad(learning_rate=wide_rate), initializer=Zeros()
            ),
            SliceSpec(
                name="vector",
                dim=dim,
                optimizer=Adagrad(learning_rate=vector_rate),
                initializer=Uniform(low=-0.01, high=0.01),
            ),
        ),
    )
