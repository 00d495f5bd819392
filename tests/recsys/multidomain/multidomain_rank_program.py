"""One rank of test_ranks.py: trains an AdaptDHM on its own batches and saves what it has then.

Run: python multidomain_rank_program.py RANK N_RANKS FOLDER
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.tower import MultiDomainConfig
from recsys.table.ranks import Ranks

FEATURES, DIM, ROWS, STEPS, RATE, GROUPS = 4, 5, 24, 25, 0.2, 3


def batch_of(rank, step):
    """(pooled rows, domains, labels) of one rank: rows lie around three means, whichever their domain."""
    random = np.random.default_rng(1_000 * rank + step)
    means = np.random.default_rng(7).normal(size=(GROUPS, FEATURES, 1 + DIM))
    group_B = random.integers(0, GROUPS, ROWS)
    rows = means[group_B] + 0.3 * random.normal(size=(ROWS, FEATURES, 1 + DIM))
    labels = (random.random(ROWS) < 0.2 + 0.3 * group_B).astype(np.float32)
    pooled = torch.tensor(rows, dtype=torch.float32).flatten(1)
    return pooled, torch.tensor(random.integers(0, 3, ROWS)), torch.tensor(labels)


def joined(ranks, step):
    """The batches of several ranks as one."""
    return [torch.cat(parts) for parts in zip(*(batch_of(rank, step) for rank in ranks), strict=True)]


def new_tower(ranks=None):
    # More rows a move than a step brings, so that rows wait; few warm-up moves, so that centres start.
    clusters = ClusterConfig(rows_per_move=3 * ROWS, warm_up_moves=3, rounds=2)
    return MultiDomainConfig(
        n_features=FEATURES,
        vector_dim=DIM,
        domains=FeatureDomains(feature=0, values=(0, 1)),
        domain_feature=0,
        net=AdaptDHMConfig(clusters=clusters, hidden=(8, 6), ranks=ranks),
    ).build()


def trained(tower, model, ranks):
    """The tower's state after all steps; ``model`` is the tower, or what averages its gradients."""
    optimizer = torch.optim.SGD(tower.parameters(), lr=RATE)
    for step in range(STEPS):
        pooled, domains, labels = joined(ranks, step)
        optimizer.zero_grad()
        logits = model(pooled, domains)[:, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
        tower.adapt()
    return {name: value.numpy() for name, value in tower.state_dict().items()}


def main(rank, n_ranks, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=n_ranks
    )
    tower = new_tower(Ranks(distributed.new_group()))
    # Buffers are kept equal by the tower; those that wait for a move are each rank's own.
    replica = nn.parallel.DistributedDataParallel(tower, broadcast_buffers=False)
    np.savez(Path(folder) / f"{rank}.npz", **trained(tower, replica, [rank]))
    distributed.barrier()
    # Not by returning: torch 2.13 may join gloo's thread with the GIL in hand, which that thread waits for.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
