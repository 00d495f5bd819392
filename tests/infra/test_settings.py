"""Settings come from HEADRACE_ variables, and a misspelled one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import settings_from
from infra.wiring.kafka import kafka_config
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


SECURE = {
    "HEADRACE_KAFKA_BOOTSTRAP": "kafka:9093",
    "HEADRACE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "HEADRACE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "HEADRACE_KAFKA_USERNAME": "alice",
    "HEADRACE_KAFKA_PASSWORD": "hunter2",
}


def test_the_kafka_variables_make_the_cluster_that_every_process_uses() -> None:
    config = kafka_config(settings_from(SECURE | {"HEADRACE_KAFKA_COMPRESSION": "gzip"}), linger_ms=20)
    security = config.security
    assert (config.bootstrap, config.compression, config.linger_ms) == ("kafka:9093", "gzip", 20)
    assert (security.protocol, security.mechanism) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")
    assert (security.username, security.password) == ("alice", "hunter2")


def test_the_password_is_printed_nowhere() -> None:
    settings = settings_from(SECURE)
    assert "hunter2" not in f"{settings!r} {settings} {kafka_config(settings)!r} {settings.model_dump()}"


@pytest.mark.parametrize(
    "left_out", ["HEADRACE_KAFKA_SASL_MECHANISM", "HEADRACE_KAFKA_USERNAME", "HEADRACE_KAFKA_PASSWORD"]
)
def test_half_given_passwords_are_refused_with_a_sentence(left_out: str) -> None:
    half = {name: value for name, value in SECURE.items() if name != left_out}
    with pytest.raises(ConfigError, match=r"SASL_PLAINTEXT wants a .*; give one"):
        kafka_config(settings_from(half))


def test_a_protocol_that_does_not_exist_and_a_file_that_is_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match="HEADRACE_KAFKA_SECURITY_PROTOCOL"):
        settings_from(SECURE | {"HEADRACE_KAFKA_SECURITY_PROTOCOL": "TLS"})
    settings = settings_from(
        {"HEADRACE_KAFKA_SECURITY_PROTOCOL": "SSL", "HEADRACE_KAFKA_CA_FILE": "/no/such.pem"}
    )
    with pytest.raises(ConfigError, match=r"HEADRACE_KAFKA_CA_FILE names /no/such\.pem"):
        kafka_config(settings)
