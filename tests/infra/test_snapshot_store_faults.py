"""What a store's client may do to us: errors of its own, an address with a password, a slow listing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.model_sources import UrlSource
from infra.snapshot_mirror import SnapshotMirror
from infra.snapshot_store import SnapshotStore
from recsys.errors import ConfigError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import chain_of, read_manifest, snapshots
from training.checkpoints import CheckpointConfig, Checkpoints

WORDS = st.text("abcXYZ019%:@!$-._~", min_size=12, max_size=16)


class HttpError(Exception):
    """What a client raises that knows no OSError."""


@pytest.mark.parametrize("call", ["names", "manifest", "put", "fetch", "drop"])
def test_whatever_a_client_raises_is_a_snapshot_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise HttpError("503 of http://user:hunter2@host/bucket")

    store = SnapshotStore(f"file://{tmp_path}/store")
    for name in ("glob", "cat_file", "makedirs", "rm_file"):
        monkeypatch.setattr(store._files, name, fail)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(b"")
    arguments = {"names": (), "put": (tmp_path / "one",), "fetch": ("one", tmp_path)}
    with pytest.raises(SnapshotError, match=r"could not be .*: 503 of http://\*\*\*@host/bucket; check"):
        getattr(store, call)(*arguments.get(call, ("one",)))


@given(WORDS)
@example("hunter2@hunter2")
def test_no_message_holds_the_password_of_an_address(password: str) -> None:
    url = f"moon://user:{password}@host/bucket"
    with pytest.raises(ConfigError) as refused:
        SnapshotStore(url)
    assert password not in str(refused.value)
    assert "moon://***@host/bucket" in str(refused.value)


def test_a_store_out_of_reach_is_named_without_its_password() -> None:
    store = SnapshotStore("http://user:hunter2@127.0.0.1:9/bucket")
    for call in (store.names, lambda: store.manifest("one")):
        with pytest.raises(SnapshotError, match="http://") as failed:
            call()
        assert "hunter2" not in str(failed.value)
    assert store.url == "http://***@127.0.0.1:9/bucket"


def test_what_killed_servers_left_is_cleared_at_the_start_and_a_fetch_that_goes_on_is_not(
    tmp_path: Path,
) -> None:
    def fetched(pid: int, age_s: float) -> Path:
        folder = tmp_path / "cache" / f".snapshot-0001-000000000001.{pid}"
        (folder / "rows").mkdir(parents=True)
        for path in (folder / "rows" / "part", folder / "rows", folder):
            path.touch()
            os.utime(path, (time.time() - age_s,) * 2)
        return folder

    old, young, growing = fetched(1, age_s=86_400), fetched(2, age_s=60), fetched(3, age_s=86_400)
    (growing / "rows" / "part").touch()
    assert UrlSource(SnapshotStore(f"file://{tmp_path}/store"), tmp_path / "cache").model() is None
    assert [path.is_dir() for path in (old, young, growing)] == [False, True, True]


def test_a_mirror_lists_its_store_once_however_long_the_chain_is(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(CheckpointConfig(folder=tmp_path / "own", keep=9))
    learner, metrics = small.learner(), ProgressiveMetrics(60_000)
    for seed in range(5):
        small.learn(learner, seed)
        path = checkpoints.save(small.manifest(examples=seed), learner, metrics)
    assert len(chain_of(path)) == 5
    store, listings = SnapshotStore(f"file://{tmp_path}/store"), []
    glob = store._files.glob

    def counted(pattern: str) -> Any:
        listings.append(pattern)
        return glob(pattern)

    monkeypatch.setattr(store._files, "glob", counted)
    mirror = SnapshotMirror(store, tmp_path / "own")
    mirror.snapshot_written(path, read_manifest(path))
    mirror.start()
    mirror.close()
    assert len(listings) == 1
    assert store.names() == [one.name for one in snapshots(tmp_path / "own")]
