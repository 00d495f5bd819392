"""A server loads the alias that it is told and swaps when the alias moves, without a restart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from infra.child_process import free_port
from infra.demo.processes import Family
from infra.recipes.movielens import movielens
from infra.settings import Settings
from infra.wiring.recipes import build_registry
from infra.wiring.trainer import build_learner
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.features import RaggedKeys
from recsys.snapshots import Manifest, write_snapshot
from serving.proto import recommender_pb2 as wire
from serving.proto import recommender_pb2_grpc

RECIPE = movielens()


def snapshot(folder: Path, model: str, label: float) -> Path:
    """A model that has learned one thing: that everything is ``label``."""
    learner = build_learner(RECIPE)
    n_features = len(RECIPE.schema.features)
    rng = np.random.default_rng(0)
    for _ in range(20):
        keys_T = rng.integers(1, 50, 32 * n_features).astype(np.uint64)
        keys = RaggedKeys(keys_T, np.ones((32, n_features), np.uint8))
        learner.step(keys, np.full(32, label, np.float32), event_time_s=1)
    manifest = Manifest(
        model=model,
        incarnation=1,
        table_sequence=0,
        dense_sequence=0,
        delta_position=0,
        as_of_ms=1,
        examples=640,
        source_offsets={},
        marks={},
        recipe=RECIPE.name,
        schema_fingerprint=RECIPE.schema.fingerprint,
    )
    metrics = ProgressiveMetrics(60_000).state()
    return write_snapshot(folder / model, manifest, learner.table, learner.dense_state(), metrics)


def headrace(*words: str, state: Path) -> str:
    """What one verb prints; fails with its error line."""
    command = [sys.executable, "-m", "infra.cli.app", *words]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"HEADRACE_STATE_DIR": str(state), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
def test_the_server_follows_the_champion(
    family: Family, tmp_path: Path, made_up_movielens: Path, until: Callable[..., None]
) -> None:
    state = tmp_path / "state"
    registry = build_registry(Settings(state_dir=state))
    for model, label in (("pessimist", 0.0), ("optimist", 1.0)):
        registry.register("films", snapshot(tmp_path, model, label), {"auc": 0.5})
    assert "films@champion now names version 1" in headrace("promote", "films", "1", state=state)

    address = f"127.0.0.1:{free_port()}"
    where = ["--address", address, "--data-dir", str(made_up_movielens), "--state-dir", str(state)]
    family.start("serve", ["serve", "--recipe", RECIPE.name, "--model", "films@champion", *where])
    with grpc.insecure_channel(address) as channel:
        stub = recommender_pb2_grpc.RecommenderStub(channel)
        request = wire.RankRequest(user_id=1, item_ids=[1, 2, 3], shadow=True)

        def served_by(model: str) -> bool:
            try:
                answer = stub.Rank(request, timeout=2.0)
            except grpc.RpcError:
                return False
            return bool(answer.model_version == f"{model}.1")

        until("version 1 to be served", lambda: served_by("pessimist"), family=family)
        before = max(stub.Rank(request, timeout=2.0).scores)
        assert "(before: version 1)" in headrace("promote", "films", state=state)
        until("version 2 to be served", lambda: served_by("optimist"), family=family)
        assert min(stub.Rank(request, timeout=2.0).scores) > before
