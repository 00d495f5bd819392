"""A multi-domain tower on a table: what is learned is what is served, and a restart changes no bit."""

import numpy as np
import pytest
import torch

from recsys.errors import ConfigError, ShapeError
from recsys.features import Feature, FeatureSchema
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.star import StarConfig
from recsys.multidomain.tower import MultiDomainConfig
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.ranking.statements import Statements
from recsys.ranking.task_heads import ESMMHeads, MMoEHeads
from recsys.ranking.tower import weights_in
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.native import NativeTable

SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user",), bits=(16,)),
        Feature(name="item", number=2, columns=("item",), bits=(16,)),
        Feature(name="tab", number=3, columns=("tab",), bits=(8,)),
    )
)
POOLING = dict.fromkeys(SCHEMA.names, "mean")
ADAPT = AdaptDHMConfig(hidden=(8,), clusters=ClusterConfig(rows_per_move=48, warm_up_moves=3))
MMOE = MMoEHeads(width=6, hidden=(5,))
HEADS = {"mmoe": MMOE, "esmm": ESMMHeads(inner=MMOE, chain=(-1, 0))}
NETS = {"adapt_dhm": ADAPT, "star": StarConfig(hidden=(8,))}


def config_of(net, *, n_tasks=1, **settings):
    return MultiDomainConfig(
        n_features=3,
        vector_dim=4,
        domains=FeatureDomains(feature=2, values=(1, 2, 3)),
        domain_feature=2,
        net=net,
        n_tasks=n_tasks,
        **settings,
    )


def table_of(n_tasks=1):
    rule = Adagrad(learning_rate=0.1)
    slices = (
        SliceSpec(name="wide", dim=n_tasks, optimizer=rule, initializer=Zeros()),
        SliceSpec(name="vector", dim=4, optimizer=rule, initializer=Uniform(low=-0.1, high=0.1)),
    )
    return NativeTable(TableSpec(name="rows", slices=slices), threads=1)


def batch(seed, n=32, n_tasks=1):
    random = np.random.default_rng(seed)
    columns = {
        "user": random.integers(0, 40, n),
        "item": random.integers(0, 40, n),
        "tab": random.integers(1, 5, n),
    }
    label = (random.random((n, n_tasks)) < 0.4).astype(np.float32)
    return SCHEMA.encode(columns, n), label[:, 0] if n_tasks == 1 else label


def fed(learner, steps):
    for step in steps:
        learner.step(*batch(step, n_tasks=learner.n_tasks), event_time_s=step)
    return learner


def learner_of(net, **settings):
    config = config_of(net, **settings)
    return RankingLearner(table_of(config.n_tasks), config, POOLING)


