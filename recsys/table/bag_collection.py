"""torchrec's EmbeddingBagCollection over collisionless tables.

Axes: B examples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import get_embedding_names_by_table
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from recsys.errors import ConfigError
from recsys.table.admission import Admission, AdmitAll
from recsys.table.codecs import BF16, FP16, FP32, Codec
from recsys.table.initializers import Uniform
from recsys.table.jagged import JaggedKeys
from recsys.table.modules import Pooling, TableModule, pooled_part
from recsys.table.native import NativeTable
from recsys.table.optimizers import Optimizer
from recsys.table.ranks import Ranks
from recsys.table.retention import LRU, Capacity, EvictionPolicy
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import EmbeddingTable

_CODECS: dict[Any, Codec] = {DataType.FP32: FP32(), DataType.FP16: FP16(), DataType.BF16: BF16()}
_POOLING: dict[Any, Pooling] = {PoolingType.SUM: "sum", PoolingType.MEAN: "mean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRules:
    """What torchrec's table configs do not say."""

    optimizer: Optimizer
    """How every table learns."""
    policy: EvictionPolicy = field(default_factory=LRU)
    """Which rows make room in a table of ``num_embeddings`` rows."""
    admission: Admission = field(default_factory=AdmitAll)
    """Which new ids get a row."""
    seed: int = 0
    """Changes all initial weights."""


class CollisionlessEmbeddingBagCollection(TableModule):
    """Called as torchrec's EmbeddingBagCollection, over one collisionless table for each config.

    Ids are any int64. ``num_embeddings`` is the most rows that a table may have, each of a different id;
    it is no range of ids. Rows start as torchrec's do, uniform between the config's bounds, but by seed
    and id alone; an id without a row reads as what it would start at. Learning happens within backward:
    the rows are no parameters and not in the state dict, so save ``tables`` by ``recsys.table.snapshot``.
    ``event_time_s`` may stay unset; steps are counted then instead. A table that refuses a gradient leaves
    what earlier tables learned from the batch. One thread may run forward and backward at a time.
    """

    def __init__(
        self,
        tables: Sequence[EmbeddingBagConfig],
        rules: CollectionRules,
        *,
        make_table: Callable[[TableSpec], EmbeddingTable] = NativeTable,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(ranks)
        names = [config.name for config in tables]
        if len(set(names)) < len(names):
            raise ConfigError(f"want tables of different names, got {names}")
        self._configs = list(tables)
        self._features = [list(config.feature_names) or [config.name] for config in tables]
        with_features = [
            replace(config, feature_names=names) for config, names in zip(tables, self._features, strict=True)
        ]
        self._embedding_names = [
            name for names in get_embedding_names_by_table(with_features) for name in names
        ]
        self._widths = [config.embedding_dim for config in with_features for _ in config.feature_names]
        self.tables = {config.name: make_table(table_spec(config, rules)) for config in tables}

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """(B, sum of dims), as torchrec orders and names them: by table, then by the table's features.

        Other features of the batch are passed over. Raises ConfigError for a feature that is not there, and
        ShapeError for weighted or uneven bags.
        """
        jagged = JaggedKeys.of(features)
        parts = [
            pooled_part(self.tables[config.name], jagged.only(names), [_POOLING[config.pooling]] * len(names))
            for config, names in zip(self._configs, self._features, strict=True)
        ]
        return KeyedTensor(
            keys=self._embedding_names,
            length_per_key=self._widths,
            values=self.pooled(parts, jagged.n_examples, features.values().device),
        )

    def event_time_of(self, table: EmbeddingTable) -> int:
        """The event time of the batch; or, if nobody sets it, the number of the step."""
        return table.steps if self.event_time_s is None else self.event_time_s

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """The configs that this was built from."""
        return self._configs

    def is_weighted(self) -> bool:
        """False: weighted bags are refused."""
        return False


def table_spec(config: EmbeddingBagConfig, rules: CollectionRules) -> TableSpec:
    """The table that does a config's work. Raises ConfigError for what a table cannot do."""
    if config.data_type not in _CODECS or config.pooling not in _POOLING:
        raise ConfigError(
            f"table {config.name!r}: want pooling of {list(_POOLING)} and data of {list(_CODECS)}, "
            f"got {config.pooling} and {config.data_type}"
        )
    if getattr(config.init_fn, "func", None) is not torch.nn.init.uniform_:
        raise ConfigError(
            f"table {config.name!r}: an init_fn cannot start rows by id; "
            "set weight_init_min and weight_init_max"
        )
    part = SliceSpec(
        name="weight",
        dim=config.embedding_dim,
        optimizer=rules.optimizer,
        initializer=Uniform(low=config.get_weight_init_min(), high=config.get_weight_init_max()),
        codec=_CODECS[config.data_type],
    )
    return TableSpec(
        name=config.name,
        slices=(part,),
        seed=rules.seed,
        missing="initializer",
        admission=rules.admission,
        capacity=Capacity(max_rows=config.num_embeddings, policy=rules.policy),
    )
