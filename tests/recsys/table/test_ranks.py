"""Two processes under DistributedDataParallel against one process of plain torch with all their examples."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

PROGRAM = Path(__file__).with_name("rank_program.py")
program = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
N_RANKS, ROUNDING = 2, 1e-5


def ranks_that_trained(folder, how):
    command = [sys.executable, "-W", "ignore", str(PROGRAM)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(N_RANKS), str(folder), how], stderr=subprocess.PIPE, text=True
        )
        for rank in range(N_RANKS)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=240)
        assert rank.returncode == 0, said
    return [dict(np.load(folder / f"{how}{rank}.npz")) for rank in range(N_RANKS)]


def torch_rows(ranks_of_replica):
    """Rows of each replica, which learn from the mean over its ranks; all replicas share dense weights."""
    rows = [torch.nn.Parameter(torch.tensor(program.start_rows())) for _ in ranks_of_replica]
    dense = program.start_dense()
    optimizer = torch.optim.SGD([*rows, *dense.parameters()], lr=program.RATE)
    for step in range(program.N_STEPS):
        optimizer.zero_grad()
        for replica, ranks in zip(rows, ranks_of_replica, strict=True):
            for rank in ranks:
                pooled = torch.cat(pooled_by_torch(replica, program.bags_of(rank, step)), dim=1)
                # The table learns from its own ranks' mean, the dense weights from that of all ranks.
                (dense(pooled).mean() / len(ranks)).backward()
        for weight in dense.parameters():
            weight.grad /= len(ranks_of_replica)
        optimizer.step()
    return [replica.detach().numpy() for replica in rows]


def pooled_by_torch(rows, bags):
    halves = bags[: len(bags) // 2], bags[len(bags) // 2 :]
    return [
        torch.nn.functional.embedding_bag(
            torch.tensor([i for bag in half for i in bag], dtype=torch.int64),
            rows,
            torch.tensor(np.cumsum([0, *map(len, half[:-1])])),
            mode=mode,
        )
        for half, mode in zip(halves, ("sum", "mean"), strict=True)
    ]


@pytest.mark.slow
def test_tables_that_learn_from_all_ranks_stay_equal_bit_for_bit(tmp_path):
    first, second = ranks_that_trained(tmp_path, "shared")
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name
    (want,) = torch_rows([range(N_RANKS)])
    np.testing.assert_allclose(first["after_steps"], want, atol=ROUNDING)
    counts = np.zeros(len(want))
    for rank in range(N_RANKS):
        np.add.at(counts, [i for bag in program.bags_of(rank, program.N_STEPS) for i in bag], 1)
    np.testing.assert_allclose(
        first["rows"], first["after_steps"] - program.RATE / N_RANKS * counts[:, None], atol=ROUNDING
    )
    assert first["last_seen"].max() == 99


@pytest.mark.slow
def test_tables_of_their_own_learn_only_from_their_ranks_examples_beside_shared_dense_weights(tmp_path):
    trained = ranks_that_trained(tmp_path, "local")
    for got, want in zip(trained, torch_rows([[rank] for rank in range(N_RANKS)]), strict=True):
        np.testing.assert_allclose(got["after_steps"], want, atol=ROUNDING)
    for name in ("dense.dense.weight", "dense.dense.bias"):
        assert trained[0][name].tobytes() == trained[1][name].tobytes()
    assert not np.allclose(trained[0]["after_steps"], trained[1]["after_steps"])
