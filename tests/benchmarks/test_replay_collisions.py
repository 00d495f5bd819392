"""The replay of Monolith's claim: its arithmetic, its arms, its model, and runs on made-up ratings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from collisions.arms import Arm, exact, half, hashed, hashed_into, main_arms, quotient_remainder, square_root
from collisions.hashing import buckets_for, collision_rate, expected_rate, md5_buckets, sharing
from collisions.model import DeepFM, probability
from collisions.ratings import Ratings, Split, random_split, temporal_split
from collisions.report import mean_figure
from collisions.training import TrainingConfig, constant_score, train_in_epochs, train_online
from hypothesis import given
from hypothesis import strategies as st
from replay_collisions import epoch_figures, online_figures

from recsys.errors import ConfigError
from recsys.ranking.deepfm import DeepFMConfig
from recsys.table import FP16

N_USERS, N_MOVIES = 300, 40
EXACT = Arm(name="exact", encode=exact)
QUICK = TrainingConfig(learning_rate=0.1, epochs=2, batch=64, vector_dim=4, hidden=(8, 4))


def made_up_ratings(n: int) -> Ratings:
    """Each user likes three movies in four, or one in four, whichever they are: only ids can be learned."""
    random = np.random.default_rng(7)
    likes_U = random.permutation(N_USERS) % 2
    user_N = random.integers(0, N_USERS, n)
    return Ratings(
        user_N=user_N,
        movie_N=random.integers(0, N_MOVIES, n),
        label_N=(random.random(n) < 0.25 + 0.5 * likes_U[user_N]).astype(np.float32),
        time_s_N=1_000_000 + 60 * np.arange(n),
        n_users=N_USERS,
        n_movies=N_MOVIES,
    )


@given(st.integers(2, 100_000), st.floats(0.001, 0.9))
def test_one_bucket_fewer_would_collide_more_often_than_asked(n_ids: int, rate: float) -> None:
    buckets = buckets_for(n_ids, rate)
    assert expected_rate(n_ids, buckets) <= rate
    assert buckets == 2 or expected_rate(n_ids, buckets - 1) > rate


def test_a_million_buckets_leave_the_paper_as_many_ids_as_it_reports() -> None:
    # Monolith, sec. 3.1.1: 162,541 users become 149,970 and 59,047 movies 57,361; sigma is about 100 and 39.
    assert 162_541 * (1 - expected_rate(162_541, 10**6)) == pytest.approx(149_970, abs=100)
    assert 59_047 * (1 - expected_rate(59_047, 10**6)) == pytest.approx(57_361, abs=39)


def test_a_rate_of_none_or_all_is_refused() -> None:
    for rate in (0.0, 1.0):
        with pytest.raises(ConfigError, match="a rate between 0 and 1"):
            buckets_for(10, rate)


@pytest.mark.parametrize("rate", [0.0773, 0.2, 0.5])
def test_md5_collides_at_the_rate_that_was_asked_for(rate: float) -> None:
    salts = [f"{salt}" for salt in range(10)]
    buckets = [md5_buckets(6040, buckets_for(6040, rate), salt) for salt in salts]
    rates = [collision_rate(bucket_I) for bucket_I in buckets]
    assert np.mean(rates) == pytest.approx(rate, abs=0.003)
    assert len({bucket_I.tobytes() for bucket_I in buckets}) == len(salts)


def test_both_ids_of_a_clash_share_a_bucket() -> None:
    assert sharing(np.array([5, 3, 5, 9])).tolist() == [True, False, True, False]
    assert collision_rate(np.array([5, 3, 5, 9])) == 0.25


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from([square_root, half]), st.integers(0, 9))
def test_no_two_ids_have_the_same_quotient_and_remainder(
    n_users: int, n_movies: int, remainders_for: Callable[[int], int], salt: int
) -> None:
    encoding = quotient_remainder(remainders_for)(n_users, n_movies, salt)
    both_IP = np.concatenate([encoding.keys_UP, encoding.keys_MP])
    assert len(np.unique(both_IP, axis=0)) == n_users + n_movies
    assert encoding.fixed_rows is not None
    assert len(np.unique(both_IP)) <= encoding.fixed_rows


@pytest.mark.parametrize("arm", main_arms(), ids=lambda arm: arm.name)
def test_a_user_and_a_movie_never_share_a_row(arm: Arm) -> None:
    encoding = arm.encode(N_USERS, N_MOVIES, 3)
    assert not np.isin(encoding.keys_UP, encoding.keys_MP).any()
    is_exact = len(np.unique(encoding.keys_UP)) == N_USERS
    assert is_exact == (arm.encode is exact)


@given(st.integers(10, 300), st.integers(0, 99), st.sampled_from([random_split, temporal_split]))
def test_every_rating_is_in_exactly_one_part(n: int, seed: int, split: Callable[[int, int], Split]) -> None:
    parts = split(n, seed)
    whole = np.concatenate([parts.fit_F, parts.validation_V, parts.test_T])
    assert sorted(whole.tolist()) == list(range(n))


def test_the_temporal_split_never_learns_from_what_comes_later() -> None:
    parts = temporal_split(100, 0)
    assert parts.fit_F.max() < parts.validation_V.min() <= parts.validation_V.max() < parts.test_T.min()


def test_the_numpy_model_has_the_logits_and_gradients_of_the_torch_one() -> None:
    random = np.random.default_rng(0)
    model = DeepFM(vector_dim=4, hidden=(6, 5), learning_rate=0.1, seed=1)
    tower = DeepFMConfig(n_features=2, vector_dim=4, hidden=(6, 5)).build()
    parameters = list(tower.parameters())
    mine = [array for layer in model.weights for array in layer]
    for parameter, array in zip(parameters, mine, strict=True):
        array[...] = random.normal(size=array.shape)
        parameter.data = torch.from_numpy(array.T.copy())
    rows_B2C = random.normal(size=(7, 2, 5)).astype(np.float32)
    label_B = (np.arange(7) % 2).astype(np.float32)

    pooled = torch.from_numpy(rows_B2C.reshape(7, 10).copy()).requires_grad_()
    logit = tower(pooled)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logit, torch.from_numpy(label_B), reduction="sum"
    )
    loss.backward()  # type: ignore[no-untyped-call]
    seen = model.forward(rows_B2C)
    gradient_B2C = model.backward(seen, label_B)

    np.testing.assert_allclose(seen.logit_B, logit.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert pooled.grad is not None
    np.testing.assert_allclose(gradient_B2C.reshape(7, 10), pooled.grad.numpy(), rtol=1e-4, atol=1e-5)
    gradients = [array for layer in model.gradients() for array in layer]
    for parameter, array in zip(parameters, gradients, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(array.T, parameter.grad.numpy(), rtol=1e-4, atol=1e-5)


@given(st.floats(-100, 100))
def test_a_probability_is_between_0_and_1(logit: float) -> None:
    (p,) = probability(np.array([logit], dtype=np.float32))
    assert p == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


def test_the_constant_ranks_by_chance_and_loses_the_entropy_of_the_labels() -> None:
    ratings = replace(made_up_ratings(1000), label_N=(np.arange(1000) % 4 == 0).astype(np.float32))
    found = constant_score(ratings, temporal_split(1000, 0))
    assert found.auc == 0.5
    assert found.log_loss == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), abs=1e-6)


def test_collisions_cost_what_there_is_to_learn_about_ids() -> None:
    ratings = made_up_ratings(20_000)
    split = random_split(len(ratings), 0)
    arms = [EXACT, Arm(name="half", encode=hashed(0.5, 0.5)), Arm(name="one", encode=hashed_into(2))]
    exact_auc, half_auc, one_auc = (
        train_in_epochs(arm, ratings, split, QUICK, seed=0).chosen.auc for arm in arms
    )
    # A user's taste alone gives 0.75; one row for all users gives chance.
    assert exact_auc == pytest.approx(0.75, abs=0.03)
    assert exact_auc > half_auc + 0.05 > one_auc
    assert one_auc == pytest.approx(0.5, abs=0.03)


def test_admission_at_the_first_occurrence_changes_no_prediction() -> None:
    ratings = made_up_ratings(3000)
    plain = train_online(EXACT, ratings, QUICK, seed=0)
    filtered = train_online(replace(EXACT, threshold=1), ratings, QUICK, seed=0)
    assert plain.logit_T.tobytes() == filtered.logit_T.tobytes()
    assert plain.rows == filtered.rows == N_USERS + N_MOVIES


def test_each_economy_holds_fewer_rows_or_bytes() -> None:
    ratings = made_up_ratings(3000)
    plain = train_online(EXACT, ratings, QUICK, seed=0)
    assert train_online(replace(EXACT, threshold=20), ratings, QUICK, seed=0).rows < N_USERS
    assert train_online(replace(EXACT, max_idle_s=3600), ratings, QUICK, seed=0).rows < plain.rows
    assert train_online(replace(EXACT, codec=FP16()), ratings, QUICK, seed=0).n_bytes < plain.n_bytes


def test_the_interval_is_students() -> None:
    found = mean_figure("x", [1.0, 2.0, 3.0], "auc", bar="> 0")
    # The 97.5 % point for two degrees of freedom is 4.3027, the standard error 1/√3.
    assert [found["low"], found["high"]] == pytest.approx([2 - 2.4842, 2 + 2.4842], abs=1e-3)
    assert found["holds"] is False


def test_a_whole_replay_names_each_figure_once_and_leaves_none_undefined() -> None:
    ratings = made_up_ratings(2000)
    figures = [*epoch_figures("random", ratings, QUICK, [0, 1]), *online_figures(ratings, [0, 1])]
    names = [figure["name"] for figure in figures]
    assert len(set(names)) == len(names)
    assert all(math.isfinite(figure["value"]) for figure in figures)
