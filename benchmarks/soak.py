"""Run the whole loop for a long time at a steady rate, and see that nothing grows; one JSON document.

    python benchmarks/soak.py --data-dir FOLDER [--minutes 30] [--rate ROWS_PER_S] [--recipe kuairand]

A real broker, joiner, trainer and server take a data set that is played over and over, as new requests.
Figures: growth of each process's resident memory, by a line through its samples after a warm-up of a
third of the time, in percent of its mean per ten minutes; the largest lag; the oldest parameters served.
The embedded broker keeps its whole log in memory, so that its own growth is told without a bar.
Exit status 1 where a bar does not hold. In a few minutes caches still fill and a slope says little: below ten
minutes a process may grow twenty times as fast.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from document import Figure, print_document
from numpy.typing import NDArray

from infra.broker import EmbeddedBroker
from infra.child_process import free_port
from infra.demo.processes import Child, Family
from streaming.kafka import create_topics
from streaming.topics import ALL_TOPICS

SAMPLE_S = 2.0
MOST_GROWTH = 1.0
LONG_MINUTES = 10
MOST_LAG_S = 5.0
OLDEST_MS = 10_000


@dataclass(slots=True)
class Samples:
    """What was seen of the processes over time."""

    at_s: list[float] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=dict)
    lag: list[float] = field(default_factory=list)
    age_ms: list[float] = field(default_factory=list)
    learned: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=7_000.0, help="70 %% of what the demo reaches")
    parser.add_argument("--recipe", default="kuairand")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        environment = {"HEADRACE_KAFKA_BOOTSTRAP": broker.bootstrap, "OMP_NUM_THREADS": "1"}
        if options.data_dir is not None:
            environment["HEADRACE_DATA_DIR"] = str(options.data_dir)
        family = Family(folder / "logs", environment)
        try:
            samples = soak(family, options, folder / "state", broker.pid or 0)
        finally:
            family.stop_all()
    shutil.rmtree(folder)
    made = figures(samples, options)
    print_document("soak", made, seeds=[0])
    if any(one["holds"] is False for one in made):
        raise SystemExit(1)


def soak(family: Family, options: argparse.Namespace, state: Path, broker_pid: int) -> Samples:
    """Start everything, play, and look every two seconds until the time is over."""
    common = ["--recipe", options.recipe]
    address = f"127.0.0.1:{free_port()}"
    join = family.start("join", ["join", *common, "--state-dir", str(state)])
    train = family.start("train", ["train", *common, "--state-dir", str(state)])
    serve = family.start("serve", ["serve", *common, "--state-dir", str(state), "--address", address])
    wait_for(family, serve, "serving_table_sequence")
    # More rounds than the time can take; the rate decides.
    played = ["replay", *common, "--rate", str(options.rate), "--rounds", "1000"]
    family.start("replay", played)
    while not train.metrics().get("training_examples_total"):
        family.check()
        time.sleep(0.2)
    samples = Samples()
    began_s = time.monotonic()
    while (now_s := time.monotonic() - began_s) < 60 * options.minutes:
        family.check()
        samples.at_s.append(now_s)
        for name, pid in {
            **{child.name: child.process.pid for child in (join, train, serve)},
            "broker": broker_pid,
        }.items():
            samples.resident.setdefault(name, []).append(resident_bytes(pid))
        samples.lag.append(join.metrics().get("streaming_join_lag_records", float("nan")))
        samples.age_ms.append(serve.metrics().get("serving_parameter_age_ms", float("nan")))
        samples.learned.append(train.metrics().get("training_examples_total", float("nan")))
        if len(samples.at_s) % 30 == 0:
            print(f"{now_s:.0f} s: {samples.learned[-1]:.0f} learned, lag {samples.lag[-1]}", file=sys.stderr)
        time.sleep(SAMPLE_S)
    return samples


def wait_for(family: Family, child: Child, metric: str) -> None:
    """Return once a metric is at least 0."""
    while child.metrics().get(metric, -1.0) < 0:
        family.check()
        time.sleep(0.2)


def figures(samples: Samples, options: argparse.Namespace) -> list[Figure]:
    """The figures of one run."""
    at_s = np.array(samples.at_s)
    settled = at_s >= at_s[-1] / 3
    most_growth = MOST_GROWTH if options.minutes >= LONG_MINUTES else 20 * MOST_GROWTH
    made = [
        figure(
            f"resident_growth_{name}",
            growth_of(at_s[settled], np.array(values)[settled]),
            "%/10 min",
            None if name == "broker" else most_growth,
        )
        for name, values in samples.resident.items()
    ]
    made += [
        figure(f"resident_{name}", values[-1] / 2**20, "MiB", None)
        for name, values in samples.resident.items()
    ]
    lag = np.array(samples.lag)[settled]
    rate = (samples.learned[-1] - samples.learned[0]) / (at_s[-1] - at_s[0])
    made += [
        figure("learned_rate", rate, "rows/s", None),
        figure("lag_p99", float(np.nanpercentile(lag, 99)) / options.rate, "s", MOST_LAG_S),
        figure("parameter_age_p99", float(np.nanpercentile(samples.age_ms, 99)), "ms", OLDEST_MS),
    ]
    return made


def growth_of(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Slope of the least-squares line, in percent of the mean per ten minutes."""
    slope = np.polyfit(at_s, values, 1)[0]
    return float(100 * 600 * slope / values.mean())


def figure(name: str, value: float, unit: str, most: float | None) -> Figure:
    """A figure that must not be above ``most``."""
    bar, holds = (None, None) if most is None else (f"<= {most:g}", value <= most)
    return Figure(name=name, value=round(value, 3), unit=unit, bar=bar, holds=holds, low=None, high=None)


def resident_bytes(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096.0


if __name__ == "__main__":
    main()
