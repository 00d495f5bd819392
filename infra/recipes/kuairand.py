"""KuaiRand-Pure: will this person click, or in the single-column feed really play, this video?"""

from __future__ import annotations

from pathlib import Path

from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.log import Dataset
from feature_store.errors import DatasetUnavailable
from infra.recipes.recipe import Recipe, wide_and_vector
from infra.settings import Settings
from recsys.features import Feature, FeatureSchema
from recsys.ranking.deepfm import DeepFMConfig
from streaming.join_rules import JoinConfig, JoinRules, LabelRule

ID, CODE = 24, 8
BUSIEST_TAB = "1"
TABS = (BUSIEST_TAB, *(str(tab) for tab in range(15) if str(tab) != BUSIEST_TAB))

SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user.id",), bits=(ID,)),
        Feature(name="video", number=2, columns=("item.id",), bits=(ID,)),
        Feature(name="tab", number=3, columns=("request.domain",), bits=(CODE,)),
        Feature(name="tag", number=4, columns=("item.tags",), bits=(16,)),
        Feature(name="duration", number=5, columns=("item.duration_bucket",), bits=(CODE,)),
        Feature(name="video_tab", number=6, columns=("item.id", "request.domain"), bits=(ID, CODE)),
        Feature(name="history_length", number=7, columns=("user.history_log2",), bits=(CODE,)),
        Feature(name="likes", number=8, columns=("user.likes_log2",), bits=(CODE,)),
        Feature(name="watched", number=9, columns=("user.recent_watches",), bits=(ID,)),
        Feature(name="long_watched", number=10, columns=("user.recent_long_watches",), bits=(ID,)),
        Feature(name="long_rate", number=11, columns=("user.long_rate",), bits=(CODE,)),
        Feature(
            name="history_and_long",
            number=12,
            columns=("user.history_half_log2", "user.long_half_log2"),
            bits=(CODE, CODE),
        ),
        Feature(name="onehot2", number=13, columns=("user.onehot_feat2",), bits=(16,)),
    )
)


def load(folder: Path | None, settings: Settings) -> Dataset:
    """The log in ``folder``, else in the settings' data folder, with the users' histories."""
    return load_kuairand(data_folder(folder, settings))


def data_folder(folder: Path | None, settings: Settings) -> Path:
    """Where the data set lies. Raises DatasetUnavailable where nobody says."""
    folder = folder or settings.data_dir
    if folder is None:
        raise DatasetUnavailable(
            "KuaiRand-Pure is not downloaded; set RECSYS_DATA or --data-dir to the folder that holds it"
        )
    return folder


def kuairand() -> Recipe:
    """DeepFM over ids, tab, tags and what users watched before; settings chosen on the first half."""
    return Recipe(
        name="kuairand",
        title="KuaiRand-Pure, is_click",
        schema=SCHEMA,
        pooling=dict.fromkeys(SCHEMA.names, "mean"),
        table=wide_and_vector("kuairand", dim=8, wide_rate=0.05, vector_rate=0.02),
        tower=DeepFMConfig(n_features=len(SCHEMA.features), vector_dim=8, hidden=(32,)),
        # Negatives are known only when their window closes. In order, so that no example is predicted
        # by a model that has already seen later clicks of the same sitting.
        join=JoinConfig(
            rules=JoinRules(labels=(LabelRule(kind="click", wait_ms=1_500),), emit="in_order"),
            allowed_disorder_ms=300,
        ),
        domains=TABS,
        load=load,
        micro_batch=64,
    )
