"""The demo itself, on a small made-up log in MovieLens's own layout: the whole circle in one go."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from infra.demo.report import DemoReport, on_screen
from infra.demo.run import Demo, DemoConfig
from infra.recipes.kuairand_multidomain import kuairand_multidomain
from infra.recipes.movielens import movielens
from infra.settings import Settings
from recsys.snapshots import read_manifest, snapshots

EVENTS = 8_000
KEYS_OF_THE_REPORT = [
    "events",
    "wall_s",
    "events_per_s",
    "stage_share",
    "online_auc",
    "online_auc_second_half",
    "frozen_auc",
    "log_loss",
    "normalized_entropy",
    "calibration",
    "staleness_ms",
    "rank_ms",
    "rows",
    "distinct_admitted_keys",
    "row_mismatches",
    "bytes_per_row",
    "versions",
]


def test_what_is_learned_is_what_is_served_and_every_figure_is_there(
    made_up_movielens: Path, tmp_path: Path
) -> None:
    recipe = movielens()
    dataset = recipe.load(made_up_movielens, Settings())
    config = DemoConfig(folder=tmp_path / "demo", data_dir=made_up_movielens, events=EVENTS)
    console = Console(file=(tmp_path / "screen").open("w"), width=100)
    report = Demo(recipe, dataset, config, console, time.perf_counter()).run()

    assert report.row_mismatches == 0
    assert report.rows == report.distinct_admitted_keys > EVENTS / 10
    # Whoever knows a user's kind gets about 0.85; a constant gets 0.5.
    assert report.online_auc_second_half > 0.7
    assert report.events == EVENTS
    assert report.rank_ms.count > 0
    assert sum(report.stage_share.values()) == pytest.approx(1.0, abs=0.01)
    report.write(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert list(written) == KEYS_OF_THE_REPORT
    assert DemoReport.model_validate(written) == report
    console.print(on_screen(report, recipe.title))
    console.file.close()
    assert "AUC, predicted first" in (tmp_path / "screen").read_text()


@pytest.mark.slow
def test_a_model_of_several_domains_and_labels_goes_round_the_loop_too(
    recsys_data: Path, tmp_path: Path
) -> None:
    recipe = kuairand_multidomain()
    config = DemoConfig(folder=tmp_path / "demo", data_dir=recsys_data, events=EVENTS)
    console = Console(file=(tmp_path / "screen").open("w"), width=100)
    dataset = recipe.load(recsys_data, Settings())
    report = Demo(recipe, dataset, config, console, time.perf_counter()).run()
    console.file.close()

    assert report.row_mismatches == 0
    assert report.rows == report.distinct_admitted_keys > EVENTS / 10
    # A constant gets 0.5; 8,000 rows are enough to know tabs and durations.
    assert report.online_auc_second_half > 0.63
    assert report.calibration == pytest.approx(1.0, abs=0.1)
    # Statements of three labels, of which each showing is learned once.
    folder = config.folder / "state" / recipe.name / "snapshots"
    assert read_manifest(snapshots(folder)[-1]).examples > EVENTS
