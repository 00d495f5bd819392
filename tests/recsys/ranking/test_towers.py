"""DeepFM and DCN V2 against their papers' formulas in numpy, and the travel of their weights."""

import numpy as np
import pytest
import torch

from recsys.errors import ConfigError, ShapeError, SnapshotError
from recsys.ranking.dcn import DCNv2Config
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.tower import export_weights, import_weights

F, K, ROUNDING = 3, 2, 1e-5
ROWS_BFD = np.random.default_rng(0).normal(size=(5, F, 1 + K)).astype(np.float32)


def logits(tower):
    return tower(torch.from_numpy(ROWS_BFD).flatten(1)).numpy(force=True)


def hidden_layer(w, x):
    return np.maximum(x @ w["mlp.0.weight"].T + w["mlp.0.bias"], 0)


def test_deepfm_adds_the_wide_sum_the_pairs_and_the_mlp():
    tower = DeepFMConfig(n_features=F, vector_dim=K, hidden=(4,)).build()
    w = export_weights(tower)
    want = []
    for row_FD in ROWS_BFD:
        wide, vectors = row_FD[:, 0], row_FD[:, 1:]
        pairs = sum(vectors[f] @ vectors[g] for f in range(F) for g in range(f))
        deep = hidden_layer(w, vectors.ravel()) @ w["head.weight"][0] + w["head.bias"][0]
        want.append(wide.sum() + pairs + deep)
    np.testing.assert_allclose(logits(tower), want, atol=ROUNDING)


def test_dcn_runs_its_cross_layers_beside_the_mlp():
    tower = DCNv2Config(n_features=F, vector_dim=K, n_cross=2, hidden=(4,)).build()
    w = export_weights(tower)
    want = []
    for row_FD in ROWS_BFD:
        first = layer = row_FD[:, 1:].ravel()
        for i in range(2):
            layer = first * (w[f"cross_layers.{i}.weight"] @ layer + w[f"cross_layers.{i}.bias"]) + layer
        both = np.concatenate([layer, hidden_layer(w, first)])
        want.append(row_FD[:, 0].sum() + both @ w["head.weight"][0] + w["head.bias"][0])
    np.testing.assert_allclose(logits(tower), want, atol=ROUNDING)


@pytest.mark.parametrize("make_config", [DeepFMConfig, DCNv2Config])
def test_a_configuration_builds_the_same_bits_each_time(make_config):
    one, two, other = (export_weights(make_config(n_features=F, seed=seed).build()) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("make_config", [DeepFMConfig, DCNv2Config])
def test_weights_make_the_same_tower_elsewhere(make_config):
    here, there = (make_config(n_features=F, vector_dim=K, seed=seed).build() for seed in (1, 2))
    import_weights(there, export_weights(here))
    np.testing.assert_array_equal(logits(here), logits(there))


def test_weights_of_another_tower_are_refused_and_change_nothing():
    tower = DeepFMConfig(n_features=F, vector_dim=K).build()
    before = export_weights(tower)
    with pytest.raises(SnapshotError, match="same configuration"):
        import_weights(tower, export_weights(DCNv2Config(n_features=F, vector_dim=K).build()))
    wide = {name: np.ones_like(value) for name, value in before.items()}
    wide["head.bias"] = np.ones(2, np.float32)
    with pytest.raises(ShapeError, match=r"'head.bias': want float32 \(1,\), got float32 \(2,\)"):
        import_weights(tower, wide)
    after = export_weights(tower)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("make_config", [DeepFMConfig, DCNv2Config])
@pytest.mark.parametrize(
    "settings", [{"n_features": 0}, {"vector_dim": 0}, {"hidden": ()}, {"hidden": (8, 0)}], ids=str
)
def test_a_tower_without_features_columns_or_layers_is_refused(make_config, settings):
    with pytest.raises(ConfigError, match="must"):
        make_config(**{"n_features": F, **settings})


def test_a_dcn_without_cross_layers_is_refused():
    with pytest.raises(ConfigError, match="n_cross must be >= 1, got 0"):
        DCNv2Config(n_features=F, n_cross=0)
