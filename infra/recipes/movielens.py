"""MovieLens: will this person give this film four stars or more?"""

from __future__ import annotations

from feature_store.datasets.movielens import load_movielens
from infra.recipes.recipe import Recipe, wide_and_vector
from recsys.features import Feature, FeatureSchema
from recsys.ranking.deepfm import DeepFMConfig
from streaming.join_rules import JoinConfig, JoinRules, LabelRule

ID, CODE, DAY = 24, 12, 20

SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user.id",), bits=(ID,)),
        Feature(name="item", number=2, columns=("item.id",), bits=(ID,)),
        Feature(name="genre", number=3, columns=("item.genres",), bits=(CODE,)),
        Feature(name="year", number=4, columns=("item.year",), bits=(CODE,)),
        Feature(name="user_genre", number=5, columns=("user.id", "item.genres"), bits=(ID, CODE)),
        Feature(name="user_decade", number=6, columns=("user.id", "item.decade"), bits=(ID, CODE)),
        Feature(name="item_gender", number=7, columns=("item.id", "user.gender"), bits=(ID, CODE)),
        Feature(name="item_age", number=8, columns=("item.id", "user.age"), bits=(ID, CODE)),
        Feature(name="user_day", number=9, columns=("user.id", "request.day"), bits=(ID, DAY)),
    )
)


def movielens() -> Recipe:
    """DeepFM over ids, genres, years and crosses; settings chosen on the first half of the stream."""
    return Recipe(
        name="movielens",
        title="MovieLens-1M, rating of four stars or more",
        schema=SCHEMA,
        pooling=dict.fromkeys(SCHEMA.names, "mean"),
        table=wide_and_vector("movielens", dim=8, wide_rate=0.05, vector_rate=0.05),
        tower=DeepFMConfig(n_features=len(SCHEMA.features), vector_dim=8, hidden=(32,)),
        # Every film that was rated has a rating, low ones too: nothing has to wait for a window.
        join=JoinConfig(
            rules=JoinRules(labels=(LabelRule(kind="rating", at_least=4.0, wait_ms=5_000),)),
            allowed_disorder_ms=1_000,
        ),
        domains=("movies",),
        context=frozenset({"day"}),
        load=lambda folder, settings: load_movielens(folder, settings.cache_dir),
        micro_batch=32,
        demo_events=300_000,
    )
