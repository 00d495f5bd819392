"""Environment to validated settings: the one place that reads HEADRACE_* variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from recsys.errors import ConfigError

PREFIX = "HEADRACE_"


class Settings(BaseModel):
    """What differs between one machine and a cluster. Every field is a HEADRACE_ variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka_bootstrap: str = "127.0.0.1:9092"
    """host:port of a Kafka-protocol broker."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """SSL encrypts, SASL_ asks for a name and a password."""
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    """How the password is proven; SASL_ only."""
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    """Never printed."""
    kafka_ca_file: Path | None = None
    """PEM file of the authority that signed the broker's certificate; None: those of the system."""
    kafka_cert_file: Path | None = None
    """PEM file of this client's own certificate, where the broker asks for one."""
    kafka_key_file: Path | None = None
    """PEM file of the key to it."""
    kafka_check_hostname: bool = True
    """Refuse a broker whose certificate names another host."""
    kafka_client_id: str = "headrace"
    """What the broker's logs and quotas call these processes."""
    kafka_compression: Literal["none", "gzip", "lz4", "zstd"] = "none"
    """Of records on their way to the broker."""
    cache_dir: Path = Field(default_factory=lambda: Path.home() / ".cache" / "headrace")
    """Where downloaded data sets are kept."""
    state_dir: Path = Path("build/state")
    """Snapshots, joiner progress, registry: what a restart needs."""
    snapshot_url: str = ""
    """fsspec URL under which each recipe's snapshots are mirrored; empty: nowhere."""
    mlflow_uri: str = ""
    """MLflow tracking and registry; empty: SQLite in the state folder."""
    data_dir: Path | None = None
    """Folder of data sets that cannot be downloaded; RECSYS_DATA where unset."""

    @property
    def registry_uri(self) -> str:
        """MLflow address with its default filled in."""
        return self.mlflow_uri or f"sqlite:///{(self.state_dir / 'mlflow.db').absolute()}"


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Settings of an environment. Raises ConfigError for a HEADRACE_ variable that means nothing."""
    values: dict[str, str] = {
        name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)
    }
    if "data_dir" not in values and environ.get("RECSYS_DATA"):
        values["data_dir"] = environ["RECSYS_DATA"]
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(map(str, first["loc"])).upper()
        raise ConfigError(f"environment variable {name}: {first['msg']}; correct or unset it") from error
