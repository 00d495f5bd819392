"""Runs, registered versions and aliases: the one file that knows MLflow."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from recsys.snapshots import MANIFEST, Manifest, read_manifest
from training.errors import PromotionRefused, TrainingError
from training.promotion.gate import GateConfig, decide
from training.promotion.kept_snapshots import KeptSnapshots

EXPERIMENT = "headrace"
CHAMPION = "champion"

MODEL_TAG = "headrace.model"
SNAPSHOT_TAG = "headrace.snapshot"
METRIC_TAG = "headrace.metric."

MOST_METRICS = 1000
"""That MLflow takes at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Where an alias stands now."""

    version: int
    previous: int | None
    """Version that it named before; None where it named none."""
    snapshot: Path


class RunLog:
    """One MLflow run, ended by leaving its ``with`` block. Any number of threads."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(failed=kind is not None)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record figures as they stand after ``step`` examples."""
        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        with _one_error("the run's metrics"):
            for begin in range(0, len(points), MOST_METRICS):
                self._client.log_batch(self.run_id, metrics=points[begin : begin + MOST_METRICS])

    def log_snapshot(self, path: Path, manifest: Manifest) -> None:
        """Record where a snapshot is and its manifest. Only ``ModelRegistry.register`` keeps its rows."""
        with _one_error("the run's snapshot"):
            self._client.log_artifact(self.run_id, str(path / MANIFEST), f"snapshots/{path.name}")
            tags = [RunTag(MODEL_TAG, manifest.model), RunTag(SNAPSHOT_TAG, str(path.absolute()))]
            self._client.log_batch(self.run_id, tags=tags)

    def log_files(self, paths: Iterable[Path], folder: str) -> None:
        """Keep copies of files as the run's artifacts, under ``folder`` there."""
        with _one_error("the run's files"):
            for path in paths:
                self._client.log_artifact(self.run_id, str(path), folder)

    def finish(self, *, failed: bool = False) -> None:
        """End the run as finished or failed."""
        with _one_error("the end of the run"):
            self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


class ModelRegistry:
    """Versions of models and the aliases that name them. Any number of threads and processes."""

    def __init__(self, uri: str, artifact_root: Path) -> None:
        self._root = artifact_root.absolute()
        self._kept = KeptSnapshots(self._root / "snapshots")
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
        # At INFO every step of a new database's schema is a line.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with _one_error("the registry"):
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def start_run(self, recipe: str, parameters: Mapping[str, object]) -> RunLog:
        """Begin a run of a recipe and record what it is run with."""
        params = [Param(name, str(value)) for name, value in parameters.items()]
        with _one_error("a new run"):
            run = self._client.create_run(self._experiment(), run_name=recipe, tags={"recipe": recipe})
            self._client.log_batch(run.info.run_id, params=params)
        return RunLog(self._client, run.info.run_id)

    def register(
        self, name: str, snapshot: Path, metrics: Mapping[str, float], *, run_id: str | None = None
    ) -> int:
        """Keep a snapshot as the next version of ``name``; that version's number.

        ``metrics`` are what a gate will judge it by. Raises SnapshotError when it cannot be kept.
        """
        manifest = read_manifest(snapshot)
        kept = self._kept.keep(snapshot, manifest)
        tags = {MODEL_TAG: manifest.model, SNAPSHOT_TAG: str(kept), "recipe": manifest.recipe}
        tags |= {METRIC_TAG + metric: repr(float(value)) for metric, value in metrics.items()}
        with _one_error(f"a version of {name!r}"):
            if _found(lambda: self._client.get_registered_model(name)) is None:
                self._client.create_registered_model(name)
            made = self._client.create_model_version(name, source=kept.as_uri(), run_id=run_id, tags=tags)
        return int(made.version)

    def promote(
        self, name: str, version: int | None = None, alias: str = CHAMPION, gate: GateConfig | None = None
    ) -> Moved:
        """Point an alias at a version, by default the newest.

        A gate judges the version against the one that holds the alias. Raises PromotionRefused when
        it does not pass or does not exist, and SnapshotError when its snapshot is gone.
        """
        candidate, holder = self._version(name, version), self._holder(name, alias)
        _, snapshot = _stands_for(candidate)
        read_manifest(snapshot)
        if gate is not None:
            decision = decide(_metrics(candidate), _metrics(holder) if holder else None, gate)
            if not decision.passed:
                raise PromotionRefused(
                    f"{name!r} version {candidate.version} may not become {alias!r}: "
                    f"{'; '.join(decision.reasons)}; choose another version or train on"
                )
        with _one_error(f"alias {alias!r} of {name!r}"):
            self._client.set_registered_model_alias(name, alias, str(candidate.version))
        previous = int(holder.version) if holder else None
        return Moved(version=int(candidate.version), previous=previous, snapshot=snapshot)

    def resolve(self, name: str, alias: str = CHAMPION) -> tuple[str, Path] | None:
        """(lineage, kept snapshot) of the version that an alias names; None while it names none."""
        holder = self._holder(name, alias)
        return _stands_for(holder) if holder else None

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            return str(self._client.create_experiment(EXPERIMENT, (self._root / "runs").as_uri()))
        return str(found.experiment_id)

    def _version(self, name: str, version: int | None) -> ModelVersion:
        with _one_error(f"versions of {name!r}"):
            if version is None:
                newest = self._client.search_model_versions(
                    f"name = '{name}'", max_results=1, order_by=["version_number DESC"]
                )
                found = newest[0] if newest else None
            else:
                found = _found(lambda: self._client.get_model_version(name, str(version)))
        if found is None:
            wanted = "version" if version is None else f"version {version}"
            raise PromotionRefused(f"{name!r} has no {wanted}; register a snapshot under that name first")
        return found

    def _holder(self, name: str, alias: str) -> ModelVersion | None:
        with _one_error(f"alias {alias!r} of {name!r}"):
            return _found(lambda: self._client.get_model_version_by_alias(name, alias))


def _stands_for(version: ModelVersion) -> tuple[str, Path]:
    """(lineage, kept snapshot) of a version."""
    try:
        return version.tags[MODEL_TAG], Path(version.tags[SNAPSHOT_TAG])
    except KeyError as error:
        raise PromotionRefused(
            f"{version.name!r} version {version.version} has no tag {error}: it names no snapshot of ours; "
            "register one with `headrace job train --register`"
        ) from error


def _metrics(version: ModelVersion) -> dict[str, float]:
    return {
        tag.removeprefix(METRIC_TAG): float(value)
        for tag, value in version.tags.items()
        if tag.startswith(METRIC_TAG)
    }


def _found(get: Callable[[], T]) -> T | None:
    """What ``get`` finds; None where there is no such thing."""
    try:
        return get()
    except MlflowException as error:
        # An absent alias is reported as an invalid parameter, anything else absent by its own code.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@contextmanager
def _one_error(what: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        # An address of the registry may hold a password.
        reason = re.sub(r"://[^/@\s]+@", "://***@", str(error).splitlines()[0])
        raise TrainingError(f"{what}: MLflow answered: {reason}; check HEADRACE_MLFLOW_URI") from error
