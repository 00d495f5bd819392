"""The demo's processes: started in order, watched, stopped in order; none outlives the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from infra.child_process import end_with_parent, free_port
from infra.telemetry import read_metrics
from recsys.errors import RecsysError

_STOP_TIMEOUT_S = 30.0


class ProcessDied(RecsysError):
    """One of the loop's processes ended on its own."""


@dataclass(slots=True)
class Child:
    """One running `headrace` verb."""

    name: str
    process: subprocess.Popen[bytes]
    metrics_port: int
    log_path: Path

    def metrics(self) -> dict[str, float]:
        """What it tells Prometheus; empty while it starts."""
        return read_metrics(self.metrics_port)

    def stop(self) -> int:
        """Ask it to end and wait; its exit status. Killed where it does not end in time."""
        self.process.terminate()
        try:
            return self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@dataclass(slots=True)
class Family:
    """All children of one demo. Used from one thread."""

    log_folder: Path
    environment: dict[str, str]
    children: dict[str, Child] = field(default_factory=dict)

    def start(self, name: str, verb: list[str], *, niceness: int = 0) -> Child:
        """Start one verb with its metrics on a free port and its log in a file."""
        self.log_folder.mkdir(parents=True, exist_ok=True)
        port, log_path = free_port(), self.log_folder / f"{name}.log"
        command = [sys.executable, "-m", "infra.cli.app", *verb, "--metrics-port", str(port)]
        with log_path.open("wb") as log_file:
            process = subprocess.Popen(
                command,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                preexec_fn=lambda: end_with_parent(niceness),  # noqa: PLW1509
            )
        self.children[name] = Child(name, process, port, log_path)
        return self.children[name]

    def check(self) -> None:
        """Raise ProcessDied, with the end of its log, when a child has failed."""
        for child in self.children.values():
            status = child.process.poll()
            if status:
                lines = child.log_path.read_text(errors="replace").strip().splitlines() or ["no output"]
                raise ProcessDied(
                    f"{child.name} ended with status {status}: {lines[-1]}; see {child.log_path}"
                )

    def stop_all(self) -> None:
        """End whatever still runs."""
        for child in reversed(self.children.values()):
            if child.process.poll() is None:
                child.stop()
