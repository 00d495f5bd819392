"""Rankers with histories as they learn and serve: against autograd over dense weights, and on a toy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recsys.features import Feature, FeatureSchema, Ragged
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.tower import MultiDomainConfig
from recsys.ranking.adam import AdamConfig
from recsys.ranking.dcn import DCNv2Config
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.history_attention import WithHistory
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.ranking.task_heads import ESMMHeads, MMoEHeads
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.native import NativeTable

N_IDS, DIM, ROUNDING = 6, 3, 2e-5
RATE, ACCUMULATOR = 0.05, 0.1
SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=0, columns=("user",), bits=(8,)),
        Feature(name="video", number=1, columns=("video",), bits=(8,)),
        Feature(name="seen", number=1, columns=("seen",), bits=(8,), rows_of="video"),
        Feature(name="tags", number=2, columns=("tags",), bits=(8,)),
        Feature(name="liked", number=1, columns=("liked",), bits=(8,), rows_of="video"),
    )
)
POOLING = {"user": "sum", "video": "sum", "seen": "mean", "tags": "mean", "liked": "sum"}
TARGET, HISTORIES = 1, (2, 4)
SIZES = {"n_features": 5, "vector_dim": DIM, "seed": 3}
NET = AdaptDHMConfig(hidden=(8,), clusters=ClusterConfig(rows_per_move=16, warm_up_moves=2))
RANKERS = {
    "deepfm": DeepFMConfig(hidden=(6,), **SIZES),
    "dcn": DCNv2Config(n_cross=1, hidden=(6,), **SIZES),
    "multi-domain": MultiDomainConfig(
        domains=FeatureDomains(feature=0, values=(1, 2)),
        domain_feature=0,
        net=NET,
        n_tasks=2,
        heads=ESMMHeads(inner=MMoEHeads(width=6, hidden=(5,), tower=(4,)), chain=(-1, 0)),
        **SIZES,
    ),
}
IDS = st.integers(0, N_IDS - 1)
ROWS = st.lists(
    st.tuples(IDS, IDS, *[st.lists(IDS, max_size=4)] * 3, st.integers(0, 1)), min_size=1, max_size=6
)


def table_of(n_tasks=1, dim=DIM):
    slices = (
        SliceSpec(
            name=name,
            dim=width,
            optimizer=Adagrad(learning_rate=RATE, initial_accumulator=ACCUMULATOR),
            initializer=initializer,
        )
        for name, width, initializer in (
            ("wide", n_tasks, Zeros()),
            ("vector", dim, Uniform(low=-0.5, high=0.5)),
        )
    )
    return NativeTable(TableSpec(name="ranking", slices=tuple(slices), seed=1))


def with_history(ranker, **settings):
    return WithHistory(tower=ranker, target=TARGET, histories=HISTORIES, hidden=(4,), **settings)


def learner_of(config, adam=None):
    return RankingLearner(table_of(config.n_tasks), config, POOLING, adam)


def encoded(rows):
    user, video, *lists, label = zip(*rows, strict=True)
    columns = {"user": np.array(user), "video": np.array(video)}
    for name, lists_N in zip(("seen", "tags", "liked"), lists, strict=True):
        flat = [value for one in lists_N for value in one]
        columns[name] = Ragged(np.array(flat, np.int64), np.array([len(one) for one in lists_N]))
    return SCHEMA.encode(columns, len(rows)), np.array(label, np.float32)


def random_rows(seed, n=24):
    random = np.random.default_rng(seed)
    lists = [[random.integers(0, N_IDS, random.integers(0, 5)).tolist() for _ in range(n)] for _ in range(3)]
    first = random.integers(0, N_IDS, (2, n)).tolist()
    return list(zip(*first, *lists, random.integers(0, 2, n).tolist(), strict=True))


def labels_for(config, label_B):
    """Of two tasks the second follows the first, and every fifth row does not state it."""
    if config.n_tasks == 1:
        return label_B
    second_B = label_B * (np.arange(len(label_B)) % 2)
    second_B[::5] = np.nan
    return np.stack([label_B, second_B], axis=1).astype(np.float32)


def all_keys():
    return np.array([number << 52 | i for number in range(3) for i in range(N_IDS)], np.uint64)


class DenseTwin:
    """The same model over a dense matrix of weights: loops forward, autograd back, torch's optimizers."""

    def __init__(self, weights, config, adam):
        self.config, self.weight = config, torch.nn.Parameter(torch.tensor(weights))
        self.tower = config.build()
        self.rows_step = torch.optim.Adagrad(
            [self.weight], lr=RATE, eps=0.0, initial_accumulator_value=ACCUMULATOR
        )
        self.tower_step = torch.optim.Adam(
            self.tower.parameters(), lr=adam.learning_rate, eps=adam.epsilon, fused=False
        )

    def attention(self, number, target, history):
        unit = self.tower.units[number].mlp
        pairs = [torch.cat([h, target, h - target, h * target]) for h in history]
        a = [unit[2](torch.relu(unit[0](pair))) for pair in pairs]
        if self.config.normalise and a:
            a = torch.softmax(torch.cat(a), dim=0)
        return sum((weight * h for weight, h in zip(a, history, strict=True)), torch.zeros(DIM))

    def log_odds(self, rows):
        weight, out = self.weight, []
        for user, video, seen, tags, liked, _ in rows:
            bags = [[user], [N_IDS + video], [N_IDS + i for i in seen]]
            bags += [[2 * N_IDS + i for i in tags], [N_IDS + i for i in liked]]
            pooled = [weight[bag].sum(dim=0) for bag in bags]
            for place in (2, 3):
                pooled[place] = pooled[place] / max(len(bags[place]), 1)
            for number, place in enumerate(HISTORIES):
                history = [weight[i, 1:] for i in bags[place]]
                vector = self.attention(number, weight[N_IDS + video, 1:], history)
                pooled[place] = torch.cat([pooled[place][:1], vector])
            out.append(torch.cat(pooled))
        return self.tower.ranker(torch.stack(out))

    def learn(self, rows):
        self.rows_step.zero_grad()
        self.tower_step.zero_grad()
        p_B = torch.sigmoid(self.log_odds(rows))
        label_B = torch.tensor([float(row[-1]) for row in rows])
        torch.nn.functional.binary_cross_entropy(p_B, label_B, reduction="sum").backward()
        for parameter in self.tower.parameters():
            # A unit without any history has no gradient; Adam would pass it over, moments and all.
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = grad / len(rows)
        self.rows_step.step()
        self.tower_step.step()
        return p_B.detach().numpy()


