"""What the models are compared on: rows in three parts, with what their metrics are grouped by.

Axes: N rows, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.datasets.examples import examples_of
from feature_store.datasets.kuairand import UTC_OFFSET_HOURS, load_kuairand
from feature_store.datasets.movielens import load_movielens
from feature_store.datasets.synthetic import SyntheticRows, syn, syn2
from feature_store.entities import HOUR_MS
from feature_store.errors import DatasetUnavailable
from infra.recipes import kuairand as kuairand_recipe
from infra.settings import Settings
from recsys.errors import ConfigError
from recsys.features import Feature, FeatureSchema
from recsys.interactions import ExampleBatch
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.tower import MultiDomainConfig
from training.epochs import LabelledRows

DAY_MS, UTC_OFFSET_MS = 86_400_000, UTC_OFFSET_HOURS * HOUR_MS
KUAIRAND_TABS = (1, 0, 4, 6, 2)
"""The five that have more than 5,000 rows; the others are one domain."""
ID, CODE = 24, 12
LEAST_ROWS = 100

MOVIELENS_SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user.id",), bits=(ID,)),
        Feature(name="item", number=2, columns=("item.id",), bits=(ID,)),
        Feature(name="genre", number=3, columns=("item.genres",), bits=(CODE,)),
        Feature(name="year", number=4, columns=("item.year",), bits=(CODE,)),
        Feature(name="gender", number=5, columns=("user.gender",), bits=(CODE,)),
        Feature(name="occupation", number=6, columns=("user.occupation",), bits=(CODE,)),
        Feature(name="age_domain", number=7, columns=("request.domain",), bits=(CODE,)),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """One data set, as every model gets it. Immutable: any number of readers."""

    name: str
    title: str
    rows: LabelledRows
    domain_N: NDArray[Any]
    """Name of each row's domain, by which metrics are grouped."""
    user_N: NDArray[Any] | None
    """Whose rows they are, for GAUC; None where nobody's."""
    latent_N: NDArray[Any] | None
    """What a clustering should find; None where nobody knows."""
    tower: MultiDomainConfig
    """Sizes and domains; the net of the plainest model."""
    hidden: tuple[int, ...]
    """Of that net: what sets the cost of a row."""
    crosses_domain: bool = False
    """Whether other features than its own tell the domain."""
    init: float
    """Standard deviation of a new vector's columns."""
    at_equal_cost: bool
    """Whether all models are scaled to the cost of the single net, or have its widths."""
    one_row_of: int = 1
    """Rows of each part from which one is used."""
    split: Callable[[int], Mapping[str, NDArray[np.int64]]]
    """Seed to the places of the parts "train", "valid" and "test"; of a split by time, the same for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Where a data set comes from, so that any process can load the same one."""

    name: str
    """One of LOADERS."""
    settings: Settings
    """With the folders of data."""
    folder: Path | None = None
    """In its owners' layout, if not where the settings say."""
    rows: int | None = None
    """About how many rows to use at the most, of each part its share; None: all. At least 100."""

    def __post_init__(self) -> None:
        if self.name not in LOADERS:
            raise ConfigError(f"data set {self.name!r} does not exist; use some of {', '.join(LOADERS)}")
        if self.rows is not None and self.rows < LEAST_ROWS:
            raise ConfigError(f"rows: want at least {LEAST_ROWS} or None for all, got {self.rows}")

    def load(self) -> Comparison:
        """The data set. Raises DatasetUnavailable where it is not to be had."""
        whole = LOADERS[self.name](self.settings, self.folder)
        step = 1 if self.rows is None else -(-len(whole.rows) // self.rows)
        return whole if step == 1 else _thinned(whole, step)


def _thinned(data: Comparison, step: int) -> Comparison:
    """The same with every so manieth row of each part."""
    return replace(
        data,
        title=f"{data.title}, one row of {step}",
        one_row_of=step,
        split=lambda seed: {part: places[::step] for part, places in data.split(seed).items()},
    )


def _kuairand(settings: Settings, folder: Path | None) -> Comparison:
    folder = folder or settings.data_dir
    if folder is None:
        raise DatasetUnavailable("KuaiRand-Pure is not downloaded; set RECSYS_DATA or pass --data-dir")
    dataset, schema = load_kuairand(folder), kuairand_recipe.SCHEMA
    batch = examples_of(dataset, schema)
    day_N = (batch.event_time_ms_B + UTC_OFFSET_MS) // DAY_MS
    last = int(day_N.max())
    parts = {"train": day_N < last - 2, "valid": day_N == last - 2, "test": day_N >= last - 1}
    known = {str(tab) for tab in KUAIRAND_TABS}
    return Comparison(
        name="kuairand",
        crosses_domain=True,
        title="KuaiRand-Pure, is_click, tabs as domains, the last two days as test",
        rows=_labelled(batch),
        domain_N=np.array([tab if tab in known else "other" for tab in batch.domain_B]),
        user_N=batch.user_id_B,
        latent_N=None,
        tower=_plain(schema, "tab", tuple(tab + 1 for tab in KUAIRAND_TABS), hidden=(128, 64, 32)),
        hidden=(128, 64, 32),
        init=0.01,
        at_equal_cost=True,
        split=lambda _: {part: np.flatnonzero(is_in_N) for part, is_in_N in parts.items()},
    )


def _movielens(settings: Settings, folder: Path | None) -> Comparison:
    dataset = load_movielens(folder, settings.cache_dir, age_domains=True)
    batch = examples_of(dataset, MOVIELENS_SCHEMA, at_least={"rating": 4.0})
    n_domains = len(dataset.log.domains)
    return Comparison(
        name="movielens",
        title="MovieLens-1M, rating above 3, ages as domains, random split",
        rows=_labelled(batch),
        domain_N=np.array(batch.domain_B),
        user_N=batch.user_id_B,
        latent_N=None,
        tower=_plain(MOVIELENS_SCHEMA, "age_domain", tuple(range(1, n_domains)), hidden=(128, 64, 32)),
        hidden=(128, 64, 32),
        init=0.01,
        at_equal_cost=True,
        split=lambda seed: _random_parts(len(batch), seed),
    )


def _synthetic(name: str, made: SyntheticRows, hidden: tuple[int, ...], init: float) -> Comparison:
    values = tuple(int(value) for value in np.unique(made.domain_N))
    rows = LabelledRows(made.keys, made.label_N.reshape(-1, 1), np.zeros(len(made), np.int64))
    return Comparison(
        name=name,
        title=f"{name}, hidden {list(hidden)}: three hidden distributions in twelve domains",
        rows=rows,
        domain_N=made.domain_N.astype(str),
        user_N=None,
        latent_N=made.latent_N,
        tower=_plain(made.schema, "domain", values, hidden=hidden),
        hidden=hidden,
        init=init,
        at_equal_cost=False,
        split=lambda seed: _random_parts(len(made), seed),
    )


LOADERS: dict[str, Callable[[Settings, Path | None], Comparison]] = {
    "syn2": lambda settings, folder: _synthetic("syn2", syn2(), (16,), 0.01),
    "syn2_wide": lambda settings, folder: _synthetic("syn2_wide", syn2(), (128, 64, 32), 0.01),
    "syn": lambda settings, folder: _synthetic("syn", syn(), (128, 64, 32), 0.1),
    "kuairand": _kuairand,
    "movielens": _movielens,
}


def _plain(
    schema: FeatureSchema, domain: str, values: tuple[int, ...], *, hidden: tuple[int, ...]
) -> MultiDomainConfig:
    place = schema.names.index(domain)
    return MultiDomainConfig(
        n_features=len(schema.features),
        vector_dim=16,
        domains=FeatureDomains(feature=place, values=values),
        domain_feature=place,
        net=SingleNetConfig(hidden=hidden),
        wide=False,
    )


def _labelled(batch: ExampleBatch) -> LabelledRows:
    return LabelledRows(batch.keys, batch.label_BL, batch.event_time_ms_B // 1000)


def _random_parts(n: int, seed: int) -> Mapping[str, NDArray[np.int64]]:
    """Eight tenths, one tenth, one tenth."""
    order_N = np.random.default_rng([seed, n]).permutation(n)
    train, valid = n * 8 // 10, n * 9 // 10
    return {"train": order_N[:train], "valid": order_N[train:valid], "test": order_N[valid:]}
