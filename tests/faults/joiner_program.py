"""A joiner of a consumer group whose windows are short enough for a test; ends with its parent.

python joiner_program.py BOOTSTRAP STATE_FOLDER
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from infra.cli.options import collect_rarely, on_termination
from infra.recipes.movielens import movielens
from infra.settings import Settings
from infra.telemetry import configure_logging
from infra.wiring.joiner import build_joiner
from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.sampling import NegativeSampling

JOIN = JoinConfig(
    rules=JoinRules(
        labels=(
            LabelRule(kind="click", wait_ms=2_000, attribution_ms=6_000),
            LabelRule(kind="watch_s", wait_ms=3_000, at_least=None, combine="sum"),
        ),
        sampling=NegativeSampling(rate=0.7, seed=3),
    ),
    allowed_disorder_ms=500,
    skew_ms=300,
    remember_ms=2_000,
    cache_max_bytes=1 << 20,
)


def main() -> None:
    bootstrap, folder = sys.argv[1:]
    configure_logging(verbose=True)
    settings = Settings(kafka_bootstrap=bootstrap, state_dir=Path(folder))
    recipe = dataclasses.replace(movielens(), join=JOIN)
    worker = build_joiner(recipe, settings, group="joiners")
    on_termination(worker.stop)
    collect_rarely()
    worker.run()


if __name__ == "__main__":
    main()
