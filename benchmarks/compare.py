"""Print benchmark documents as a table, or two folders of them side by side (base, then head).

python benchmarks/compare.py build/bench
python benchmarks/compare.py build/bench-base build/bench-head
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def figures(folder: Path) -> dict[str, dict[str, Any]]:
    """Every figure of every document in a folder, by "bench: name"."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        for figure in document["figures"]:
            found[f"{document['bench']}: {figure['name']}"] = figure
    return found


def main(folders: list[Path]) -> int:
    """Print the table; 1 when a figure misses its bar."""
    base = figures(folders[0]) if len(folders) == 2 else {}
    head = figures(folders[-1])
    table = Table("figure", "value", "unit", "bar", "")
    if base:
        table.add_column("against base")
    for name, figure in head.items():
        holds = {True: "[green]holds", False: "[red]misses", None: ""}[figure.get("holds")]
        value = figure["value"]
        row = [
            name,
            f"{value:,.0f}" if value >= 1000 else f"{value:.4g}",
            figure["unit"],
            figure.get("bar") or "",
            holds,
        ]
        if base:
            row.append(f"× {figure['value'] / base[name]['value']:.2f}" if name in base else "new")
        table.add_row(*row)
    Console().print(table)
    return int(any(figure.get("holds") is False for figure in head.values()))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