@pytest.mark.parametrize("net", NETS)
def test_a_scorer_gives_what_the_learner_predicts(net):
    learner = fed(learner_of(NETS[net]), range(20))
    scorer = RankingScorer(learner.table, config_of(NETS[net]), POOLING, learner.dense_weights())
    keys, _ = batch(99)
    np.testing.assert_allclose(scorer.score(keys), learner.predict(keys), rtol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_a_step_returns_what_predict_would_have(net):
    learner = fed(learner_of(NETS[net]), range(20))
    keys, label = batch(99)
    before = learner.predict(keys)
    np.testing.assert_array_equal(learner.step(keys, label, event_time_s=99), before)


@pytest.mark.parametrize("net", NETS)
def test_going_on_from_saved_state_gives_the_bits_of_going_on(net):
    kept = fed(learner_of(NETS[net]), range(20))
    restored = learner_of(NETS[net])
    keys = kept.table.keys()
    restored.table.import_rows(kept.table.export_rows(keys))
    restored.load_dense_state(kept.dense_state())
    for learner in (kept, restored):
        fed(learner, range(20, 40))
    for name, value in kept.dense_state().items():
        assert value.tobytes() == restored.dense_state()[name].tobytes(), name
    assert kept.table.lookup(keys).tobytes() == restored.table.lookup(keys).tobytes()


def test_serving_gets_centres_with_the_weights_and_nothing_that_only_learning_needs():
    learner = fed(learner_of(ADAPT), range(20))
    served, saved = learner.dense_weights(), learner.dense_state()
    assert "net.clusters.centres_KD" in served
    assert not [name for name in served if "learning_" in name]
    assert "weight.net.clusters.learning_rows_RD" in saved
    assert weights_in(saved).keys() == served.keys()


def test_a_refused_step_moves_no_centre():
    learner = fed(learner_of(ADAPT), range(20))
    before = learner.dense_state()
    keys, label = batch(99)
    with pytest.raises(ShapeError):
        learner.step(keys, label[:-1], event_time_s=99)
    after = learner.dense_state()
    assert all(value.tobytes() == after[name].tobytes() for name, value in before.items())


def test_rows_that_state_some_labels_teach_those_alone():
    learner = learner_of(ADAPT, n_tasks=2, wide=True)
    keys, label = batch(1, n_tasks=2)
    label[:, 1] = np.nan
    before = learner.predict_tasks(keys)
    wide_before = learner.table.lookup(np.unique(keys.keys_T))[:, :2]
    for step in range(5):
        learner.learn(keys, label, event_time_s=step)
    wide_after = learner.table.lookup(np.unique(keys.keys_T))[:, :2]
    assert not np.array_equal(wide_before[:, 0], wide_after[:, 0])
    np.testing.assert_array_equal(wide_before[:, 1], wide_after[:, 1])
    assert np.abs(learner.predict_tasks(keys)[:, 0] - before[:, 0]).max() > 0.01


def test_the_loss_of_several_labels_is_the_sum_of_each_one_s():
    learner = learner_of(ADAPT, n_tasks=2)
    keys, label = batch(1, n_tasks=2)
    label[::3, 1] = np.nan
    p = learner.predict_tasks(keys).astype(np.float64)
    stated = ~np.isnan(label)
    losses = -np.where(label == 1, np.log(p), np.log1p(-p))[stated]
    assert learner.learn(keys, label, event_time_s=1) == pytest.approx(losses.sum() / len(keys), rel=1e-5)


def test_each_label_has_statements_of_its_own():
    learner = learner_of(ADAPT, n_tasks=2)
    keys, label = batch(1, n_tasks=2)
    n = len(keys)
    half = Statements(
        sample_rate_B=np.full(n, 0.5, np.float32),
        is_fast_B=np.zeros(n, bool),
        weight_B=np.ones(n, np.float32),
    )
    p = learner.predict_tasks(keys).astype(np.float64)
    odds = p / (1 - p) / np.array([1.0, 0.5])
    p = odds / (1 + odds)
    want = -np.where(label == 1, np.log(p), np.log1p(-p)).sum() / n
    assert learner.learn(keys, label, event_time_s=1, stated=[None, half]) == pytest.approx(want, rel=1e-5)
    with pytest.raises(ShapeError, match="want statements of 2 labels, got 1"):
        learner.learn(keys, label, event_time_s=1, stated=[half])


@pytest.mark.parametrize("heads", HEADS)
def test_task_heads_learn_behind_a_multi_domain_net(heads):
    learner = learner_of(ADAPT, n_tasks=2, heads=HEADS[heads])
    keys, label = batch(1, n=64, n_tasks=2)
    label[:, 1] *= label[:, 0]
    losses = [learner.learn(keys, label, event_time_s=step) for step in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_domain_that_was_never_learned_is_scored_from_what_the_clusters_know():
    learner = fed(learner_of(ADAPT), range(20))
    columns = {"user": np.arange(8), "item": np.arange(8), "tab": np.full(8, 200)}
    p = learner.predict(SCHEMA.encode(columns, 8))
    assert np.isfinite(p).all()
    assert len(np.unique(p)) > 1


def test_a_table_without_a_wide_column_for_each_label_is_refused():
    with pytest.raises(ConfigError, match=r"want slices of dims \[2, 4\] \(wide, vector\), got \[1, 4\]"):
        RankingLearner(table_of(1), config_of(ADAPT, n_tasks=2), POOLING)


def test_pooled_rows_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="want pooled rows of 15 columns"):
        config_of(ADAPT).build()(torch.zeros(2, 14), torch.zeros(2, dtype=torch.int64))
