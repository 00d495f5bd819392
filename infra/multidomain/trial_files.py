"""Finished trials on disk, one JSON file each: a comparison that was killed goes on where it was."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.multidomain.costs import Cost
from infra.multidomain.trial import Trial


class TrialFiles:
    """Trials by data set, model and seed. Any number of processes, each trial written by one of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, data: str, arm: str, seed: int) -> Path:
        """Where a trial is kept."""
        return self._folder / data / f"{arm}-{seed}.json"

    def read(self, path: Path, setup: Mapping[str, Any]) -> Trial | None:
        """The trial there; None where there is none or it was run with another setup."""
        try:
            kept = json.loads(path.read_text())
            if kept["setup"] != setup:
                return None
            values = _with_nan(kept["trial"])
            return Trial(**values | {"cost": Cost(**values["cost"])})
        except (OSError, ValueError, KeyError, TypeError):
            # Absent, broken, or of another version: it is run again.
            return None

    def write(self, path: Path, trial: Trial, setup: Mapping[str, Any]) -> None:
        """Keep a trial, all of it or nothing; ``setup`` is JSON that tells what it was run with."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        document = {"setup": setup, "trial": without_nan(asdict(trial))}
        unfinished.write_text(json.dumps(document, indent=1, allow_nan=False))
        unfinished.replace(path)


def without_nan(value: Any) -> Any:
    """The same, with null for what is not a finite number: JSON has no other word for it."""
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_nan(part) for part in value]
    return float("nan") if value is None else value
