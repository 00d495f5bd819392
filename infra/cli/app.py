"""The command line `headrace`: one module per verb, errors on one line.

Heavy imports happen inside the verbs, so that `headrace --help` answers at once.
"""

from __future__ import annotations

import sys

import typer

from infra.cli import broker, demo, doctor, job, join, promote, rank, replay, serve, train
from recsys.errors import RecsysError

REFUSED = 2

app = typer.Typer(
    name="headrace",
    help="A recommender platform that learns while it serves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo", rich_help_panel="Start here")(demo.demo)
app.command("doctor", rich_help_panel="Start here")(doctor.doctor)
app.command("broker", rich_help_panel="The loop")(broker.broker)
app.command("replay", rich_help_panel="The loop")(replay.replay)
app.command("join", rich_help_panel="The loop")(join.join)
app.command("train", rich_help_panel="The loop")(train.train)
app.command("serve", rich_help_panel="The loop")(serve.serve)
app.command("rank", rich_help_panel="The loop")(rank.rank)
app.add_typer(job.app, name="job", rich_help_panel="Models")
app.command("promote", rich_help_panel="Models")(promote.promote)


def main() -> None:
    """Run one verb; a refusal becomes one line on stderr and exit status 2."""
    try:
        app()
    except RecsysError as error:
        sys.stderr.write(f"headrace: {' '.join(str(error).split())}\n")
        raise SystemExit(REFUSED) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