@settings(max_examples=20, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.sampled_from(["deepfm", "dcn"]), st.booleans())
def test_rows_units_and_ranker_learn_as_dense_weights_under_autograd(batches, ranker, normalise):
    config = with_history(RANKERS[ranker], normalise=normalise)
    # A large epsilon: without it a gradient that is all rounding would still make a full step.
    adam = AdamConfig(learning_rate=0.01, epsilon=0.01)
    learner = learner_of(config, adam)
    weights = np.random.default_rng(5).normal(scale=0.5, size=(3 * N_IDS, 1 + DIM)).astype(np.float32)
    learner.table.assign(all_keys(), weights)
    twin = DenseTwin(weights, config, adam)
    for rows in batches:
        batch, label_B = encoded(rows)
        p_B = learner.step(batch, label_B, event_time_s=1)
        np.testing.assert_allclose(p_B, twin.learn(rows), atol=ROUNDING)
    assert learner.table.steps == len(batches)
    np.testing.assert_allclose(learner.table.lookup(all_keys()), twin.weight.detach().numpy(), atol=ROUNDING)
    for name, weight in twin.tower.named_parameters():
        np.testing.assert_allclose(learner.dense_weights()[name], weight.detach(), atol=ROUNDING)


def learned(config, steps=6):
    learner = learner_of(config)
    for seed in range(steps):
        batch, label_B = encoded(random_rows(seed))
        learner.learn(batch, labels_for(config, label_B), event_time_s=1)
    return learner


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("ranker", RANKERS)
def test_a_scorer_gives_the_bits_that_the_learner_predicts(ranker, normalise):
    config = with_history(RANKERS[ranker], normalise=normalise)
    learner = learned(config)
    scorer = RankingScorer(learner.table, config, POOLING, learner.dense_weights())
    for rows in (random_rows(50), [(9, 9, [], [], [], 0)], [(1, 2, [2, 2], [], [77], 1)]):
        batch, _ = encoded(rows)
        np.testing.assert_array_equal(scorer.score_tasks(batch), learner.predict_tasks(batch))


