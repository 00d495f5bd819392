"""The torch modules against torch's own embeddings, bags and optimizers."""

import numpy as np
import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.errors import ConfigError, ShapeError
from recsys.table import SGD, SliceSpec, TableSpec, Zeros
from recsys.table.modules import PooledEmbeddings, SequenceEmbeddings
from recsys.table.native import NativeTable

DIM, N_KEYS, RATE, ROUNDING = 3, 10, 0.5, 1e-6
LENGTHS = {"user": [1, 2, 0], "items": [3, 0, 2]}
IDS = [4, 4, 1, 2, 4, 2, 9, 0]
# A key with its top bit set is a negative int64.
KEYS = [(1 << 63) + i for i in IDS]


@pytest.fixture
def start_rows():
    return np.random.default_rng(2).normal(size=(N_KEYS, DIM)).astype(np.float32)


@pytest.fixture
def table(start_rows):
    part = SliceSpec(name="v", dim=DIM, optimizer=SGD(learning_rate=RATE), initializer=Zeros())
    table = NativeTable(TableSpec(name="rows", slices=(part,)))
    table.assign(all_keys(), start_rows)
    return table


@pytest.fixture
def follower(table):
    return table.follow()


@pytest.fixture
def dense(start_rows):
    return torch.nn.Parameter(torch.tensor(start_rows))


def all_keys():
    return np.uint64(1 << 63) + np.arange(N_KEYS, dtype=np.uint64)


def batch():
    values = torch.from_numpy(np.array(KEYS, dtype=np.uint64).view(np.int64))
    lengths = torch.tensor(LENGTHS["user"] + LENGTHS["items"], dtype=torch.int32)
    return KeyedJaggedTensor(keys=list(LENGTHS), values=values, lengths=lengths)


def torch_bags(dense, feature, mode):
    start = 0 if feature == "user" else sum(LENGTHS["user"])
    ids = torch.tensor(IDS[start : start + sum(LENGTHS[feature])])
    offsets = torch.tensor(np.cumsum([0, *LENGTHS[feature][:-1]]))
    return torch.nn.functional.embedding_bag(ids, dense, offsets, mode=mode)


def assert_table_equals(table, dense):
    np.testing.assert_allclose(table.lookup(all_keys()), dense.detach().numpy(), atol=ROUNDING)


@pytest.mark.parametrize("pooling", [("sum", "mean"), ("mean", "sum")])
def test_pooled_embeddings_read_and_learn_as_embedding_bags_of_torch(table, dense, pooling, follower):
    module = PooledEmbeddings(table, dict(zip(LENGTHS, pooling, strict=True)))
    slopes_BD = torch.arange(18.0).reshape(3, 6)
    optimizer = torch.optim.SGD([dense], lr=RATE)
    for event_time_s in (3, 4):
        module.event_time_s = event_time_s
        pooled = module(batch())
        want_BD = torch.cat([torch_bags(dense, f, m) for f, m in zip(LENGTHS, pooling, strict=True)], dim=1)
        torch.testing.assert_close(pooled.values(), want_BD, atol=ROUNDING, rtol=0)
        assert pooled.keys() == ["user", "items"]
        torch.testing.assert_close(pooled["items"], want_BD[:, DIM:], atol=ROUNDING, rtol=0)
        optimizer.zero_grad()
        (want_BD.sin() * slopes_BD).sum().backward()
        optimizer.step()
        (pooled.values().sin() * slopes_BD).sum().backward()
        assert_table_equals(table, dense)
    used_N = sorted(set(KEYS))
    assert table.drain(follower).touched_N.tolist() == used_N
    assert (table.export_rows(np.array(used_N, dtype=np.uint64)).last_seen_s_N == 4).all()


def test_a_batch_given_by_offsets_reads_and_learns_as_one_given_by_lengths(table, follower):
    module, by_lengths = PooledEmbeddings(table, {"user": "sum", "items": "mean"}), batch()
    by_offsets = KeyedJaggedTensor(
        keys=by_lengths.keys(), values=by_lengths.values(), offsets=by_lengths.offsets().int()
    )
    pooled = module(by_offsets)
    assert torch.equal(pooled.values(), module(by_lengths).values())
    module.event_time_s = 3
    pooled.values().sum().backward()
    assert table.drain(follower).touched_N.tolist() == sorted(set(KEYS))


