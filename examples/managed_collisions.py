"""torchrec's own embedding bags behind collisionless slots: 1,000 rows follow a stream of ever new ids.

Run: python examples/managed_collisions.py
"""

from __future__ import annotations

import sys

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection
from torchrec.modules.mc_modules import ManagedCollisionCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.table import DistanceLFU
from recsys.table.torchrec import CollisionlessManagedCollisionModule, SlotRules

N_ROWS, N_IDS = 1_000, 256
CONFIG = EmbeddingBagConfig(name="videos", num_embeddings=N_ROWS, embedding_dim=8, feature_names=["video"])


def main() -> None:
    bags = EmbeddingBagCollection(tables=[CONFIG])
    weight = bags.embedding_bags["videos"].weight
    recycled = 0

    def reset(rows: torch.Tensor) -> None:
        """A row goes to a new id: forget what the former one had learned."""
        nonlocal recycled
        recycled += len(rows)
        weight.data[rows] = 0.0

    slots = CollisionlessManagedCollisionModule(
        N_ROWS, torch.device("cpu"), SlotRules(policy=DistanceLFU()), on_recycled=reset
    )
    model = ManagedCollisionEmbeddingBagCollection(
        bags, ManagedCollisionCollection({"videos": slots}, [CONFIG]), return_remapped_features=True
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    random, ones = torch.Generator().manual_seed(0), torch.ones(N_IDS, dtype=torch.int64)
    has_collision = False
    for step in range(50):
        videos = torch.randint(100 * step, 100 * step + 600, (N_IDS,), generator=random) * 0x9E3779B97F4A7C
        pooled, rows = model(KeyedJaggedTensor(keys=["video"], values=videos, lengths=ones))
        has_collision |= len(rows.values().unique()) < len(videos.unique())
        optimizer.zero_grad()
        (pooled["video"] - 1.0).square().sum().backward()
        optimizer.step()
    print(f"recycled rows: {recycled}; free: {slots.open_slots().item()}; collision: {has_collision}")
    sys.exit(1 if has_collision else 0)


if __name__ == "__main__":
    main()
