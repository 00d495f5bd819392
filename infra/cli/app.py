"""The command line `headrace`: one module per verb, errors on one line.

Heavy imports happen inside the verbs, so that `headrace --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from infra.cli import (
    broker,
    dead_letter,
    demo,
    doctor,
    evaluate,
    job,
    join,
    promote,
    rank,
    replay,
    score,
    serve,
    topics,
    train,
)
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
app.add_typer(train.app, name="train", rich_help_panel="The loop")
app.command("serve", rich_help_panel="The loop")(serve.serve)
app.command("rank", rich_help_panel="The loop")(rank.rank)
app.add_typer(topics.app, name="topics", rich_help_panel="The log")
app.add_typer(dead_letter.app, name="dead-letter", rich_help_panel="The log")
app.add_typer(job.app, name="job", rich_help_panel="Models")
app.command("score", rich_help_panel="Models")(score.score)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel="Models")
app.command("promote", rich_help_panel="Models")(promote.promote)


def main() -> None:
    """Run one verb; a refusal becomes one line on stderr and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except (RecsysError, OSError) as error:
        _refuse(str(error))
    except TyperException as error:
        _refuse(error.format_message())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    # What a verb returns, or the status that it asked to exit with.
    raise SystemExit(status)


def _refuse(sentence: str) -> NoReturn:
    words = " ".join(sentence.split())
    if words:  # a verb without arguments has shown its help, and has nothing to add
        sys.stderr.write(f"headrace: {words}\n")
    raise SystemExit(REFUSED) from None


if __name__ == "__main__":
    main()
