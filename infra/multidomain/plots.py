"""Plots of a comparison, each as the text of an SVG that takes its colours from the page around it.

Axes: K clusters.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infra.multidomain.cluster_watch import LOOK_EVERY
from infra.multidomain.summary import OURS, DataSummary, ModelSummary
from recsys.evaluation.intervals import Interval

# Colours that nothing else has; in the text they become those of the page.
INK, FAINT = "#010203", "#040506"
PAGE_COLOURS = {INK: "currentColor", FAINT: "var(--line)"}
# Okabe & Ito's: told apart by colour-blind eyes, and on light and dark ground.
HIGHLIGHT, OTHER, CONTROL = "#d55e00", "#0072b2", "#909090"
SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#909090", "#b8a800")
SHOWN_BY_DOMAIN = (OURS, "single", "star", "mmoe", "ple")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
}


def plots_of(summary: DataSummary) -> dict[str, str]:
    """Title to SVG, of the plots that the figures of a data set allow."""
    drawn = {
        "AUC with its 95 % interval": _auc(summary),
        "AUC within each domain": _by_domain(summary),
        "Cost against AUC": _cost(summary),
        "Share of each cluster over the steps of training, first seed": _usage(summary),
        "Domains x clusters: shares of test rows, first seed": _domain_clusters(summary),
        "Settings of adapt_dhm": _sweeps(summary),
    }
    return {title: svg for title, svg in drawn.items() if svg is not None}


def _auc(summary: DataSummary) -> str | None:
    models = [model for model in reversed(summary.compared) if "auc" in model.metrics]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, model in enumerate(models):
            _whisker(axes, model.metrics["auc"], place, _colour(model))
        axes.set_yticks(range(len(models)), [model.name for model in models])
        axes.set_xlabel("test AUC")
        axes.grid(visible=False, axis="y")

    return _svg(f"{summary.name}-auc", draw, height=0.9 + 0.24 * len(models)) if models else None


def _by_domain(summary: DataSummary) -> str | None:
    models = [model for model in summary.compared if model.domain_auc]
    shown = [name for name in SHOWN_BY_DOMAIN if summary.model(name) in models]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model in models:
            places = [place for place, domain in enumerate(summary.domains) if domain in model.domain_auc]
            values = [model.domain_auc[summary.domains[place]].mean for place in places]
            if model.name not in shown:
                axes.plot(places, values, "_", color=CONTROL, alpha=0.7, markersize=9)
                continue
            order = shown.index(model.name)
            moved = [place + 0.11 * (order - (len(shown) - 1) / 2) for place in places]
            axes.plot(moved, values, "o", color=SERIES[order], label=model.name, markersize=5)
        axes.set_xticks(range(len(summary.domains)), list(summary.domains))
        axes.set_xlabel("domain (dashes: the other models)")
        axes.set_ylabel("test AUC")
        if shown:
            axes.legend(ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _svg(f"{summary.name}-domains", draw, height=3.4) if models and summary.domains else None


def _cost(summary: DataSummary) -> str | None:
    models = [model for model in summary.compared if "auc" in model.metrics]

    def draw(figure: Figure) -> None:
        by_flops, by_parameters = figure.subplots(1, 2, sharey=True)
        _costs(by_flops, [(model, model.cost.relative_flops) for model in models])
        _costs(by_parameters, [(model, float(model.cost.n_parameters)) for model in models])
        by_flops.set_xlabel("operations a row, in those of the single net")
        by_parameters.set_xlabel("parameters of the dense part")
        by_parameters.set_xscale("log")
        by_flops.set_ylabel("test AUC")

    return _svg(f"{summary.name}-cost", draw, height=3.6) if models else None


def _usage(summary: DataSummary) -> str | None:
    models = [model for model in summary.compared if model.first.usage and not model.is_control]

    def draw(figure: Figure) -> None:
        for axes, model in zip(_panels(figure, len(models)), models, strict=False):
            usage_LK = np.array(model.first.usage)
            steps = 1 + LOOK_EVERY * np.arange(len(usage_LK))
            for cluster, share in enumerate(usage_LK.T):
                axes.plot(steps, share, color=SERIES[cluster % len(SERIES)], linewidth=1.2)
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(model.name, fontsize=8, loc="left")
        figure.supxlabel("step", fontsize=9)

    return _svg(f"{summary.name}-usage", draw, height=1.9 * _n_lines(len(models))) if models else None


def _domain_clusters(summary: DataSummary) -> str | None:
    ours = summary.model(OURS)
    if ours is None or not ours.first.domain_shares:
        return None
    shares = ours.first.domain_shares
    domains = [domain for domain in summary.domains if domain in shares]
    share_NK = np.array([shares[domain] for domain in domains])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.pcolormesh(share_NK.T, cmap="Blues", vmin=0.0, vmax=1.0)
        for (domain, cluster), share in np.ndenumerate(share_NK):
            # The ground's own colours do not turn with the page.
            colour = "#ffffff" if share > 0.55 else "#222222"
            axes.text(
                domain + 0.5,
                cluster + 0.5,
                f"{share:.0%}",
                ha="center",
                va="center",
                color=colour,
                fontsize=8,
            )
        axes.set_xticks(np.arange(len(domains)) + 0.5, domains)
        axes.set_yticks(np.arange(share_NK.shape[1]) + 0.5, [str(k) for k in range(share_NK.shape[1])])
        axes.set_xlabel("domain")
        axes.set_ylabel("cluster")
        axes.grid(visible=False)

    return _svg(f"{summary.name}-heat", draw, height=0.9 + 0.4 * share_NK.shape[1]) if domains else None


def _sweeps(summary: DataSummary) -> str | None:
    sweeps = summary.sweeps if any(model.is_swept for model in summary.models) else {}

    def draw(figure: Figure) -> None:
        for axes, (setting, models) in zip(_panels(figure, len(sweeps)), sweeps.items(), strict=False):
            for place, model in enumerate(models.values()):
                if "auc" in model.metrics:
                    _whisker(axes, model.metrics["auc"], place, _colour(model), is_upright=True)
            axes.set_xticks(range(len(models)), list(models))
            axes.set_title(setting, fontsize=8, loc="left")
            axes.margins(x=0.15)

    return _svg(f"{summary.name}-sweeps", draw, height=2.1 * _n_lines(len(sweeps))) if sweeps else None


def _panels(figure: Figure, n: int) -> Sequence[Axes]:
    lines = _n_lines(n)
    panels = list(figure.subplots(lines, -(-n // lines), squeeze=False, sharey=True).flat)
    for unused in panels[n:]:
        unused.set_visible(False)
    return panels


def _costs(axes: Axes, costs: Sequence[tuple[ModelSummary, float]]) -> None:
    """Models by cost and AUC, the best first; names stand in a column, for the points may lie together."""
    for place, (model, cost) in enumerate(costs):
        at = (cost, model.metrics["auc"].mean)
        axes.plot(*at, "o", color=_colour(model), markersize=5)
        axes.annotate(
            model.name,
            at,
            (1.05, 1.0 - place / max(len(costs) - 1, 1)),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "relpos": (0.0, 0.5)},
        )


def _n_lines(n: int) -> int:
    return -(-n // 3)


def _whisker(axes: Axes, value: Interval, place: int, colour: str, *, is_upright: bool = False) -> None:
    """A mean and its interval, if it has one."""
    reach = (value.high - value.low) / 2 if math.isfinite(value.low) else None
    style: dict[str, Any] = {"fmt": "o", "color": colour, "markersize": 5, "capsize": 3, "linewidth": 1.2}
    if is_upright:
        axes.errorbar(place, value.mean, yerr=reach, **style)
    else:
        axes.errorbar(value.mean, place, xerr=reach, **style)


def _colour(model: ModelSummary) -> str:
    if model.name.startswith(OURS):
        return HIGHLIGHT
    return CONTROL if model.is_control else OTHER


def _svg(name: str, draw: Callable[[Figure], None], *, height: float) -> str:
    """What ``draw`` draws, the same text each time; ``name`` keeps its ids apart from other plots'."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(8.4, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Artists are numbered anew in each plot, and nothing refers to their numbers.
    svg = re.sub(r'<(g|path) id="[A-Za-z0-9.]+_\d+"', r"<\1", svg)
    for baked, colour in PAGE_COLOURS.items():
        svg = svg.replace(baked, colour)
    return svg
