"""The registry over a real MLflow on SQLite: versions, aliases, gates, and snapshots that stay."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import pytest
from mlflow import MlflowClient

from recsys.errors import SnapshotError
from recsys.snapshots import MANIFEST, Manifest, write_manifest
from training.errors import PromotionRefused, TrainingError
from training.promotion.gate import GateConfig
from training.promotion.mlflow_registry import ModelRegistry

# MLflow 3.17 uses a loader that SQLAlchemy 2.1 is to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

GOOD = {"examples": 5000.0, "auc": 0.75, "log_loss": 0.5, "calibration": 1.0}
GATE = GateConfig(min_examples=1000)
NUMBERS = count()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry") / "not-there-yet"


@pytest.fixture(scope="module")
def registry(home: Path) -> ModelRegistry:
    return ModelRegistry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")


@pytest.fixture
def name() -> str:
    """A model name of its own for each test: building a database takes seconds."""
    return f"ranker-{next(NUMBERS)}"


def snapshot_in(folder: Path, *, model: str, examples: int = 10, rows: bytes = b"rows") -> Path:
    """A folder laid out like a snapshot; what its files hold is no business of the registry."""
    path = folder / f"snapshot-0001-{examples:012d}"
    (path / "rows").mkdir(parents=True)
    (path / "rows" / "rows-00000-of-00001.arrow").write_bytes(rows)
    write_manifest(path, manifest_of(model, examples, len(rows)))
    return path


def manifest_of(model: str, examples: int, checksum: int = 0) -> Manifest:
    return Manifest(
        model=model,
        incarnation=1,
        table_sequence=0,
        dense_sequence=0,
        delta_position=0,
        as_of_ms=0,
        examples=examples,
        source_offsets={},
        marks={},
        recipe="movielens",
        schema_fingerprint=1,
        checksums={"rows": checksum},
    )


def test_versions_count_up_and_the_alias_names_the_newest_unless_told_otherwise(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    paths = [snapshot_in(tmp_path, model=name, examples=n) for n in (10, 20)]
    assert [registry.register(name, path, GOOD) for path in paths] == [1, 2]

    first = registry.promote(name)
    assert (first.version, first.previous, first.snapshot.name) == (2, None, paths[1].name)
    second = registry.promote(name, 1)
    assert (second.version, second.previous, second.snapshot.name) == (1, 2, paths[0].name)
    assert registry.resolve(name) == (name, second.snapshot)


def test_a_registered_snapshot_outlives_the_trainers_copy(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    path = snapshot_in(tmp_path, model=name, rows=b"learned")
    registry.register(name, path, GOOD)
    shutil.rmtree(path)
    kept = registry.promote(name).snapshot
    assert (kept / "rows" / "rows-00000-of-00001.arrow").read_bytes() == b"learned"


def test_an_alias_that_names_nothing_resolves_to_nothing(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    assert registry.resolve(name) is None
    registry.register(name, snapshot_in(tmp_path, model=name), GOOD)
    assert registry.resolve(name, "champion") is None


def test_another_thread_sees_the_alias_move(registry: ModelRegistry, tmp_path: Path, name: str) -> None:
    for n in (10, 20):
        registry.register(name, snapshot_in(tmp_path, model=f"{name}-{n}", examples=n), GOOD)
    seen = []
    for version in (1, 2):
        registry.promote(name, version)
        thread = threading.Thread(target=lambda: seen.append(registry.resolve(name)))
        thread.start()
        thread.join()
    assert [found[0] for found in seen if found] == [f"{name}-10", f"{name}-20"]


def test_the_gate_judges_the_candidate_against_the_holder_of_the_alias(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    figures = [GOOD, {**GOOD, "log_loss": 0.6}, {**GOOD, "log_loss": 0.4}]
    for n, metrics in enumerate(figures):
        registry.register(name, snapshot_in(tmp_path, model=name, examples=n), metrics)
    registry.promote(name, 1, gate=GATE)
    with pytest.raises(PromotionRefused, match=r"version 2 may not become 'champion': its log loss is 0\.6"):
        registry.promote(name, 2, gate=GATE)
    assert registry.promote(name, 3, gate=GATE).previous == 1


def test_what_is_not_registered_cannot_be_promoted(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    with pytest.raises(PromotionRefused, match="has no version; register a snapshot"):
        registry.promote(name)
    registry.register(name, snapshot_in(tmp_path, model=name), GOOD)
    with pytest.raises(PromotionRefused, match="has no version 7"):
        registry.promote(name, 7)


def test_a_version_whose_snapshot_is_gone_leaves_the_alias_where_it_is(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    for n in (10, 20):
        registry.register(name, snapshot_in(tmp_path, model=name, examples=n), GOOD)
    registry.promote(name, 1)
    gone = registry.promote(name, 2).snapshot
    registry.promote(name, 1)
    shutil.rmtree(gone)
    with pytest.raises(SnapshotError, match="no usable manifest"):
        registry.promote(name, 2)
    assert registry.resolve(name) == (name, gone.with_name("snapshot-0001-000000000010"))


def test_a_version_that_names_no_snapshot_is_refused(registry: ModelRegistry, home: Path, name: str) -> None:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    client.create_registered_model(name)
    client.create_model_version(name, source=home.as_uri())
    with pytest.raises(PromotionRefused, match="names no snapshot of ours"):
        registry.promote(name)


def test_another_snapshot_of_the_same_model_and_name_is_refused(
    registry: ModelRegistry, tmp_path: Path, name: str
) -> None:
    registry.register(name, snapshot_in(tmp_path / "a", model=name), GOOD)
    with pytest.raises(SnapshotError, match="is another snapshot"):
        registry.register(name, snapshot_in(tmp_path / "b", model=name, rows=b"other"), GOOD)


def test_a_run_keeps_parameters_metrics_over_time_and_the_manifest(
    registry: ModelRegistry, home: Path, tmp_path: Path, name: str
) -> None:
    path = snapshot_in(tmp_path, model=name)
    with registry.start_run("movielens", {"micro_batch": 64}) as run:
        run.log_metrics({"auc": 0.5, "calibration": float("nan")}, step=64)
        run.log_metrics({"auc": 0.7}, step=128)
        run.log_snapshot(path, manifest_of(name, 10))

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    recorded = client.get_run(run.run_id)
    assert (recorded.info.status, recorded.data.params) == ("FINISHED", {"micro_batch": "64"})
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "auc")] == [
        (64, 0.5),
        (128, 0.7),
    ]
    manifest = client.download_artifacts(run.run_id, f"snapshots/{path.name}/{MANIFEST}", str(tmp_path))
    assert json.loads(Path(manifest).read_text())["model"] == name
    assert recorded.data.tags["headrace.snapshot"] == str(path)


def test_a_run_that_raises_is_recorded_as_failed(registry: ModelRegistry, home: Path) -> None:
    with pytest.raises(ZeroDivisionError), registry.start_run("movielens", {}) as run:
        raise ZeroDivisionError
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert client.get_run(run.run_id).info.status == "FAILED"


def test_a_registry_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="MLflow answered"):
        ModelRegistry("no-such-scheme://host", tmp_path).resolve("ranker")


def test_a_new_registry_prints_nothing(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from training.promotion.mlflow_registry import ModelRegistry\n"
        f"ModelRegistry('sqlite:///{tmp_path}/mlflow.db', Path('{tmp_path}')).resolve('ranker')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]
