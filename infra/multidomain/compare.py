"""Data sets x models x seeds: what is to be run, and running it, in this process or in several.

Each trial is kept as soon as it ends, and one that is kept is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.multidomain.arms import ARMS, MODELS, SWEPT
from infra.multidomain.costs import Contender, contender
from infra.multidomain.data import Comparison, DataSource
from infra.multidomain.trial import Trial, TrialConfig, run_trial
from infra.multidomain.trial_files import TrialFiles
from infra.telemetry import configure_logging
from recsys.errors import ConfigError, RecsysError

SWEPT_DATA = "syn2"
"""The data set on which settings are swept."""
Announce = Callable[[int, int, str], None]
"""(trials that are done, trials in all, the one that is done now)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """What is compared with what."""

    models: tuple[str, ...] | None = None
    """Names of models; None: all that a data set has the features for."""
    seeds: int = 5
    """Seeds 0 to so many less one, the same for all models; >= 1."""
    training: TrialConfig
    """How each is trained."""
    has_sweeps: bool = False
    """Whether settings of AdaptDHM are swept on SWEPT_DATA."""
    jobs: int = 1
    """Trials at a time, each in a process; 1: in this one. Several slow each other's steps down."""

    def __post_init__(self) -> None:
        if min(self.seeds, self.jobs) < 1:
            raise ConfigError(f"want seeds and jobs >= 1, got {self.seeds} and {self.jobs}")
        for name in self.models or ():
            if name not in ARMS:
                raise ConfigError(f"model {name!r} does not exist; use some of {', '.join(ARMS)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """A data set and its trials. Immutable: any number of readers."""

    data: Comparison
    trials: dict[str, list[Trial]]
    """By model, in order of seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One trial, as it is told to a process."""

    source: DataSource
    model: Contender
    seed: int
    training: TrialConfig
    setup: dict[str, Any]
    folder: Path

    @property
    def path(self) -> Path:
        return TrialFiles(self.folder).path(self.source.name, self.model.arm, self.seed)


def compare(
    sources: Sequence[DataSource],
    config: CompareConfig,
    folder: Path,
    announce: Announce = lambda done, of, what: None,
    *,
    is_fresh: bool = False,
) -> list[Compared]:
    """Run what is not yet in ``folder``, or all if it ``is_fresh``, and give all of it, by data set."""
    tasks = [task for source in sources for task in _tasks(source, config, folder)]
    if is_fresh:
        for task in tasks:
            task.path.unlink(missing_ok=True)
    trials = _run_missing(tasks, config.jobs, announce)
    compared = []
    for source in sources:
        by_model: dict[str, list[Trial]] = {}
        for task, trial in zip(tasks, trials, strict=True):
            if task.source == source:
                by_model.setdefault(task.model.arm, []).append(trial)
        compared.append(Compared(data=_loaded(source), trials=by_model))
    return compared


def models_for(data: Comparison, config: CompareConfig) -> list[str]:
    """Names of the models to run on a data set. Raises ConfigError for one that it cannot be run on."""
    chosen = list(config.models or MODELS)
    if data.user_N is None:
        personal = [name for name in chosen if ARMS[name].needs_users]
        if personal and config.models is not None:
            raise ConfigError(
                f"model {personal[0]!r} needs users and items, data set {data.name!r} has none; "
                "leave one of them out"
            )
        chosen = [name for name in chosen if name not in personal]
    if data.crosses_domain and config.models is None:
        chosen = [name for name in chosen if not ARMS[name].hides_domain]
    if config.has_sweeps and data.name == SWEPT_DATA:
        chosen += ["adapt_dhm", "one_cluster", "adapt_dhm_label_free", *SWEPT]
    return list(dict.fromkeys(chosen))


def _tasks(source: DataSource, config: CompareConfig, folder: Path) -> Iterator[_Task]:
    data = _loaded(source)
    for name in models_for(data, config):
        model = contender(name, data.tower, data.hidden, at_equal_cost=data.at_equal_cost)
        setup = {
            "data": data.title,
            "rows": len(data.rows),
            "keys": int(np.bitwise_xor.reduce(data.rows.keys.keys_T)),
            "init": data.init,
            "model": repr(model.config),
            "training": asdict(config.training),
        }
        for seed in range(config.seeds):
            yield _Task(
                source=source, model=model, seed=seed, training=config.training, setup=setup, folder=folder
            )


def _run_missing(tasks: list[_Task], jobs: int, announce: Announce) -> list[Trial]:
    """The trial of each task, in their order."""
    files = [TrialFiles(task.folder) for task in tasks]
    trials = [kept.read(task.path, task.setup) for kept, task in zip(files, tasks, strict=True)]
    missing = [place for place, trial in enumerate(trials) if trial is None]
    done = len(tasks) - len(missing)
    announce(done, len(tasks), "those that were kept")
    for place, trial in _run(tasks, missing, min(jobs, len(missing))):
        trials[place], done = trial, done + 1
        announce(done, len(tasks), f"{tasks[place].source.name} {trial.arm} {trial.seed}")
    return [trial for trial in trials if trial is not None]


def _run(tasks: list[_Task], missing: list[int], jobs: int) -> Iterator[tuple[int, Trial]]:
    if jobs <= 1:
        for place in missing:
            yield place, _run_and_keep(tasks[place])
        return
    with _processes(jobs) as pool:
        futures = {pool.submit(_run_and_keep, tasks[place]): place for place in missing}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    """New processes, not forks: torch's threads do not survive one. What waits is dropped at an error."""
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=partial(configure_logging, verbose=False)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RecsysError(
            "a process of the comparison was ended from outside; run it again with fewer jobs: "
            "finished trials are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _run_and_keep(task: _Task) -> Trial:
    threads = torch.get_num_threads()
    # One thread, so that scores do not depend on how many processes or cores there are.
    torch.set_num_threads(1)
    try:
        trial = run_trial(_loaded(task.source), task.model, seed=task.seed, training=task.training)
    finally:
        torch.set_num_threads(threads)
    TrialFiles(task.folder).write(task.path, trial, task.setup)
    return trial


@lru_cache(maxsize=8)
def _loaded(source: DataSource) -> Comparison:
    return source.load()
