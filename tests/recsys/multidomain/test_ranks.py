"""Two processes that train one AdaptDHM together, against one process with all their examples."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("multidomain_rank_program.py")
program = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
N_RANKS, ROUNDING = 2, 1e-4
OF_EACH_RANK = ("learning_rows_RD", "learning_n_rows")
"""Rows that wait for the next move: each rank holds its own."""


@pytest.fixture(scope="module")
def states_of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "ignore", str(PROGRAM)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(N_RANKS), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(N_RANKS)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=240)
        assert rank.returncode == 0, said
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(N_RANKS)]


def shared(state):
    return {name: value for name, value in state.items() if not name.endswith(OF_EACH_RANK)}


@pytest.mark.slow
def test_all_ranks_hold_the_same_centres_and_weights_bit_for_bit(states_of_ranks):
    first, second = map(shared, states_of_ranks)
    assert "net.clusters.centres_KD" in first
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name


@pytest.mark.slow
def test_ranks_together_learn_what_one_process_learns_of_their_joined_batches(states_of_ranks):
    tower = program.new_tower()
    alone = program.trained(tower, tower, range(N_RANKS))
    together = shared(states_of_ranks[0])
    for name in together:
        np.testing.assert_allclose(together[name], alone[name], atol=ROUNDING, err_msg=name)
    start = program.new_tower().state_dict()["net.clusters.centres_KD"].numpy()
    assert np.abs(alone["net.clusters.centres_KD"] - start).max() > 0.1
    assert alone["net.clusters.usage_K"].min() > 0.2


@pytest.mark.slow
def test_rows_that_wait_on_all_ranks_are_those_that_wait_in_one_process(states_of_ranks):
    tower = program.new_tower()
    alone = program.trained(tower, tower, range(N_RANKS))
    n_waiting = [int(state["net.clusters.learning_n_rows"][0]) for state in states_of_ranks]
    assert sum(n_waiting) == int(alone["net.clusters.learning_n_rows"][0]) > 0
