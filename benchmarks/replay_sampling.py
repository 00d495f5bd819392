"""Replay that learning from sampled, early and late statements stays unbiased; print one JSON document.

    python benchmarks/replay_sampling.py [--quick] [--seeds 5] [--data-dir FOLDER]

A stream of known probabilities, and KuaiRand's clicks, each learned under every way to keep negatives and to
correct for it. Rows are predicted before anything is told of them, and scored over the stream's second half.
A seed gives the world, the draws of the sampling and the initial weights; on KuaiRand only the last two.
Pin threads with OMP_NUM_THREADS=1. What came out is in docs/replays/sampling.md.

References: Liu et al., "Monolith", ORSUM@RecSys 2022, arXiv:2209.07663, sec. 2.2.2; Wang, Zhang, Wang,
NeurIPS 2021, arXiv:2110.13048.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from document import Figure, print_document
from replays.figures import difference_figures, figure, mean_figure, score_figures, within
from replays.lateness import POLICIES, delay_scores, policy_scores
from replays.models import Model, recipe_model, synthetic_model
from replays.recorded import recorded_stream
from replays.sampling import STRATA, Arm, label_noise, sampled_metrics, scores, strata
from replays.stream import Stream
from replays.synthetic import World, make_stream

from feature_store.errors import DatasetUnavailable
from infra.recipes.kuairand import kuairand

RATES = (1.0, 0.5, 0.1, 0.01)
BY_STRATUM = (0.1, 0.3, 1.0)
"""r(x): items that are shown often are sampled harder."""
REFERENCE = Arm(style="train_time", rates=(1.0,))
ARMS = (
    REFERENCE,
    *(Arm(style=style, rates=(rate,)) for style in ("train_time", "serve_time") for rate in RATES[1:]),
    *(Arm(style="fast_emit", rates=(rate,)) for rate in RATES),
    *(Arm(style=style, rates=BY_STRATUM) for style in ("train_time", "fast_emit")),
)
MUTANTS = tuple(Arm(style=style, rates=(0.1,)) for style in ("rate_1_on_positives", "corrected_twice"))
LOW, HIGH = 0.98, 1.02
UNITS = {"calibration": "ratio", "calibration_to_truth": "ratio", "log_loss": "nats", "auc": "auc"}
SAMPLED_NAMES = ("calibration", "log_loss", "auc")

# Few ids, so that a hundredth of the negatives still teaches each of them something.
WORLD = World(n_events=800_000, n_users=200, n_items=100)
LATE_WORLD = World(n_events=300_000, n_users=200, n_items=100)
BORN_WORLD = replace(LATE_WORLD, item_days=1.0)
QUICK_EVENTS, QUICK_ROWS = 80_000, 20_000
CLICKED = 1.0

Streams = Callable[[int], tuple[Stream, Model]]
"""The stream and the model of one seed."""


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    seeds = list(range(options.seeds))
    scale = QUICK_EVENTS / WORLD.n_events if options.quick else 1.0
    world, late_world, born_world = (
        replace(one, n_events=int(one.n_events * scale)) for one in (WORLD, LATE_WORLD, BORN_WORLD)
    )
    figures = sampling_figures("synthetic", synthetic(world), seeds)
    figures += late_figures(late_world, born_world, seeds)
    try:
        recorded = recorded_stream(
            kuairand(), CLICKED, options.data_dir, limit=QUICK_ROWS if options.quick else None
        )
        figures += sampling_figures(
            "kuairand", lambda seed: (recorded, recipe_model(kuairand(), seed)), seeds, is_known=False
        )
    except DatasetUnavailable as reason:
        say(f"kuairand is left out: {reason}")
    print_document("replay_sampling", figures, seeds=seeds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events, 2 seeds")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many; 5")
    parser.add_argument("--data-dir", type=Path, help="folder with KuaiRand; RECSYS_DATA where not given")
    options = parser.parse_args()
    options.seeds = options.seeds or (2 if options.quick else 5)
    return options


def synthetic(world: World) -> Streams:
    return lambda seed: (make_stream(world, seed), replace(synthetic_model(seed), micro_batch=128))


def sampling_figures(name: str, streams: Streams, seeds: list[int], *, is_known: bool = True) -> list[Figure]:
    """Every arm and every mutant. The bar is on what the truth says, or on labels where it is unknown."""
    outcomes: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in (*ARMS, *MUTANTS)}
    estimates: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in ARMS}
    noise_S = []
    for seed in seeds:
        stream, model = streams(seed)
        since, stratum_N = len(stream) // 2, strata(stream)
        draw_N = np.random.default_rng([seed, 14]).random(len(stream))
        noise_S.append(label_noise(stream, since))
        for arm in (*ARMS, *MUTANTS):
            told = arm.told(stream, stratum_N, draw_N)
            served_N = arm.served(stream, told, model)
            outcomes[arm.name].append(scores(stream, served_N, stratum_N, since))
            found = outcomes[arm.name][-1]
            say(f"{name} seed {seed} {arm.name}: {found['calibration']:.4f} of the labels")
            if arm in ARMS:
                sampled = sampled_metrics(told, served_N, since)
                estimates[arm.name].append({key: sampled[key] - found[key] for key in SAMPLED_NAMES})
    judged = "calibration_to_truth" if is_known else "calibration"
    figures = [mean_figure(f"{name}.label_noise_of_calibration", noise_S, "ratio")]
    for arm in ARMS:
        figures += arm_figures(f"{name}.{arm.name}", outcomes[arm.name], judged)
        figures += score_figures(f"{name}.{arm.name}.sampled_metrics_error", estimates[arm.name], UNITS)
        if arm != REFERENCE:
            figures += difference_figures(
                f"{name}.{arm.name}",
                outcomes[arm.name],
                "whole",
                outcomes[REFERENCE.name],
                {"log_loss": "nats", "auc": "auc"},
            )
    return figures + [mutant_figure(name, arm, outcomes[arm.name], judged) for arm in MUTANTS]


def arm_figures(prefix: str, outcomes: list[dict[str, float]], judged: str) -> list[Figure]:
    barred = [judged, *(f"{stratum}.{judged}" for stratum in STRATA)]
    plain = [{key: value for key, value in one.items() if key not in barred} for one in outcomes]
    return [
        *(within(f"{prefix}.{key}", [one[key] for one in outcomes], LOW, HIGH) for key in barred),
        *score_figures(prefix, plain, UNITS),
    ]


def mutant_figure(name: str, arm: Arm, outcomes: list[dict[str, float]], judged: str) -> Figure:
    """A mistake: its bar holds where the replay would have noticed."""
    made = mean_figure(f"{name}.mutant.{arm.name}.{judged}", [one[judged] for one in outcomes], "ratio")
    made["bar"], made["holds"] = f"not {LOW:g} to {HIGH:g}", not LOW <= made["value"] <= HIGH
    return made


def late_figures(world: World, born_world: World, seeds: list[int]) -> list[Figure]:
    """Fast emit by delay, where items are born and die; and what becomes of late positives by policy."""
    found = []
    for seed in seeds:
        found.append(delay_scores(*synthetic(born_world)(seed), seed))
        say(f"delays seed {seed}: {found[-1]}")
    figures = score_figures("delays", found, UNITS)
    for rate in (1.0, 0.1):
        for policy in POLICIES:
            found = []
            for seed in seeds:
                stream, model = synthetic(world)(seed)
                found.append(policy_scores(stream, model, policy=policy, rate=rate, seed=seed))
            say(f"late {policy} r {rate}: {found[0]}")
            figures += score_figures(f"late.{policy}.r_{rate:g}", found, UNITS)
    return [*figures, figure("late.share_of_positives", float(np.exp(-1.0)), "share")]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
