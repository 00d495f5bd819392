"""Trials are run once each, kept as they end, and the same from one seed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from infra.multidomain.arms import MODELS, SWEPT
from infra.multidomain.compare import CompareConfig, Compared, compare, models_for
from infra.multidomain.costs import contender
from infra.multidomain.data import Comparison, DataSource
from infra.multidomain.trial import Trial, TrialConfig, run_trial
from infra.settings import Settings
from recsys.errors import ConfigError

ONCE = TrialConfig(epochs=1, batch=64)
CONFIG = CompareConfig(models=("single", "adapt_dhm"), seeds=2, training=ONCE)


def outcome(trial: Trial) -> dict[str, object]:
    """All of a trial but what a clock said."""
    return {name: value for name, value in asdict(trial).items() if name != "step_ms"}


def outcomes(compared: list[Compared]) -> dict[str, list[dict[str, object]]]:
    return {arm: [outcome(trial) for trial in own] for one in compared for arm, own in one.trials.items()}


def when_written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


@pytest.mark.parametrize("model", ["adapt_dhm", "star", "m2m"])
def test_a_seed_gives_the_same_scores_each_time_and_another_seed_others(tiny: Comparison, model: str) -> None:
    chosen = contender(model, tiny.tower, tiny.hidden, at_equal_cost=False)
    first, again, other = (run_trial(tiny, chosen, seed=seed, training=ONCE) for seed in (3, 3, 4))
    assert outcome(first) == outcome(again)
    assert first.scores != other.scores


def test_a_comparison_that_is_ended_goes_on_and_runs_no_trial_twice(
    source: DataSource, tmp_path: Path
) -> None:
    def killed_after_one(done: int, of: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare([source], CONFIG, tmp_path / "killed", killed_after_one)
    (kept,) = when_written(tmp_path / "killed").items()
    said: list[tuple[int, int, str]] = []
    resumed = compare([source], CONFIG, tmp_path / "killed", lambda *words: said.append(words))
    assert kept in when_written(tmp_path / "killed").items()
    assert [(done, of) for done, of, _ in said] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert outcomes(resumed) == outcomes(compare([source], CONFIG, tmp_path / "whole"))


def test_trials_of_other_settings_and_those_asked_for_afresh_are_run_again(
    source: DataSource, tmp_path: Path
) -> None:
    one = replace(CONFIG, models=("single",), seeds=1)
    compare([source], one, tmp_path)
    before = when_written(tmp_path)
    compare([source], one, tmp_path)
    assert when_written(tmp_path) == before
    (trial,) = compare([source], replace(one, training=replace(ONCE, epochs=2)), tmp_path)[0].trials["single"]
    assert len(trial.valid_auc) == 2
    other = when_written(tmp_path)
    assert other != before
    compare([source], replace(one, training=replace(ONCE, epochs=2)), tmp_path, is_fresh=True)
    assert when_written(tmp_path) != other


@pytest.mark.slow
def test_two_processes_give_what_one_gives(source: DataSource, tmp_path: Path) -> None:
    alone = compare([source], CONFIG, tmp_path / "alone")
    both = compare([source], replace(CONFIG, jobs=2), tmp_path / "both")
    assert outcomes(both) == outcomes(alone)


def test_what_is_kept_reads_back_also_where_a_score_is_not_defined(
    tmp_path: Path, source: DataSource
) -> None:
    few = replace(source, rows=100)
    one = replace(CONFIG, seeds=1)
    ran, kept = compare([few], one, tmp_path), compare([few], one, tmp_path)
    assert str(outcomes(ran)) == str(outcomes(kept))


def test_by_default_a_data_set_gets_the_models_that_it_has_features_for(tiny: Comparison) -> None:
    config = CompareConfig(training=ONCE)
    assert set(MODELS) - set(models_for(tiny, config)) == {"pepnet"}
    assert set(models_for(replace(tiny, user_N=tiny.domain_N), config)) == set(MODELS)
    swept = models_for(tiny, replace(config, has_sweeps=True))
    assert set(swept) == (set(MODELS) | set(SWEPT)) - {"pepnet"}
    assert len(swept) == len(set(swept))
    assert not set(SWEPT) & set(models_for(replace(tiny, name="syn"), replace(config, has_sweeps=True)))


def test_a_model_without_its_features_is_refused_where_it_is_asked_for(tiny: Comparison) -> None:
    with pytest.raises(ConfigError, match="'pepnet' needs users and items, data set 'syn2' has none"):
        models_for(tiny, CompareConfig(models=("pepnet",), training=ONCE))


def test_parts_share_no_row_and_a_thinned_set_has_so_many(tiny: Comparison) -> None:
    for seed in (0, 1):
        parts = tiny.split(seed)
        places = [place for part in parts.values() for place in part.tolist()]
        assert len(places) == len(set(places)) == 800
        assert {part: len(own) for part, own in parts.items()} == {"train": 640, "valid": 80, "test": 80}


def test_data_sets_that_do_not_exist_or_are_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="data set 'moon' does not exist; use some of syn2, "):
        DataSource(name="moon", settings=Settings())
    with pytest.raises(ConfigError, match="rows: want at least 100 or None for all, got 99"):
        DataSource(name="syn2", settings=Settings(), rows=99)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="model 'moon' does not exist; use some of single, "):
        CompareConfig(models=("single", "moon"), training=ONCE)
    with pytest.raises(ConfigError, match="want seeds and jobs >= 1, got 0 and 1"):
        CompareConfig(seeds=0, training=ONCE)
    with pytest.raises(ConfigError, match="learning_rate > 0"):
        TrialConfig(learning_rate=0.0)
