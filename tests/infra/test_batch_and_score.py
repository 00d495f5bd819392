"""A model from the log up to a day, and a file of later rows through it, as people call them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from feature_store.datasets.kuairand import ROW_COLUMNS
from infra.recipes.kuairand_multidomain import LABELS, kuairand_multidomain
from infra.settings import Settings
from infra.wiring.batch import examples_until, train_batch
from recsys.errors import ConfigError
from recsys.snapshots import read_dense, read_manifest

LOG = "kuairand_pure_standard_0425_0506.parquet"
LAST_LEARNED, FIRST_SCORED = "2022-04-28", 20220429
FEW = 6_000


def headrace(*words: str | Path, state: Path, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cli.app", *map(str, words), "--state-dir", str(state)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={"PATH": "/usr/bin:/bin", "HOME": str(state), "RECSYS_DATA": str(data), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def trained(recsys_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder with a model of the log's first four days."""
    state = tmp_path_factory.mktemp("state")
    said = headrace(
        "train", "batch", "--recipe", "kuairand_multidomain", "--train-until", LAST_LEARNED,
        state=state, data=recsys_data,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return state


@pytest.fixture
def later_rows(recsys_data: Path) -> pa.Table:
    """Rows of the next day in the owner's columns, in no order of time."""
    table = pq.read_table(recsys_data / LOG)
    later = table.filter(pc.equal(table["date"], FIRST_SCORED))
    return later.take(np.random.default_rng(0).permutation(len(later))[:FEW])


@pytest.mark.slow
def test_each_row_gets_a_score_for_each_label_in_the_file_s_order(trained, recsys_data, later_rows, tmp_path):
    file, out = tmp_path / "rows.parquet", tmp_path / "out" / "scores.parquet"
    pq.write_table(later_rows, file)
    said = headrace("score", "--input", file, "--output", out, state=trained, data=recsys_data)
    assert said.returncode == 0, said.stderr
    scores = pq.read_table(out)
    assert scores.column_names == [*ROW_COLUMNS, *LABELS]
    for name in ROW_COLUMNS:
        assert scores[name].to_pylist() == later_rows[name].to_pylist()
    for label, least in zip(LABELS, (0.70, 0.70, 0.70), strict=True):
        assert roc_auc_score(later_rows[label].to_numpy(), scores[label].to_numpy()) > least, label


@pytest.mark.slow
def test_a_csv_without_labels_with_strangers_and_an_unseen_tab_is_scored(
    trained, recsys_data, later_rows, tmp_path
):
    few = later_rows.slice(0, 3).select(list(ROW_COLUMNS)).to_pydict()
    few["user_id"][0], few["video_id"][1], few["tab"][2] = 9_999_999, 8_888_888, 77
    file, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    pa_csv.write_csv(pa.table(few), file)
    said = headrace("score", "--input", file, "--output", out, state=trained, data=recsys_data)
    assert said.returncode == 0, said.stderr
    scores = pa_csv.read_csv(out)
    assert scores["tab"].to_pylist() == few["tab"]
    for label in LABELS:
        assert all(0.0 < p < 1.0 for p in scores[label].to_pylist())


@pytest.mark.slow
def test_a_file_that_lacks_a_column_is_refused_in_one_line_and_nothing_is_written(
    trained, recsys_data, later_rows, tmp_path
):
    file, out = tmp_path / "rows.parquet", tmp_path / "scores.parquet"
    pq.write_table(later_rows.drop_columns(["tab"]), file)
    said = headrace("score", "--input", file, "--output", out, state=trained, data=recsys_data)
    assert said.returncode == 2
    assert "want the columns tab; got" in said.stderr
    assert said.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_scoring_before_training_says_what_to_run(recsys_data, tmp_path):
    said = headrace(
        "score", "--input", tmp_path / "x.parquet", "--output", tmp_path / "y.parquet",
        state=tmp_path, data=recsys_data,
    )  # fmt: skip
    assert said.returncode == 2
    assert "run `headrace train batch` first" in said.stderr


def test_a_day_is_learned_to_its_end_by_the_log_s_own_clock_and_no_further(recsys_data):
    recipe = kuairand_multidomain()
    dataset = recipe.load(recsys_data, Settings())
    examples = examples_until(recipe, dataset, date(2022, 4, 28))
    table = pq.read_table(recsys_data / LOG)
    end_ms = datetime(2022, 4, 28, 16, tzinfo=UTC).timestamp() * 1000
    rows = table.filter(pc.less(table["time_ms"], end_ms))
    said = zip(*(rows[name].to_pylist() for name in ROW_COLUMNS), strict=True)
    assert len(examples) == len(set(said))
    assert examples.event_time_ms_B.max() < end_ms
    assert examples.label_names == LABELS
    with pytest.raises(
        ConfigError, match="no examples until 2022-04-23: the log of kuairand begins 2022-04-24"
    ):
        examples_until(recipe, dataset, date(2022, 4, 23))


def test_equal_trainings_give_equal_bits_and_models_of_their_own(recsys_data, tmp_path):
    recipe = kuairand_multidomain()
    dataset = recipe.load(recsys_data, Settings())
    few = examples_until(recipe, dataset, date(2022, 4, 25)).take(np.arange(2_000))
    told: list[int] = []
    first, second = (train_batch(recipe, few, tmp_path / "models", progress=told.append) for _ in range(2))
    assert sum(told) == 2 * len(few)
    assert first.metrics == second.metrics
    assert first.snapshot != second.snapshot
    manifests = [read_manifest(one.snapshot) for one in (first, second)]
    assert manifests[0].model != manifests[1].model
    mine, others = (
        read_dense(one.snapshot, manifest) for one, manifest in zip((first, second), manifests, strict=True)
    )
    assert all(np.array_equal(value, others[name]) for name, value in mine.items())
