"""The compose file cannot be started in a test; what it names must exist all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main
import yaml

from infra.cli.app import app
from infra.settings import settings_from

FOLDER = Path(__file__).parents[2] / "infra" / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "headrace"}


@pytest.mark.parametrize("service", OURS)
def test_every_verb_and_option_is_one_that_the_command_line_has(service):
    command = typer.main.get_command(app)
    words = list(OURS[service]["command"])
    # A verb of verbs, such as train, is one by itself where options follow.
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    # Parsing refuses an unknown option, a missing value and a value of the wrong kind.
    assert command.make_context(service, words) is not None


def test_its_variables_are_settings():
    for service in OURS.values():
        settings_from(service["environment"])


def test_every_file_that_is_mounted_or_built_from_is_there():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (FOLDER / source).exists(), source
        if "build" in service:
            context = FOLDER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file()


def test_services_depend_on_services_that_exist_and_prometheus_asks_the_ports_they_offer():
    names = set(COMPOSE["services"])
    assert all(set(service.get("depends_on", {})) <= names for service in COMPOSE["services"].values())
    prometheus = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    asked = {
        target["labels"]["process"]: target["targets"][0].rpartition(":")[2]
        for target in prometheus["scrape_configs"][0]["static_configs"]
    }
    offered = {
        name: service["command"][service["command"].index("--metrics-port") + 1]
        for name, service in OURS.items()
        if "--metrics-port" in service["command"]
    }
    assert asked == offered
