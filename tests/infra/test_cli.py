"""The command line: every verb explains itself, and a refusal is one line with exit status 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERBS = ["demo", "doctor", "broker", "replay", "join", "train", "serve", "rank"]
VERBS += ["job", "score", "evaluate", "promote"]


def headrace(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cli.app", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **(environment or {})},
    )


def test_help_names_every_verb() -> None:
    listed = headrace("--help")
    assert listed.returncode == 0
    assert all(f" {verb} " in listed.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str) -> None:
    said = headrace(verb, "--help")
    assert said.returncode == 0
    assert "Usage" in said.stdout


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (["train", "--recipe", "moon"], {}, "recipe 'moon' does not exist; use one of kuairand, "),
        (["train", "--bootstrap", "127.0.0.1:1"], {}, "127.0.0.1:1"),
        (["rank", "--user", "1", "--items", "2", "--address", "127.0.0.1:1"], {}, "UNAVAILABLE"),
        (["rank", "--user", "-1", "--items", "2"], {}, "Invalid value for '--user'"),
        (["rank", "--user", "1", "--items", "2,x"], {}, "want ids from 0 to 2**64 - 1"),
        (["train", "--keep", "2", "batch", "--train-until", "2022-05-04"], {}, "it stands before 'batch'"),
        (["train", "--moon"], {}, "No such option: --moon"),
        (["replay", "/nowhere"], {}, "'/nowhere' does not exist"),
        (["join"], {"HEADRACE_MOON": "1"}, "environment variable HEADRACE_MOON"),
        (["demo", "--data", "kuairand"], {}, "set RECSYS_DATA or --data-dir"),
        (["demo", "--data-dir", "/nowhere"], {}, "/nowhere holds no ratings.dat"),
    ],
)
def test_a_refusal_is_one_line_and_exit_status_two(
    words: list[str], environment: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    refused = headrace(*words, environment={"HEADRACE_STATE_DIR": str(tmp_path), **environment})
    assert refused.returncode == 2
    lines = refused.stderr.strip().splitlines()
    assert len(lines) == 1, refused.stderr
    assert lines[0].startswith("headrace: ")
    assert sentence in lines[0]
