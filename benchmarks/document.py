"""The one form that every benchmark prints: a JSON document with a flat list of figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from typing import TypedDict


class Figure(TypedDict):
    """One measured value; ``holds`` says whether it meets its bar, where it has one."""

    name: str
    value: float
    unit: str
    bar: str | None
    holds: bool | None
    low: float | None
    high: float | None


def print_document(bench: str, figures: list[Figure], *, seeds: list[int]) -> None:
    """Print the document of one run to standard output."""
    document = {
        "bench": bench,
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seeds": seeds,
        "figures": figures,
    }
    print(json.dumps(document, indent=1))


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    git = subprocess.run(command, capture_output=True, text=True, check=False)
    return git.stdout.strip() or "unknown"
