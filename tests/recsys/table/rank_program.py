"""One rank of test_ranks.py: trains on its own batches and saves what it has then.

Run: python rank_program.py RANK N_RANKS FOLDER shared|local
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection
from torchrec.modules.mc_modules import ManagedCollisionCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.table import SGD, SliceSpec, TableSpec, Zeros
from recsys.table.modules import PooledEmbeddings, SequenceEmbeddings
from recsys.table.native import NativeTable
from recsys.table.ranks import Ranks
from recsys.table.torchrec import CollisionlessManagedCollisionModule

DIM, N_KEYS, N_STEPS, RATE, ZCH = 3, 12, 4, 0.5, 8


def bags_of(rank, step):
    """Bags of one rank's batch: two features; the number of examples differs by rank."""
    rng = np.random.default_rng(100 * rank + step)
    return [rng.integers(0, N_KEYS, rng.integers(0, 4)).tolist() for _ in range(2 * (2 + rank))]


def jagged(bags):
    values = torch.tensor([i for bag in bags for i in bag], dtype=torch.int64)
    return KeyedJaggedTensor(
        keys=["user", "item"], values=values, lengths=torch.tensor([len(bag) for bag in bags])
    )


def start_rows():
    return np.random.default_rng(7).normal(size=(N_KEYS, DIM)).astype(np.float32)


def start_dense():
    torch.manual_seed(3)
    return nn.Linear(2 * DIM, 1)


class Model(nn.Module):
    """Rows of a table, rows of torchrec's weights behind managed collisions, and dense weights."""

    def __init__(self, ranks_of):
        super().__init__()
        part = SliceSpec(name="v", dim=DIM, optimizer=SGD(learning_rate=RATE), initializer=Zeros())
        table = NativeTable(TableSpec(name="rows", slices=(part,)), threads=1)
        table.assign(np.arange(N_KEYS, dtype=np.uint64), start_rows())
        self.rows = PooledEmbeddings(table, {"user": "sum", "item": "mean"}, ranks_of())
        self.sequences = SequenceEmbeddings(table, ranks_of())
        self.dense = start_dense()
        config = EmbeddingBagConfig(
            name="t", num_embeddings=ZCH, embedding_dim=2, feature_names=["user", "item"]
        )
        self.slots = CollisionlessManagedCollisionModule(ZCH, torch.device("cpu"), ranks=ranks_of())
        self.managed = ManagedCollisionEmbeddingBagCollection(
            EmbeddingBagCollection(tables=[config]), ManagedCollisionCollection({"t": self.slots}, [config])
        )

    def forward(self, kjt):
        managed, _ = self.managed(kjt)
        return self.dense(self.rows(kjt).values()).mean() + managed.values().sin().mean()


def main(rank, n_ranks, folder, how):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/{how}.rendezvous", rank=rank, world_size=n_ranks
    )
    own = (lambda: Ranks(distributed.new_group())) if how == "shared" else (lambda: None)
    model = Model(own)
    replica = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for step in range(N_STEPS):
        model.rows.event_time_s = 10 * step + rank
        optimizer.zero_grad()
        replica(jagged(bags_of(rank, step))).backward()
        optimizer.step()
    after_steps = model.rows.table.lookup(np.arange(N_KEYS, dtype=np.uint64))
    model.sequences.event_time_s = 99
    bags = bags_of(rank, N_STEPS)
    rows = model.sequences(jagged(bags))
    sum(part.values().sum() for part in rows.values()).backward()
    keys = np.arange(N_KEYS, dtype=np.uint64)
    state = {name: value.numpy() for name, value in model.slots.get_extra_state().items()}
    np.savez(
        Path(folder) / f"{how}{rank}.npz",
        after_steps=after_steps,
        rows=model.rows.table.lookup(keys),
        last_seen=model.rows.table.export_rows(keys).last_seen_s_N,
        **{f"slots.{name}": array for name, array in state.items()},
        **{f"dense.{name}": value.detach().numpy() for name, value in model.named_parameters()},
    )
    distributed.barrier()
    # Not by returning: torch 2.13 may join gloo's thread with the GIL in hand, which that thread waits for.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
