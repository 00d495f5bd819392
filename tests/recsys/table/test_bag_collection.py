"""The collection against torchrec's own, which is given the same rows and trained by torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.errors import ConfigError, ShapeError
from recsys.table import SGD
from recsys.table.torchrec import CollectionRules, CollisionlessEmbeddingBagCollection

N_IDS, RATE, ROUNDING = 6, 0.5, 1e-5
RULES = CollectionRules(optimizer=SGD(learning_rate=RATE))
# Neither order nor names of the configs' features are those of the batch, and one feature is shared.
FEATURES = ["query", "item", "unused", "user"]
BAGS = st.lists(st.lists(st.integers(0, N_IDS - 1), max_size=3), min_size=2, max_size=2)


def configs(**changes):
    return [
        EmbeddingBagConfig(
            name="people",
            num_embeddings=N_IDS,
            embedding_dim=3,
            feature_names=["user"],
            pooling=PoolingType.MEAN,
        ),
        EmbeddingBagConfig(
            name="things", num_embeddings=N_IDS, embedding_dim=2, feature_names=["item", "query"], **changes
        ),
        EmbeddingBagConfig(name="words", num_embeddings=N_IDS, embedding_dim=1, feature_names=["query"]),
    ]


def batch(bags_of_feature):
    bags = [bag for feature in FEATURES for bag in bags_of_feature[feature]]
    return KeyedJaggedTensor(
        keys=FEATURES,
        values=torch.tensor([i for bag in bags for i in bag], dtype=torch.int64),
        lengths=torch.tensor([len(bag) for bag in bags]),
    )


def weights_of(ours):
    ids = np.arange(N_IDS, dtype=np.uint64)
    return {name: torch.from_numpy(table.lookup(ids)) for name, table in ours.tables.items()}


def peer_with(weights):
    peer = EmbeddingBagCollection(tables=configs())
    for name, rows in weights.items():
        peer.embedding_bags[name].weight.data.copy_(rows)
    return peer


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(FEATURES, BAGS)), min_size=1, max_size=3))
def test_it_reads_and_learns_as_torchrecs_collection(batches):
    ours = CollisionlessEmbeddingBagCollection(configs(), RULES)
    peer = peer_with(weights_of(ours))
    optimizer = torch.optim.SGD(peer.parameters(), lr=RATE)
    slopes = torch.arange(16.0).view(2, 8) / 16
    for bags_of_feature in batches:
        got, want = ours(batch(bags_of_feature)), peer(batch(bags_of_feature))
        assert got.keys() == want.keys()
        assert got.length_per_key() == want.length_per_key()
        torch.testing.assert_close(got.values(), want.values(), atol=ROUNDING, rtol=0)
        optimizer.zero_grad()
        (want.values().sin() * slopes).sum().backward()
        optimizer.step()
        (got.values().sin() * slopes).sum().backward()
    for name, rows in weights_of(ours).items():
        torch.testing.assert_close(rows, peer.embedding_bags[name].weight.data, atol=ROUNDING, rtol=0)


def test_ids_of_any_size_have_rows_of_their_own_and_the_idlest_makes_room():
    ours = CollisionlessEmbeddingBagCollection(configs()[2:], RULES)
    ids = [-(1 << 63), -1, 1 << 62, N_IDS, N_IDS + 1, 0, 10**12]
    for i in ids:
        kjt = KeyedJaggedTensor(keys=["query"], values=torch.tensor([i]), lengths=torch.tensor([1]))
        ours(kjt).values().sum().backward()
    assert sorted(ours.tables["words"].keys().view(np.int64).tolist()) == sorted(ids[1:])


def test_rows_start_within_the_configs_bounds_and_by_seed():
    bounds = {"weight_init_min": 0.25, "weight_init_max": 0.5}
    ours = [
        weights_of(
            CollisionlessEmbeddingBagCollection(
                configs(**bounds), CollectionRules(optimizer=SGD(learning_rate=RATE), seed=seed)
            )
        )["things"]
        for seed in (0, 0, 1)
    ]
    assert ours[0].min() >= 0.25
    assert ours[0].max() <= 0.5
    assert torch.equal(ours[0], ours[1])
    assert not torch.equal(ours[0], ours[2])


def test_learned_rows_carry_the_event_time_or_the_step():
    ours = CollisionlessEmbeddingBagCollection(configs()[2:], RULES)
    table = ours.tables["words"]
    for event_time_s, seen in ((None, 0), (None, 1), (1_700_000_000, 3601)):
        ours.event_time_s = event_time_s
        kjt = KeyedJaggedTensor(keys=["query"], values=torch.tensor([3]), lengths=torch.tensor([1]))
        ours(kjt).values().sum().backward()
        # The table takes no leap into the future for its word: that is the skew of its expiry rule.
        assert table.export_rows(np.array([3], np.uint64)).last_seen_s_N.tolist() == [seen]


def test_rows_are_no_parameters_and_configs_are_at_hand():
    ours = CollisionlessEmbeddingBagCollection(configs(), RULES)
    assert not list(ours.parameters())
    assert not ours.state_dict()
    assert [config.name for config in ours.embedding_bag_configs()] == ["people", "things", "words"]
    assert not ours.is_weighted()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_type": DataType.INT8}, "INT8"),
        ({"pooling": PoolingType.NONE}, "NONE"),
        ({"init_fn": torch.nn.init.zeros_}, "set weight_init_min"),
    ],
)
def test_what_a_table_cannot_do_is_refused_when_built(changes, message):
    with pytest.raises(ConfigError, match=message):
        CollisionlessEmbeddingBagCollection(configs(**changes), RULES)


def test_equal_names_missing_features_and_weighted_bags_are_refused():
    with pytest.raises(ConfigError, match="different names"):
        CollisionlessEmbeddingBagCollection([*configs(), configs()[0]], RULES)
    ours = CollisionlessEmbeddingBagCollection(configs(), RULES)
    one = torch.tensor([1])
    with pytest.raises(ConfigError, match=r"no keys came for \['user'\]"):
        ours(KeyedJaggedTensor(keys=["item"], values=one, lengths=one))
    with pytest.raises(ShapeError, match="without weights"):
        ours(KeyedJaggedTensor(keys=["user"], values=one, lengths=one, weights=torch.tensor([0.5])))
