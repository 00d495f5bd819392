"""The learner against torch's own embeddings and optimizers, and what a restart must keep."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from recsys.errors import ConfigError, GradientError, ShapeError, SnapshotError
from recsys.features import RaggedKeys
from recsys.ranking.adam import AdamConfig
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.learner import RankingLearner

ROUNDING = 2e-5


class DenseTwin:
    """The same model with every key in an nn.Embedding: slow, obvious, and all gradients by autograd."""

    def __init__(self, problem, tower, adam):
        rows = torch.tensor(problem.filled_table().lookup(problem.all_keys()))
        self.pooling = list(problem.pooling.values())
        self.n_ids = problem.n_ids
        self.wide = torch.nn.Embedding.from_pretrained(rows[:, :1], freeze=False)
        self.vector = torch.nn.Embedding.from_pretrained(rows[:, 1:], freeze=False)
        self.tower = tower.build()
        accumulator = {"eps": 0.0, "initial_accumulator_value": problem.accumulator}
        self.optimizers = [
            torch.optim.Adagrad(self.wide.parameters(), lr=problem.wide_rate, **accumulator),
            torch.optim.Adagrad(self.vector.parameters(), lr=problem.vector_rate, **accumulator),
            torch.optim.Adam(self.tower.parameters(), lr=adam.learning_rate, eps=adam.epsilon, fused=False),
        ]

    def rows(self):
        return torch.cat([self.wide.weight, self.vector.weight], dim=1).detach().numpy()

    def logits(self, batch):
        pooled, keys = [], iter(batch.keys_T.tolist())
        for lengths_F in batch.lengths_NF.tolist():
            for how, length in zip(self.pooling, lengths_F, strict=True):
                ids = [(key >> 52) * self.n_ids + (key & 0xFF) for key in islice(keys, length)]
                bag = torch.tensor(ids, dtype=torch.long)
                both = torch.cat([self.wide(bag), self.vector(bag)], dim=1)
                pooled.append(both.sum(dim=0) / (max(length, 1) if how == "mean" else 1))
        return self.tower(torch.stack(pooled).view(len(batch), -1))

    def learn(self, batch, labels_B):
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        p_B = torch.sigmoid(self.logits(batch))
        losses_B = torch.nn.functional.binary_cross_entropy(p_B, torch.tensor(labels_B), reduction="none")
        losses_B.sum().backward()
        for parameter in self.tower.parameters():
            parameter.grad /= len(batch)
        for optimizer in self.optimizers:
            optimizer.step()
        return p_B.detach().numpy()


def learner_of(problem, tower, table=None, adam=None):
    if table is None:
        table = problem.filled_table()
    return RankingLearner(table, tower, problem.pooling, adam)


def everything(problem, learner):
    rows = learner.table.export_rows(learner.table.keys())
    return [rows.weights_ND, rows.state_NS, *(v for _, v in sorted(learner.dense_state().items()))]


def assert_same_bits(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 1))
def test_rows_and_tower_learn_as_dense_embeddings_under_torchs_optimizers(problem, seeds, n_rows, which):
    # A large epsilon: without it a gradient that is all rounding would still make a full step.
    tower, adam = problem.towers[which], AdamConfig(learning_rate=0.01, epsilon=0.01)
    learner, twin = learner_of(problem, tower, adam=adam), DenseTwin(problem, tower, adam)
    for seed in seeds:
        batch, labels_B = problem.batch(seed, n_rows), problem.labels(seed, n_rows)
        p_B = learner.step(batch, labels_B, event_time_s=1)
        np.testing.assert_allclose(p_B, twin.learn(batch, labels_B), atol=ROUNDING)
    np.testing.assert_allclose(learner.table.lookup(problem.all_keys()), twin.rows(), atol=ROUNDING)
    for name, weight in twin.tower.named_parameters():
        np.testing.assert_allclose(learner.dense_weights()[name], weight.detach(), atol=ROUNDING)


def test_a_step_predicts_before_it_learns(problem):
    learner, batch, labels_B = learner_of(problem, problem.towers[0]), problem.batch(0), problem.labels(0)
    before_B = learner.predict(batch)
    np.testing.assert_array_equal(learner.step(batch, labels_B, event_time_s=1), before_B)
    assert not np.array_equal(learner.predict(batch), before_B)


def test_learn_gives_the_mean_log_loss_of_what_was_predicted(problem):
    learner, batch, labels_B = learner_of(problem, problem.towers[1]), problem.batch(1), problem.labels(1)
    want = log_loss(labels_B, learner.predict(batch).astype(float))
    assert learner.learn(batch, labels_B, event_time_s=1) == pytest.approx(want, rel=1e-5)


def test_learn_and_step_are_the_same_step(problem):
    one, two = (learner_of(problem, problem.towers[0]) for _ in range(2))
    one.learn(problem.batch(2), problem.labels(2), event_time_s=1)
    two.step(problem.batch(2), problem.labels(2), event_time_s=1)
    assert_same_bits(everything(problem, one), everything(problem, two))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("n_before", [0, 3])
def test_a_restart_from_saved_state_goes_on_with_the_same_bits(problem, which, n_before):
    tower = problem.towers[which]
    straight = learner_of(problem, tower, table=problem.empty_table())
    for seed in range(n_before):
        straight.learn(problem.batch(seed), problem.labels(seed), event_time_s=1)
    restarted = learner_of(problem, tower, table=problem.empty_table())
    restarted.learn(problem.batch(99), problem.labels(99), event_time_s=1)
    restarted.table.clear()
    restarted.table.import_rows(straight.table.export_rows(straight.table.keys()))
    restarted.load_dense_state(straight.dense_state())
    for seed in range(10, 13):
        a, b = (
            learner.step(problem.batch(seed), problem.labels(seed), event_time_s=2)
            for learner in (straight, restarted)
        )
        np.testing.assert_array_equal(a, b)
    assert_same_bits(everything(problem, straight), everything(problem, restarted))


def test_predicting_adds_no_rows_and_changes_none(problem):
    learner = learner_of(problem, problem.towers[0], table=problem.empty_table())
    follower = learner.table.follow()
    learner.predict(problem.batch(0))
    assert len(learner.table) == 0
    assert len(learner.table.drain(follower).touched_N) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_label_that_is_not_finite_is_refused_and_nothing_is_learned(problem, bad):
    learner, labels_B = learner_of(problem, problem.towers[0]), problem.labels(0)
    before = everything(problem, learner)
    labels_B[2] = bad
    with pytest.raises(GradientError, match="log loss of 7 examples"):
        learner.learn(problem.batch(0), labels_B, event_time_s=1)
    assert_same_bits(everything(problem, learner), before)


def test_a_row_that_is_not_finite_leaves_the_tower_as_it_was(problem):
    learner, batch = learner_of(problem, problem.towers[0]), problem.batch(0)
    learner.table.assign(batch.keys_T[:1], np.full((1, 1 + problem.dim), np.inf, np.float32))
    before = everything(problem, learner)
    with pytest.raises(GradientError):
        learner.learn(batch, problem.labels(0), event_time_s=1)
    assert_same_bits(everything(problem, learner), before)


def test_an_empty_batch_changes_nothing(problem):
    learner = learner_of(problem, problem.towers[0])
    before = everything(problem, learner)
    nothing = RaggedKeys(np.empty(0, np.uint64), np.empty((0, 3), np.uint8))
    assert learner.step(nothing, np.empty(0, np.float32), event_time_s=1).shape == (0,)
    assert_same_bits(everything(problem, learner), before)


def test_a_product_of_two_features_is_learned_from_scratch(problem):
    """The label is the exclusive or of two ids: no sum of one weight per key can tell it."""
    ids_N = np.arange(4).repeat(8)
    keys_NF = np.stack([ids_N & 1, 2 + (ids_N >> 1), np.full(32, 9)], axis=1).astype(np.uint64)
    batch, label_N = RaggedKeys(keys_NF.ravel(), np.ones((32, 3), np.uint8)), (ids_N & 1) ^ (ids_N >> 1)
    for tower in problem.towers:
        learner = learner_of(problem, tower, table=problem.empty_table(), adam=AdamConfig(learning_rate=0.01))
        for _ in range(300):
            loss = learner.learn(batch, label_N.astype(np.float32), event_time_s=1)
        assert loss < 0.1


@pytest.mark.parametrize(
    "labels_B", [np.zeros(6, np.float32), np.zeros((7, 1), np.float32), np.zeros(7)], ids=str
)
def test_labels_that_do_not_fit_the_batch_are_refused(problem, labels_B):
    with pytest.raises(ShapeError, match=r"want float32 labels of shape \(7,\)"):
        learner_of(problem, problem.towers[0]).learn(problem.batch(0), labels_B, event_time_s=1)


def test_keys_of_another_schema_are_refused(problem):
    two_features = RaggedKeys(np.zeros(2, np.uint64), np.ones((1, 2), np.uint8))
    with pytest.raises(ShapeError, match="want keys of 3 features per row"):
        learner_of(problem, problem.towers[0]).predict(two_features)


def test_dense_state_of_another_tower_is_refused_and_changes_nothing(problem):
    learner = learner_of(problem, problem.towers[0])
    before = everything(problem, learner)
    with pytest.raises(SnapshotError, match="dense state"):
        learner.load_dense_state(learner_of(problem, problem.towers[1]).dense_state())
    for name in ("weight.head.bias", "adam.first.head.bias", "adam.steps"):
        damaged = {key: np.ones_like(value) for key, value in learner.dense_state().items()}
        damaged[name] = np.ones(2, np.float32)
        with pytest.raises(ShapeError, match="want float32"):
            learner.load_dense_state(damaged)
    assert_same_bits(everything(problem, learner), before)


def test_a_tower_that_does_not_fit_the_table_is_refused(problem):
    with pytest.raises(ConfigError, match=r"want slices of dims \[1, 8\]"):
        learner_of(problem, DeepFMConfig(n_features=3, vector_dim=8))
    with pytest.raises(ConfigError, match="takes 4 features, but 3 have a pooling"):
        learner_of(problem, DeepFMConfig(n_features=4, vector_dim=problem.dim))


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 0}, {"first_decay": 1.0}, {"second_decay": -0.1}, {"epsilon": 0}], ids=str
)
def test_an_adam_that_cannot_learn_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        AdamConfig(**settings)
