"""Replay what it costs when one domain's distribution jumps in mid-stream; print one JSON document.

    python benchmarks/replay_domain_jump.py [--quick] [--seeds 5] [--data-dir FOLDER]

Each model learns a stream online, in micro-batches of 64, twice: with the jump half way, and as if the new
state had always been. After the jump both get the same rows. The deficit is by how much the first one's AUC
is lower on held-out rows of the jumped domains; a model has recovered when its mean over seeds stays within
.005.
Pin threads with OMP_NUM_THREADS=1. What came out is in docs/replays/domain_jump.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from document import Figure, print_document
from replays.figures import figure, mean_figure
from replays.jumping import Jumping, curve_of, kuairand_jump, recovered_after, synthetic_jump

MODELS = ("adapt_dhm", "star", "by_domain", "single")
LOOKS = [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000]
TOLERANCE = 0.005
TAB_PAIRS = ((1, 0), (4, 6))
N_ROWS, N_PROBE = 160_000, 4_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short streams, two seeds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, help="folder with KuaiRand-Pure; else synthetic only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = list(range(2 if options.quick else options.seeds))
    share = 8 if options.quick else 1
    streams = [synthetic_jump(N_ROWS // share, N_PROBE // share)]
    if options.data_dir is not None:
        streams += [kuairand_jump(options.data_dir, tabs) for tabs in TAB_PAIRS]
    figures: list[Figure] = []
    for stream in streams:
        figures += jump_figures(stream, seeds)
    print_document("domain_jump", figures, seeds=seeds)


def jump_figures(stream: Jumping, seeds: list[int]) -> list[Figure]:
    """Deficits and recovery of each model on one stream, and the bar on AdaptDHM against STAR."""
    looks = [events for events in LOOKS if stream.at_row + events < len(stream.jumped.label_N)]
    figures: list[Figure] = []
    recovered: dict[str, float] = {}
    for model in MODELS:
        sys.stderr.write(f"{stream.name}: {model}\n")
        curves = [curve_of(stream, model, seed, looks) for seed in seeds]
        prefix = f"{stream.name}.{model}"
        for place, events in enumerate(looks):
            reached = [curve.jumped[place] for curve in curves]
            figures.append(mean_figure(f"{prefix}.auc_after_{events}", reached, "auc"))
            deficits = [float(curve.deficit[place]) for curve in curves]
            figures.append(mean_figure(f"{prefix}.deficit_after_{events}", deficits, "auc"))
        mean_deficit = np.mean([curve.deficit for curve in curves], axis=0)
        recovered[model] = recovered_after(looks, mean_deficit, TOLERANCE)
        figures.append(figure(f"{prefix}.recovered_after", recovered[model], "events"))
    value = ratio(recovered["adapt_dhm"], recovered["star"])
    bar = figure(f"{stream.name}.adapt_dhm_over_star", value, "ratio")
    bar["bar"], bar["holds"] = "at most .5", bar["value"] <= 0.5
    return [*figures, bar]


def ratio(mine: float, other: float) -> float:
    """mine / other; infinite where mine never recovers, 0 where it lost nothing or the other never does."""
    if mine == 0.0 or not np.isfinite(mine):
        return mine
    return mine / other if other > 0.0 else float("inf")


if __name__ == "__main__":
    main()
