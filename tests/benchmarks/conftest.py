"""Lets tests import what lies beside the benchmark scripts, as the scripts themselves do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
