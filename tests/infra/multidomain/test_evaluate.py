"""`headrace evaluate multidomain`, from its options to the files that it writes."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from infra.cli.app import app
from recsys.errors import RecsysError

VOID = {"meta", "link", "br", "img", "input"}
TINY = ["--models", "single,adapt_dhm", "--seeds", "2", "--epochs", "1", "--rows", "800"]


def evaluated(*words: str) -> Result:
    result = CliRunner().invoke(app, ["evaluate", "multidomain", *words])
    assert result.exception is None, result.output
    return result


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("evaluated")
    shown = evaluated(*TINY, "--out", str(folder)).output
    assert "adapt_dhm" in shown
    assert f"written: {folder / 'report.html'}" in shown.replace("\n", "")
    return folder


@pytest.fixture(scope="module")
def document(out: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((out / "report.json").read_text(), parse_constant=refuse)


class Elements(HTMLParser):
    """What a page consists of; fails where an element is not closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tables: list[str] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        own = dict(attrs)
        self.ids[own.get("id") or ""] += 1
        self.links += [own[name] or "" for name in ("href", "src", "xlink:href", "data") if name in own]
        if tag == "table":
            self.tables.append(own.get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_the_json_names_the_run_and_every_figure_of_every_model(document: Any) -> None:
    assert document["evaluation"] == "multidomain"
    assert document["seeds"] == [0, 1]
    assert document["training"]["epochs"] == 1
    assert not document["is_full"]
    assert {"commit", "machine"} <= document.keys()
    (data,) = document["data"]
    assert (data["name"], data["rows"]) == ("syn2", {"train": 640, "valid": 80, "test": 80})
    assert data["models"].keys() == {"single", "adapt_dhm"}
    for model in data["models"].values():
        metrics = {"auc", "mean_domain_auc", "worst_domain_auc", "log_loss", "calibration"}
        assert metrics <= model["metrics"].keys()
        assert set(model["domain_auc"]) <= {str(domain) for domain in range(1, 13)}
        assert model["step_ms"] > 0
    assert {name: model["cost"]["n_parameters"] for name, model in data["models"].items()} == {
        "single": 2_849,
        "adapt_dhm": 11_396,
    }
    assert sum(data["models"]["adapt_dhm"]["first_seed"]["shares"]) == pytest.approx(1.0)


def test_means_and_leads_are_those_of_the_trials_that_were_kept(out: Path, document: Any) -> None:
    auc = {
        (model, seed): json.loads((out / f"trials/syn2/{model}-{seed}.json").read_text())["trial"]["scores"][
            "auc"
        ]
        for model in ("single", "adapt_dhm")
        for seed in (0, 1)
    }
    models = document["data"][0]["models"]
    for model in ("single", "adapt_dhm"):
        assert models[model]["metrics"]["auc"]["mean"] == pytest.approx((auc[model, 0] + auc[model, 1]) / 2)
    lead = [auc["adapt_dhm", seed] - auc["single", seed] for seed in (0, 1)]
    found = models["single"]["adapt_dhm_less_this"]["auc"]
    assert found["mean"] == pytest.approx(sum(lead) / 2)
    # Student's t of one degree of freedom is 12.7062 at 97.5 %.
    reach = 12.7062 * abs(lead[0] - lead[1]) / 2
    assert found["high"] - found["mean"] == pytest.approx(reach, rel=1e-4)
    named = {figure["name"]: figure for figure in document["figures"]}
    judged = named["syn2: auc less that of single"]
    assert judged["value"] == found["mean"]
    assert judged["holds"] == (found["mean"] >= 0)


def test_the_page_is_whole_has_all_tables_and_plots_and_asks_the_network_for_nothing(out: Path) -> None:
    text = (out / "report.html").read_text()
    elements = Elements(text)
    tables = {"models", "costs", "leads", "domains", "clusters"}
    assert set(elements.tables) == {"criteria", *(f"syn2-{name}" for name in tables)}
    assert elements.seen["svg"] == elements.seen["figure"] == 4 + 1
    assert elements.seen["script"] == elements.seen["link"] == 0
    assert all(link.startswith(("#", "data:")) for link in elements.links)
    assert not re.search(r"url\((?!#)|@import", text)
    assert {name: n for name, n in elements.ids.items() if name and n > 1} == {}
    assert "nan" not in re.findall(r"[a-z]+", text)


def test_each_plot_is_an_svg_that_takes_its_colours_from_the_page(out: Path) -> None:
    plots = re.findall(r"<svg.*?</svg>", (out / "report.html").read_text(), re.DOTALL)
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "currentColor" in plot
        assert "<text" in plot


def test_a_second_run_repeats_no_trial_and_writes_the_same_figures(out: Path, document: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "trials").rglob("*.json")}
    assert len(before) == 4
    evaluated(*TINY, "--out", str(out))
    assert {path: path.stat().st_mtime_ns for path in (out / "trials").rglob("*.json")} == before
    again = json.loads((out / "report.json").read_text())
    assert (again["data"], again["figures"]) == (document["data"], document["figures"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_tracked_run_keeps_parameters_metrics_and_the_report(
    out: Path, tmp_path: Path, document: Any
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    shown = evaluated(*TINY, "--out", str(out), "--track", "--state-dir", str(tmp_path)).output
    run_id = shown.split("MLflow run: ")[1].split()[0]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["data"], run.data.params["seeds"]) == ("syn2", "2")
    for name, model in document["data"][0]["models"].items():
        recorded = run.data.metrics[f"syn2/{name}/log_loss"]
        assert math.isclose(recorded, model["metrics"]["log_loss"]["mean"])
    kept = client.download_artifacts(run_id, "report", str(tmp_path))
    assert (Path(kept) / "report.html").read_bytes() == (out / "report.html").read_bytes()
    assert json.loads((Path(kept) / "report.json").read_text())["data"] == document["data"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--models", "single,moon"], "model 'moon' does not exist; use some of single, "),
        (["--data", "moon"], "data set 'moon' does not exist; use some of syn2, "),
        (["--data", "kuairand"], "set RECSYS_DATA or pass --data-dir"),
        (["--models", "pepnet"], "model 'pepnet' needs users and items"),
    ],
)
def test_what_does_not_exist_is_refused(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    refused = CliRunner().invoke(app, ["evaluate", "multidomain", "--out", str(tmp_path), *words])
    assert isinstance(refused.exception, RecsysError)
    assert sentence in str(refused.exception)
    assert not list(tmp_path.iterdir())


def test_a_refusal_is_one_line_and_exit_status_two(tmp_path: Path) -> None:
    words = ["evaluate", "multidomain", "--out", str(tmp_path), "--models", "moon"]
    refused = subprocess.run(
        [sys.executable, "-m", "infra.cli.app", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("headrace: model 'moon' does not exist")
