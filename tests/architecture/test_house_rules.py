"""The folders, names and sizes that keep the project readable."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["recsys", "streaming", "feature_store", "training", "serving", "infra"]
BANNED = {"utils", "helpers", "common", "misc", "base", "manager", "handler", "processor", "impl"}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PUBLIC_METHODS = 500, 60, 16


def sources() -> list[Path]:
    """Every hand-written Python file of the six packages."""
    return [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_pb2" not in path.name
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_the_one_in_this_tree(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT), f"another distribution overwrote {package}"


def test_no_other_distribution_ships_one_of_our_top_level_names() -> None:
    owners = importlib.metadata.packages_distributions()
    shared = {package: set(owners.get(package, [])) - {"headrace"} for package in PACKAGES}
    assert not any(shared.values()), shared


def test_no_file_is_a_dumping_ground() -> None:
    offenders = [path for path in sources() if BANNED & set(re.split(r"[_/.]", str(path.relative_to(ROOT))))]
    assert offenders == []


def test_no_file_is_longer_than_can_be_read_in_one_go() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*sources(), *tests]
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES
    }
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": length
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_every_module_and_public_class_says_what_it_is() -> None:
    silent = []
    for path in sources():
        tree = ast.parse(path.read_text())
        if tree.body and ast.get_docstring(tree) is None:
            silent.append(str(path.relative_to(ROOT)))
        silent += [
            f"{path.relative_to(ROOT)}:{node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        ]
    assert silent == []


def test_no_path_that_reads_bytes_knows_pickle() -> None:
    pattern = re.compile(r"^\s*(import|from)\s+(pickle|cloudpickle|dill|marshal|shelve)\b", re.MULTILINE)
    assert [path for path in sources() if pattern.search(path.read_text())] == []


def test_no_data_file_is_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [
        name for name in tracked.splitlines() if name.endswith((".parquet", ".csv", ".dat", ".zip"))
    ] == []
