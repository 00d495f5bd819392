"""Environment to validated settings: the one place that reads HEADRACE_* variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.errors import ConfigError

PREFIX = "HEADRACE_"


class Settings(BaseModel):
    """What differs between one machine and a cluster. Every field is a HEADRACE_ variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka_bootstrap: str = "127.0.0.1:9092"
    """host:port of a Kafka-protocol broker."""
    cache_dir: Path = Field(default_factory=lambda: Path.home() / ".cache" / "headrace")
    """Where downloaded data sets are kept."""
    state_dir: Path = Path("build/state")
    """Snapshots, joiner progress, registry: what a restart needs."""
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