@pytest.mark.parametrize("ranker", RANKERS)
def test_a_restart_from_saved_state_goes_on_with_the_same_bits(ranker):
    config = with_history(RANKERS[ranker])
    straight, restarted = learned(config), learned(config, steps=1)
    restarted.table.clear()
    restarted.table.import_rows(straight.table.export_rows(straight.table.keys()))
    restarted.load_dense_state(straight.dense_state())
    for seed in range(10, 14):
        batch, label_B = encoded(random_rows(seed))
        one, two = (
            learner.step(batch, labels_for(config, label_B), event_time_s=1)
            for learner in (straight, restarted)
        )
        np.testing.assert_array_equal(one, two)
    states = straight.dense_state(), restarted.dense_state()
    assert all(np.array_equal(value, states[1][name]) for name, value in states[0].items())


def test_clusters_behind_a_history_move_with_what_is_learned():
    config = with_history(RANKERS["multi-domain"])
    before, after = (learned(config, steps).dense_state() for steps in (0, 6))
    running = [name for name in before if name.startswith("weight.ranker.net.clusters.")]
    assert any(not np.array_equal(before[name], after[name]) for name in running)


def test_predicting_adds_no_rows():
    learner = learner_of(with_history(RANKERS["deepfm"]))
    learner.predict(encoded(random_rows(0))[0])
    assert len(learner.table) == 0


def membership(random, n, n_ids=30, longest=10):
    """Rows whose label is whether the target is in the history: (keys, labels) of two shared features."""
    schema = FeatureSchema(
        (
            Feature(name="video", number=0, columns=("video",), bits=(8,)),
            Feature(name="seen", number=0, columns=("seen",), bits=(8,), rows_of="video"),
        )
    )
    seen = [random.choice(n_ids, random.integers(1, longest + 1), replace=False) for _ in range(n)]
    is_in_N = random.random(n) < 0.5
    video_N = np.array(
        [
            random.choice(one if is_in else np.setdiff1d(np.arange(n_ids), one))
            for one, is_in in zip(seen, is_in_N, strict=True)
        ]
    )
    columns = {"video": video_N, "seen": Ragged(np.concatenate(seen), np.array([len(one) for one in seen]))}
    return schema.encode(columns, n), is_in_N.astype(np.float32)


def auc_after(config, steps=200):
    random = np.random.default_rng(0)
    pooling = {"video": "sum", "seen": "mean"}
    learner = RankingLearner(table_of(dim=4), config, pooling, AdamConfig(learning_rate=0.01))
    for _ in range(steps):
        batch, label_B = membership(random, 128)
        learner.learn(batch, label_B, event_time_s=1)
    batch, label_B = membership(np.random.default_rng(9), 2_000)
    return roc_auc_score(label_B, learner.predict(batch))


@pytest.mark.parametrize("make_ranker", [DeepFMConfig, DCNv2Config])
def test_whether_the_target_is_in_the_history_is_learned_by_attention_and_not_by_a_mean(make_ranker):
    ranker = make_ranker(n_features=2, vector_dim=4, hidden=(16,))
    attending = auc_after(WithHistory(tower=ranker, target=0, histories=(1,)))
    assert attending > 0.9
    assert attending > auc_after(ranker) + 0.08
