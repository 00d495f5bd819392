"""The cluster that every process of one environment talks to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.settings import PREFIX, Settings
from recsys.errors import ConfigError
from streaming.kafka import KafkaConfig, KafkaSecurity

_FILES = ("kafka_ca_file", "kafka_cert_file", "kafka_key_file")


def kafka_config(settings: Settings, **overrides: Any) -> KafkaConfig:
    """The cluster of ``settings``; ``overrides`` are fields of KafkaConfig.

    Raises ConfigError for security settings that are half given or name a file that is not there.
    """
    for name in _FILES:
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            raise ConfigError(f"{PREFIX}{name.upper()} names {path}, which is no file; correct or unset it")
    try:
        security = KafkaSecurity(
            protocol=settings.kafka_security_protocol,
            mechanism=settings.kafka_sasl_mechanism,
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ca_file=settings.kafka_ca_file,
            cert_file=settings.kafka_cert_file,
            key_file=settings.kafka_key_file,
            check_hostname=settings.kafka_check_hostname,
        )
    except ConfigError as error:
        raise ConfigError(f"{error} (variables {PREFIX}KAFKA_*)") from error
    config = KafkaConfig(
        bootstrap=settings.kafka_bootstrap,
        security=security,
        client_id=settings.kafka_client_id,
        compression=settings.kafka_compression,
    )
    return replace(config, **overrides)
