"""Snapshots reach a store in the background and come back from it byte for byte, or not at all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from infra.model_sources import UrlSource
from infra.snapshot_mirror import SnapshotMirror
from infra.snapshot_store import SnapshotStore, fetch_newer
from recsys.errors import ConfigError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import chain_of, read_manifest, snapshots
from training.checkpoints import CheckpointConfig, Checkpoints


class Run:
    """A learner that is saved as it learns."""

    def __init__(self, small: Any, folder: Path) -> None:
        self.small, self.folder = small, folder
        self.checkpoints = Checkpoints(CheckpointConfig(folder=folder, keep=2))
        self.learner, self.metrics = small.learner(), ProgressiveMetrics(60_000)
        self.seeds = 0

    def save(self, *, full: bool = False, **changes: Any) -> Path:
        self.small.learn(self.learner, self.seeds)
        self.seeds += 1
        manifest = self.small.manifest(examples=self.seeds, table_sequence=self.seeds, **changes)
        return self.checkpoints.save(manifest, self.learner, self.metrics, full=full)

    def bits(self) -> dict[str, bytes]:
        bits: dict[str, bytes] = self.small.bits_of(self.learner, self.metrics)
        return bits


def restored(small: Any, folder: Path) -> dict[str, bytes]:
    learner, metrics = small.learner(), ProgressiveMetrics(60_000)
    assert Checkpoints(CheckpointConfig(folder=folder)).restore(learner, metrics) is not None
    bits: dict[str, bytes] = small.bits_of(learner, metrics)
    return bits


@pytest.fixture
def run(small: Any, tmp_path: Path) -> Run:
    return Run(small, tmp_path / "own")


@pytest.fixture
def memory() -> Iterator[str]:
    """URL of an empty folder in this process's memory."""
    yield "memory://bucket/store"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a bucket on an S3 server of this process, which the environment leads to."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "any")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture
def s3(bucket: str, tmp_path: Path) -> str:
    """URL of an empty folder there."""
    return f"{bucket}/{tmp_path.name}"


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    url = f"file://{tmp_path}/store" if request.param == "file" else request.getfixturevalue(request.param)
    return SnapshotStore(url)


def put_all(store: SnapshotStore, folder: Path) -> None:
    for path in snapshots(folder):
        store.put(path)


