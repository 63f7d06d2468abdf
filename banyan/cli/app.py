"""The `banyan` command: its commands, and what it says and how it exits when something is wrong."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from banyan.cli import (
    act,
    backups,
    demo,
    explain,
    files,
    look,
    models,
    processes,
    queues,
    report,
    submit,
    sweeps,
    users,
)
from banyan.cli.streams import OutputLost, drop_output
from banyan.cli.waiting import NOTICES
from banyan.errors import (
    BadRequest,
    BanyanError,
    Conflict,
    Invalid,
    NotFound,
    PreconditionFailed,
    SetupError,
    TooLarge,
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""As if SIGPIPE had ended us: who reads our output has enough of it."""
_SHOWN = 40

_MISTAKES = (BadRequest, NotFound, Conflict, PreconditionFailed, TooLarge, Invalid, SetupError)

app = typer.Typer(
    name="banyan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def banyan(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """A queue for many computations on whatever machines you have.

    `banyan up` starts everything on this machine. Then, in a second terminal:
    `banyan submit -- echo hello`, `banyan list`, `banyan logs ID`.
    Programs add `--json`.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"banyan {installed('banyan-queue')}")
        raise typer.Exit


for commands in (processes, demo, submit, models, sweeps, look, explain, files, act, report, queues, users, backups):
    commands.register(app)


def main() -> None:
    """Run the command line and exit: 0 done, 1 the task failed, 2 usage, 3 cannot reach or not allowed."""
    status = run([utf8(each) for each in sys.argv[1:]])
    NOTICES.reset()
    try:
        sys.stdout.flush()
    except OutputLost as error:
        status = _lose(error) if status == 0 else status
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and answer with the exit code; what is wrong is said on stderr in one sentence."""
    try:
        status = app(list(arguments), standalone_mode=False, prog_name="banyan")
    except typer.Abort:
        return EXIT_INTERRUPTED
    except TyperException as error:
        return _usage(error)
    except OutputLost as error:
        return _lose(error)
    except BanyanError as error:
        return complain(str(error), exit_status(error))
    except TimeoutError as error:
        return complain(str(error), EXIT_FAILED)
    except (OSError, RuntimeError, UnicodeError) as error:
        if (sentence := _fault(error)) is None:
            raise
        return complain(sentence, EXIT_USAGE)
    return status if isinstance(status, int) else 0


def utf8(argument: str) -> str:
    """The argument; where the locale has fewer characters than its bytes have as UTF-8, with those."""
    try:
        return os.fsencode(argument).decode() if any("\udc80" <= c <= "\udcff" for c in argument) else argument
    except UnicodeDecodeError:
        return argument


def _lose(error: OutputLost) -> int:
    """The exit code when the output cannot be written."""
    drop_output()
    return EXIT_UNREAD if error.unread else complain(str(error), EXIT_USAGE)


def _fault(error: Exception) -> str | None:
    """What the machine or the words of the command line do not allow, in a sentence; None for a fault of ours."""
    if isinstance(error, UnicodeEncodeError):
        return f"{_word(error)} is not UTF-8; only files and their names may have other bytes"
    if isinstance(error, UnicodeError):
        return f"what was read is not UTF-8: {error}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if "home directory" in str(error):  # pathlib's words for a ~ of a user who has none
        return "there is no home directory that ~ could stand for; write the whole path"
    return None


def exit_status(error: BanyanError) -> int:
    """The exit code that tells a script what kind of error it was."""
    return EXIT_USAGE if isinstance(error, _MISTAKES) else EXIT_REFUSED


def _word(error: UnicodeEncodeError) -> str:
    """The text that cannot be sent, cut out of the JSON that it stands in."""
    text = error.object
    begin = max(text.rfind('"', 0, error.start) + 1, error.start - _SHOWN)
    end = text.find('"', error.end)
    word = text[begin : min(end if end >= 0 else len(text), error.end + _SHOWN)]
    return f"'{word.encode(errors='surrogateescape').decode(errors='backslashreplace')}'"


def complain(sentence: str, status: int) -> int:
    """Say on stderr what is wrong; answers with `status`."""
    NOTICES.reset()
    print(f"banyan: {sentence}", file=sys.stderr)
    return status


def _usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return EXIT_USAGE
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    return complain(f"{error.format_message().rstrip('.')}{hint}", EXIT_USAGE)
