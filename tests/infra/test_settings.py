"""Settings come from HEADRACE_ variables, and a misspelled one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import settings_from
from recsys.errors import ConfigError


def test_every_field_can_be_set_and_others_are_left_alone() -> None:
    settings = settings_from({"HEADRACE_KAFKA_BOOTSTRAP": "kafka:9093", "HOME": "/elsewhere"})
    assert settings.kafka_bootstrap == "kafka:9093"
    assert settings.data_dir is None


def test_recsys_data_is_the_data_folder_unless_another_is_named() -> None:
    assert settings_from({"RECSYS_DATA": "/data"}).data_dir == Path("/data")
    both = {"RECSYS_DATA": "/data", "HEADRACE_DATA_DIR": "/mine"}
    assert settings_from(both).data_dir == Path("/mine")


def test_the_registry_is_sqlite_in_the_state_folder_by_default() -> None:
    assert settings_from({"HEADRACE_STATE_DIR": "/s"}).registry_uri == "sqlite:////s/mlflow.db"
    assert settings_from({"HEADRACE_MLFLOW_URI": "http://m"}).registry_uri == "http://m"


def test_a_misspelled_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="HEADRACE_KAFKA_BOTSTRAP"):
        settings_from({"HEADRACE_KAFKA_BOTSTRAP": "kafka:9093"})
