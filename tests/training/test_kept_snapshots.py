"""A kept snapshot can be restored when its owner has dropped all of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import read_manifest, snapshots
from training.checkpoints import CheckpointConfig, Checkpoints, restore_from
from training.promotion.kept_snapshots import KeptSnapshots


@pytest.fixture
def chain(small: Any, tmp_path: Path) -> tuple[list[Path], bytes]:
    """A full snapshot and two increments, and the rows at the last."""
    checkpoints = Checkpoints(CheckpointConfig(folder=tmp_path / "own"))
    learner, metrics = small.learner(), ProgressiveMetrics(60_000)
    paths = []
    for seed in range(3):
        small.learn(learner, seed)
        paths.append(checkpoints.save(small.manifest(examples=seed), learner, metrics))
    checkpoints.close()
    return paths, learner.table.lookup(small.keys(*range(24))).tobytes()


def test_an_increment_is_kept_with_all_that_it_follows(
    small: Any, tmp_path: Path, chain: tuple[list[Path], bytes]
) -> None:
    paths, rows = chain
    kept = KeptSnapshots(tmp_path / "kept").keep(paths[-1], read_manifest(paths[-1]))
    shutil.rmtree(tmp_path / "own")
    learner = small.learner()
    restore_from(kept, learner)
    assert learner.table.lookup(small.keys(*range(24))).tobytes() == rows
    assert [path.name for path in snapshots(kept.parent)] == [path.name for path in paths]


def test_what_is_kept_is_kept_once(tmp_path: Path, chain: tuple[list[Path], bytes]) -> None:
    paths, _ = chain
    keeper = KeptSnapshots(tmp_path / "kept")
    places = [keeper.keep(path, read_manifest(path)) for path in (paths[1], paths[2], paths[2])]
    assert places[1] == places[2]
    assert keeper.keep(places[1], read_manifest(places[1])) == places[1]


def test_an_increment_whose_chain_is_gone_is_not_kept(
    tmp_path: Path, chain: tuple[list[Path], bytes]
) -> None:
    paths, _ = chain
    shutil.rmtree(paths[0])
    with pytest.raises(SnapshotError, match=str(paths[0])):
        KeptSnapshots(tmp_path / "kept").keep(paths[-1], read_manifest(paths[-1]))
    assert not (tmp_path / "kept").exists()
