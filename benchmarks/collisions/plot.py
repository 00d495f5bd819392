"""Draw what benchmarks/replay_collisions.py printed.

    python benchmarks/collisions/plot.py build/collisions.json docs/replays/collisions.png

Left: what hashing costs at each rate of collisions. Right: what fewer bytes cost, in the online protocol.
Bars and whiskers are 95 % intervals over seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

PROTOCOLS = {"random": "#1b6ca8", "temporal": "#c8553d", "online": "#4a7c59"}
HASHED = ["hashed_paper", "hashed_20", "hashed_50"]
SWEEPS: dict[str, tuple[str, list[Any], str, str]] = {
    "admission on occurrence t": (
        "admitted_at_",
        [1, 2, 5, 10, 15, 50],
        "o-",
        "#1b6ca8",
    ),
    "expiry when idle for": ("idle_", ["1h", "1d", "7d", "30d", "90d", "1y"], "s-", "#4a7c59"),
}
CROWDED = (1, 2, 10, "1y")
"""Steps whose names would lie on top of others."""
POINTS = {
    "exact": ("exact", "*", "black"),
    "idle_users_30d": ("only users expire, 30 days", "<", "#4a7c59"),
    "idle_movies_30d": ("only movies expire, 30 days", ">", "#4a7c59"),
    "stored_fp16": ("fp16", "P", "#7a5195"),
    "compact": ("t = 5, 30 days, fp16", "D", "#7a5195"),
    "quotient_remainder_half": ("quotient and remainder", "x", "#8a6d3b"),
    "hashed_50": ("hashed fp32, 50 % collide", "1", "#c8553d"),
    "hashed_same_bytes": ("hashed fp32, same bytes", "v", "#c8553d"),
    "hashed_same_bytes_fp16": ("hashed fp16, same bytes", "^", "#c8553d"),
}

Figures = dict[str, dict[str, Any]]


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    figures = {figure["name"]: figure for figure in json.loads(source.read_text())["figures"]}
    canvas, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    draw_collisions(left, figures)
    draw_economies(right, figures)
    canvas.savefig(target, dpi=90)


def draw_collisions(axes: Any, figures: Figures) -> None:
    """Paired difference of AUC by the share of users lost in collisions."""
    rates = [100 * figures[f"{name}.user_collision_rate"]["value"] for name in HASHED]
    for shift, (protocol, color) in enumerate(PROTOCOLS.items()):
        gaps = [figures[f"{protocol}.{name}.auc_minus_exact"] for name in HASHED]
        values = np.array([gap["value"] for gap in gaps])
        reach = [values - [gap["low"] for gap in gaps], [gap["high"] for gap in gaps] - values]
        places = np.array(rates) + 0.6 * (shift - 1)
        axes.errorbar(places, values, yerr=reach, fmt="o-", color=color, capsize=3, label=protocol)
    axes.axhline(0.0, color="gray", linewidth=0.8)
    axes.set(xlabel="users whose row another user took first, %", ylabel="AUC, hashed minus exact")
    axes.set_title("What collisions cost")
    axes.legend()


def draw_economies(axes: Any, figures: Figures) -> None:
    """AUC by peak bytes for learning, online."""
    for label, (prefix, steps, style, color) in SWEEPS.items():
        names = [f"online.{prefix}{step}" for step in steps]
        spots = [(figures[f"{name}.bytes"]["value"] / 1e6, figures[f"{name}.auc"]["value"]) for name in names]
        axes.plot(*zip(*spots, strict=True), style, color=color, label=label, markersize=4)
        for step, spot in zip(steps, spots, strict=True):
            if step in CROWDED:
                continue
            axes.annotate(str(step), spot, textcoords="offset points", xytext=(4, -10), fontsize=7)
    for name, (label, marker, color) in POINTS.items():
        auc = figures[f"online.{name}.auc"]
        reach = [[auc["value"] - auc["low"]], [auc["high"] - auc["value"]]]
        megabytes = figures[f"online.{name}.bytes"]["value"] / 1e6
        axes.errorbar(megabytes, auc["value"], yerr=reach, fmt=marker, color=color, capsize=3, label=label)
    axes.set(xlabel="most bytes held for learning, MB", ylabel="AUC of the newest fifth")
    axes.set_title("What fewer bytes cost, online")
    axes.legend(fontsize=7, loc="lower right")


if __name__ == "__main__":
    main()
