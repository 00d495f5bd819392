"""A torchrec model over collisionless tables: any int64 is an id, and rows learn within backward.

Run: python examples/learn_with_torchrec.py
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.table import RowWiseAdagrad
from recsys.table.torchrec import CollectionRules, CollisionlessEmbeddingBagCollection

N_USERS, N_EXAMPLES, DIM = 200, 256, 8
USERS = EmbeddingBagConfig(name="users", num_embeddings=10_000, embedding_dim=DIM, feature_names=["user"])
ITEMS = EmbeddingBagConfig(
    name="items",
    num_embeddings=10_000,
    embedding_dim=DIM,
    feature_names=["watched"],
    pooling=PoolingType.MEAN,
)


def batch(random: torch.Generator) -> tuple[KeyedJaggedTensor, torch.Tensor]:
    """One user and three watched items an example; odd users like what they see."""
    users = torch.randint(0, N_USERS, (N_EXAMPLES,), generator=random)
    items = torch.randint(0, 50, (3 * N_EXAMPLES,), generator=random) * 0x9E3779B97F4A7C
    lengths = torch.cat([torch.full((N_EXAMPLES,), 1), torch.full((N_EXAMPLES,), 3)])
    kjt = KeyedJaggedTensor(keys=["user", "watched"], values=torch.cat([users, items]), lengths=lengths)
    return kjt, (users % 2).float()


def main() -> None:
    random = torch.Generator().manual_seed(0)
    rules = CollectionRules(optimizer=RowWiseAdagrad(learning_rate=0.1))
    bags, top = CollisionlessEmbeddingBagCollection([USERS, ITEMS], rules), nn.Linear(2 * DIM, 1)
    dense, loss_of = torch.optim.Adam(top.parameters(), lr=0.02), nn.BCEWithLogitsLoss(reduction="sum")
    losses = []
    for step in range(60):
        bags.event_time_s = 1_700_000_000 + step
        kjt, label = batch(random)
        loss = loss_of(top(bags(kjt).values())[:, 0], label)
        dense.zero_grad()
        loss.backward()
        dense.step()
        losses.append(loss.item() / N_EXAMPLES)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; rows", {n: len(t) for n, t in bags.tables.items()})
    sys.exit(0 if losses[-1] < losses[0] / 2 else 1)


if __name__ == "__main__":
    main()