def test_sequence_embeddings_read_and_learn_as_an_embedding_of_torch(table, dense):
    module = SequenceEmbeddings(table)
    module.event_time_s = 3
    sequences = module(batch())
    want_ND = torch.nn.functional.embedding(torch.tensor(IDS), dense)
    torch.testing.assert_close(sequences["user"].values(), want_ND[:3])
    torch.testing.assert_close(sequences["items"].values(), want_ND[3:])
    assert sequences["items"].lengths().tolist() == LENGTHS["items"]
    optimizer = torch.optim.SGD([dense], lr=RATE)
    (want_ND**2).sum().backward()
    optimizer.step()
    sum((part.values() ** 2).sum() for part in sequences.values()).backward()
    assert_table_equals(table, dense)


def test_keys_refilled_between_forward_and_backward_do_not_move_the_gradient(table, follower):
    kjt, module = batch(), SequenceEmbeddings(table)
    module.event_time_s = 3
    loss = module(kjt)["user"].values().sum()
    kjt.values().fill_(5)
    loss.backward()
    assert table.drain(follower).touched_N.tolist() == sorted(set(KEYS))


def test_nothing_is_learned_in_eval_mode_or_without_gradients(table, follower):
    module = PooledEmbeddings(table, {"user": "sum", "items": "sum"})
    module.event_time_s = 3
    with torch.no_grad():
        assert not module(batch()).values().requires_grad
    module.eval()
    assert not module(batch()).values().requires_grad
    assert not len(table.drain(follower).touched_N)


def test_a_missing_key_pools_as_zeros_and_becomes_a_row_on_backward(table):
    module = PooledEmbeddings(table, {"user": "mean"})
    module.event_time_s = 3
    kjt = KeyedJaggedTensor(keys=["user"], values=torch.tensor([77]), lengths=torch.tensor([1]))
    pooled = module(kjt)
    assert not pooled.values().any()
    pooled.values().sum().backward()
    assert table.lookup(np.array([77], dtype=np.uint64)).tolist() == [[-RATE] * DIM]


def test_a_batch_of_empty_bags_is_zeros_and_learns_nothing(table, follower):
    module = PooledEmbeddings(table, {"user": "mean"})
    module.event_time_s = 3
    kjt = KeyedJaggedTensor(
        keys=["user"], values=torch.empty(0, dtype=torch.int64), lengths=torch.zeros(2, dtype=torch.int32)
    )
    pooled = module(kjt)
    assert pooled.values().tolist() == [[0.0] * DIM] * 2
    pooled.values().sum().backward()
    assert not len(table.drain(follower).touched_N)


def test_rows_are_no_parameters_of_the_dense_model(table):
    module = PooledEmbeddings(table, {"user": "sum"})
    assert not list(module.parameters())
    assert not module.state_dict()


def test_backward_without_an_event_time_is_refused(table, follower):
    loss = PooledEmbeddings(table, {"user": "sum", "items": "sum"})(batch()).values().sum()
    with pytest.raises(ConfigError, match="event_time_s is not set"):
        loss.backward()
    assert not len(table.drain(follower).touched_N)


def test_an_unknown_pooling_or_feature_is_refused(table):
    with pytest.raises(ConfigError, match="'sum' or 'mean', got 'max'"):
        PooledEmbeddings(table, {"user": "max"})
    with pytest.raises(ConfigError, match=r"no pooling is set for \['items'\]"):
        PooledEmbeddings(table, {"user": "sum"})(batch())


def test_weighted_bags_and_keys_of_another_dtype_are_refused(table):
    module, lengths = SequenceEmbeddings(table), torch.tensor([1])
    weighted = KeyedJaggedTensor(
        keys=["user"], values=torch.tensor([1]), lengths=lengths, weights=torch.tensor([0.5])
    )
    with pytest.raises(ShapeError, match="without weights"):
        module(weighted)
    narrow = KeyedJaggedTensor(keys=["user"], values=torch.tensor([1], dtype=torch.int32), lengths=lengths)
    with pytest.raises(ShapeError, match="int64 tensor"):
        module(narrow)
