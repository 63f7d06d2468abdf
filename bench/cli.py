"""The command `banyan-bench`."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from banyan.errors import BanyanError
from bench import table
from bench.question import Question, Size
from bench.questions import QUESTIONS, named
from bench.session import Session, measure

app = typer.Typer(name="banyan-bench", no_args_is_help=True, pretty_exceptions_enable=False)

_FAILED, _USAGE, _ENDED = 1, 2, 143

SizeOption = Annotated[Size, typer.Option(help="quick: within 15 minutes on two cores; full: as much as it deserves.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write all that was measured to this file.")]


@app.callback()
def banyan_bench() -> None:
    """How fast Banyan is, beside its peers and floors in the same session."""


@app.command("list")
def list_() -> None:
    """Name the questions."""
    for question in QUESTIONS:
        print(f"{question.name}\n    {question.text}")
        for target in question.targets:
            print(f"    target: {target.text}")


@app.command()
def compare(
    size: SizeOption = Size.QUICK,
    only: Annotated[list[str] | None, typer.Option(help="Ask this question only; several.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure every question beside its peers and floors, and print the table; exit 1 if one could not be measured."""
    _measure([named(each) for each in only] if only else QUESTIONS, size, json_file)


@app.command()
def run(name: str, size: SizeOption = Size.QUICK, json_file: JsonOption = None) -> None:
    """Measure one question."""
    _measure([named(name)], size, json_file)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="What `compare --json` wrote.")],
    docs: Annotated[Path, typer.Option(help="The directory of the documentation.")] = Path("docs"),
) -> None:
    """Make the plots, and the table of performance.md, from results."""
    from bench.page import write

    for path in write(Session.from_json(results.read_text()), docs):
        print(path)


def main() -> None:
    """Run the command line and exit: 0 done, 1 a line was not measured, 2 a mistake in what was asked.

    SIGTERM ends it as Ctrl-C does: what was started is stopped, and its directories are removed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED))
    try:
        sys.exit(app(standalone_mode=True))
    except BanyanError as error:
        print(f"banyan-bench: {error}", file=sys.stderr)
        sys.exit(_USAGE)


def _measure(questions: Sequence[Question], size: Size, json_file: Path | None) -> None:
    def keep(session: Session) -> None:
        if json_file is not None:
            json_file.write_text(session.to_json())

    session = measure(questions, size, keep)
    print(table.text(session), end="")
    if any(line.error for line in session.lines):
        raise typer.Exit(_FAILED)