def until(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def damage(store: SnapshotStore, name: str) -> None:
    files, _, (root,) = fsspec.get_fs_token_paths(store.url)
    files.pipe_file(f"{root}/{name}/rows/rows-00000-of-00001.arrow", b"noise")


def test_a_snapshot_comes_back_with_its_chain_byte_for_byte(
    small: Any, run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    for _ in range(3):
        run.save()
    put_all(store, run.folder)
    assert fetch_newer(store, tmp_path / "new") == 1
    assert [path.name for path in snapshots(tmp_path / "new")] == store.names()
    assert restored(small, tmp_path / "new") == run.bits()


def test_a_snapshot_without_its_manifest_is_not_there(run: Run, store: SnapshotStore) -> None:
    path = run.save()
    (path / "manifest.json").rename(path / "manifest.later")
    store.put(path)
    assert store.names() == []


def test_an_older_local_snapshot_gives_way_to_the_stores_and_a_newer_one_does_not(
    small: Any, run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    run.save()
    shutil.copytree(run.folder, tmp_path / "old")
    run.save()
    put_all(store, run.folder)
    bits = run.bits()
    fetch_newer(store, tmp_path / "old")
    assert restored(small, tmp_path / "old") == bits
    newer = run.save()
    fetch_newer(store, run.folder)
    assert snapshots(run.folder)[-1] == newer


def test_a_damaged_newest_in_the_store_gives_way_to_the_one_before_it(
    small: Any, run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    run.save(full=True)
    bits = run.bits()
    newest = run.save(full=True, incarnation=4)
    put_all(store, run.folder)
    damage(store, newest.name)
    assert fetch_newer(store, tmp_path / "new") == 4, "start 4 was published: the next must be 5"
    assert restored(small, tmp_path / "new") == bits
    assert [path.name for path in (tmp_path / "new").iterdir()] == store.names()[:1]


def test_where_everything_is_damaged_the_model_is_not_silently_forgotten(
    run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    path = run.save()
    store.put(path)
    damage(store, path.name)
    with pytest.raises(SnapshotError, match="none of 1 snapshots can be read"):
        fetch_newer(store, tmp_path / "new")


def test_another_model_in_the_store_is_refused(
    small: Any, run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    run.save()
    put_all(store, run.folder)
    other = Run(small, tmp_path / "other")
    other.save(model="small-2")
    with pytest.raises(ConfigError, match="holds snapshots of 'small-1'"):
        fetch_newer(store, other.folder)


def test_a_store_out_of_reach_is_an_error_only_where_nothing_else_is_known(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(f"file://{tmp_path}/store")

    def glob(*_: Any, **__: Any) -> list[str]:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(store._files, "glob", glob)
    with pytest.raises(SnapshotError, match="could not be listed: no route to host"):
        fetch_newer(store, tmp_path / "new")
    run.save()
    assert fetch_newer(store, run.folder) == 0


def test_a_url_that_nobody_knows_is_refused_when_it_is_named() -> None:
    with pytest.raises(ConfigError, match="snapshots cannot be kept at moon://x"):
        SnapshotStore("moon://x")


def test_a_mirror_holds_what_the_folder_keeps_and_nothing_older(
    small: Any, run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    mirror = SnapshotMirror(store, run.folder)
    mirror.start()
    for number in range(8):
        path = run.save(full=number % 3 == 0)
        mirror.snapshot_written(path, read_manifest(path))
        until(lambda path=path: mirror.mirrored == path.name)
    mirror.close()
    assert set(store.names()) == {one.name for one in snapshots(run.folder)}
    assert mirror.failures == 0
    fetch_newer(store, tmp_path / "new")
    assert restored(small, tmp_path / "new") == run.bits()


def test_a_mirror_that_fails_is_counted_and_the_next_snapshot_brings_it_up_to_date(
    small: Any, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").write_bytes(b"a file where a folder should be")
    mirror = SnapshotMirror(SnapshotStore(f"file://{tmp_path}/store"), run.folder)
    mirror.start()
    first = run.save()
    mirror.snapshot_written(first, read_manifest(first))
    until(lambda: mirror.failures == 1)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "snapshot_not_mirrored"
    ]
    (tmp_path / "store").unlink()
    second = run.save()
    mirror.snapshot_written(second, read_manifest(second))
    mirror.close()
    assert mirror.mirrored == second.name
    fetch_newer(SnapshotStore(f"file://{tmp_path}/store"), tmp_path / "new")
    assert restored(small, tmp_path / "new") == run.bits()


def test_a_mirror_that_is_closed_copies_the_last_snapshot_first(run: Run, store: SnapshotStore) -> None:
    mirror, path = SnapshotMirror(store, run.folder), run.save()
    mirror.snapshot_written(path, read_manifest(path))
    mirror.start()
    mirror.close()
    assert store.names() == [path.name]


def test_a_server_elsewhere_is_brought_each_newer_snapshot_and_keeps_few(
    run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    now_s = 0.0
    source = UrlSource(store, tmp_path / "cache", clock_s=lambda: now_s)
    assert source.model() is None
    for _ in range(6):
        newest = run.save(full=True)
        put_all(store, run.folder)
        now_s += 5.0
        assert source.model() == "small-1"
        assert source.candidates("small-1")[0].name == newest.name
        assert len(snapshots(tmp_path / "cache")) <= 3
    run.save()
    put_all(store, run.folder)
    assert source.candidates("small-1")[0].name == newest.name, "it looks once a period"
    now_s += 5.0
    increment = source.candidates("small-1")[0]
    assert [path.name for path in chain_of(increment)] == [newest.name, increment.name]


def test_a_server_elsewhere_follows_a_store_to_another_model(
    small: Any, run: Run, store: SnapshotStore, tmp_path: Path
) -> None:
    now_s = 0.0
    source = UrlSource(store, tmp_path / "cache", clock_s=lambda: now_s)
    old = run.save(incarnation=7)
    store.put(old)
    assert source.model() == "small-1"
    store.drop(old.name)
    other = Run(small, tmp_path / "other")
    newest = other.save(model="small-2")
    store.put(newest)
    now_s += 5.0
    assert source.model() == "small-2"
    assert [path.name for path in source.candidates("small-2")] == [newest.name]
    assert source.candidates("small-1") == []
