"""KuaiRand-Pure as many domains and several labels: will this person click, watch long, like, in this tab?"""

from __future__ import annotations

from pathlib import Path

from feature_store.datasets.kuairand import ROW_COLUMNS, Label, load_kuairand
from feature_store.datasets.kuairand_rows import read_kuairand_rows
from feature_store.datasets.log import Dataset
from infra.recipes.kuairand import SCHEMA, TABS, data_folder
from infra.recipes.recipe import Recipe, RowReader, wide_and_vector
from infra.settings import Settings
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.tower import MultiDomainConfig
from streaming.join_rules import JoinConfig, JoinRules, LabelRule

LABELS: tuple[Label, ...] = ("is_click", "long_view", "is_like")
KINDS = ("click", "long_view", "like")
BUSY_TABS = (1, 0, 4, 6, 2)
"""Each has more than 5,000 rows; the rest have one index together. AdaptDHM needs none: its peers do."""
WAIT_MS = 1_500


def load(folder: Path | None, settings: Settings) -> Dataset:
    """The log with all that is learned of it, and the users' histories."""
    return load_kuairand(data_folder(folder, settings), labels=LABELS)


def kuairand_multidomain() -> Recipe:
    """AdaptDHM over the features of ``kuairand``; settings chosen without the last two days."""
    place = SCHEMA.names.index("tab")
    return Recipe(
        name="kuairand_multidomain",
        title="KuaiRand-Pure, is_click beside long_view and is_like",
        schema=SCHEMA,
        pooling=dict.fromkeys(SCHEMA.names, "mean"),
        table=wide_and_vector(
            "kuairand_multidomain", dim=8, wide_rate=0.05, vector_rate=0.02, n_tasks=len(LABELS)
        ),
        tower=MultiDomainConfig(
            n_features=len(SCHEMA.features),
            vector_dim=8,
            domains=FeatureDomains(feature=place, values=tuple(tab + 1 for tab in BUSY_TABS)),
            domain_feature=place,
            net=AdaptDHMConfig(hidden=(64, 32)),
            n_tasks=len(LABELS),
        ),
        # As in ``kuairand``: in order, so that no example is predicted by a model that has seen later ones.
        join=JoinConfig(
            rules=JoinRules(
                labels=tuple(
                    LabelRule(kind=kind, name=name, wait_ms=WAIT_MS)
                    for kind, name in zip(KINDS, LABELS, strict=True)
                ),
                emit="in_order",
            ),
            allowed_disorder_ms=300,
        ),
        domains=TABS,
        has_open_domains=True,
        load=load,
        rows=RowReader(read=read_kuairand_rows, columns=ROW_COLUMNS),
        micro_batch=64,
    )
