"""Times of training steps, and what the models are otherwise made of.

Axes: R rounds, in each of which every model takes one step, so that a ratio is of one moment of the machine.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

import numpy as np
from document import Figure
from numpy.typing import NDArray
from sync.subjects import one, spread

from multidomain.subjects import ALL, K, Subject, batches

Times = NDArray[np.float64]
WARM_STEPS = 5
WITH_BARS = (12, 30)
"""Numbers of domains at which something is asked of the ratios."""
BARS = {
    "star": ("<=", 1.0),
    "star_plain": ("<=", 1.0),
    "naive_star": ("<=", 0.5),
    "naive_mmoe": ("<=", 0.5),
}


def step_figures(n_domains: int, rounds: int, names: Sequence[str] = ALL) -> list[Figure]:
    """Milliseconds of a step, parameters and operations of each model, and the ratios that are asked for."""
    step_ms, pass_ms, subjects = interleaved(n_domains, rounds, names)
    at, batch = f"n{n_domains}", batches(n_domains, 1)[0]
    figures = [spread(f"{at}.{name}.step", step_ms[name].tolist(), "ms") for name in names]
    figures += [spread(f"{at}.{name}.passes", pass_ms[name].tolist(), "ms") for name in names]
    figures += [one(f"{at}.{name}.parameters", subjects[name].n_parameters, "weights") for name in names]
    figures += [one(f"{at}.{name}.flops", subjects[name].flops_per_row(batch), "flops/row") for name in names]
    return [*figures, *ratios(at, n_domains, step_ms, pass_ms), parameter_ratio(at, n_domains, subjects)]


def ratios(at: str, n_domains: int, step_ms: dict[str, Times], pass_ms: dict[str, Times]) -> list[Figure]:
    """AdaptDHM's time over that of others, round by round."""
    bars = BARS if n_domains in WITH_BARS else {}
    figures = []
    for part, took_ms in {"step": step_ms, "passes": pass_ms}.items():
        for name, other_ms in took_ms.items():
            if name != "adapt":
                ratio, bar = took_ms["adapt"] / other_ms, bars.get(name) if part == "step" else None
                figures.append(spread(f"{at}.adapt_over_{name}.{part}", ratio.tolist(), "ratio", bar=bar))
    return figures


def parameter_ratio(at: str, n_domains: int, subjects: dict[str, Subject]) -> Figure:
    """AdaptDHM's parameters over those of STAR's product network: (1 + K) / (1 + N)."""
    ours, stars = subjects["adapt"].n_parameters, subjects["star_plain"].n_parameters
    figure = one(f"{at}.adapt_over_star_plain.parameters", ours / stars, "ratio")
    figure["bar"] = f"(1 + {K}) / (1 + {n_domains})"
    figure["holds"] = ours * (1 + n_domains) == stars * (1 + K)
    return figure


def interleaved(
    n_domains: int, rounds: int, names: Sequence[str]
) -> tuple[dict[str, Times], dict[str, Times], dict[str, Subject]]:
    """(milliseconds of a step (R,), those of its two passes (R,), the model), each by name.

    The order turns by one model a round, so that none always follows the same other one.
    """
    subjects = {name: Subject(name, n_domains) for name in names}
    given = batches(n_domains, 4)
    took = {name: np.empty((rounds, 2)) for name in names}
    warm = min(WARM_STEPS, max(1, rounds))
    gc.disable()
    try:
        for number in range(-warm, rounds):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                both = subjects[name].step(given[number % len(given)])
                if number >= 0:
                    took[name][number] = both
            print(f"{n_domains} domains: round {number}", file=sys.stderr)
    finally:
        gc.enable()
    step_ms, pass_ms = ({name: took[name][:, part] for name in names} for part in range(2))
    return step_ms, pass_ms, subjects
