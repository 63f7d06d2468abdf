"""The `banyan` command: it runs a command line, and turns errors into sentences and exit codes."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from banyan.cli.late_typer import Exit, UsageMistake
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

if TYPE_CHECKING:
    from banyan.cli.late_typer import Typer

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""The code of a process that SIGPIPE has ended: the reader of our output has closed the pipe."""
_SHOWN = 40
_COMPLETING = "_BANYAN_COMPLETE"
"""The variable with which a shell asks for completions."""

_MISTAKES = (BadRequest, NotFound, Conflict, PreconditionFailed, TooLarge, Invalid, SetupError)


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
    """Run the command of these arguments; return the exit code. An error is one sentence on stderr."""
    try:
        status = _do(list(arguments))
    except (KeyboardInterrupt, EOFError):
        return EXIT_INTERRUPTED
    except Exit as end:
        return end.exit_code
    except UsageMistake as error:
        return complain(str(error), EXIT_USAGE)
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


def _do(arguments: list[str]) -> Any:
    """Run the command of these arguments; Typer is imported only for command lines that are not plain."""
    if os.environ.get(_COMPLETING) is not None:
        return _with_typer(arguments, None)
    if arguments in ([], ["-h"], ["--help"]):
        from banyan.cli import overview

        print(overview.overview(overview.columns()))
        return 0 if arguments else EXIT_USAGE
    from banyan.cli.commands import COMMANDS, banyan, declared
    from banyan.cli.reading import read

    if arguments == ["--version"]:
        return banyan(version=True)
    if arguments[0] not in COMMANDS:
        return _with_typer(arguments, None)
    commands = declared(arguments[:1])
    steps = read(commands, arguments)
    return _with_typer(arguments, commands) if steps is None else [step.run() for step in steps][-1]


def _with_typer(arguments: list[str], commands: "Typer | None") -> Any:
    from banyan.cli import with_typer

    return with_typer.run(arguments, commands)


def utf8(argument: str) -> str:
    """Return the argument as UTF-8, where the locale has fewer characters than that."""
    try:
        return os.fsencode(argument).decode() if any("\udc80" <= c <= "\udcff" for c in argument) else argument
    except UnicodeDecodeError:
        return argument


def _lose(error: OutputLost) -> int:
    """Return the exit code for output that cannot be written."""
    drop_output()
    return EXIT_UNREAD if error.unread else complain(str(error), EXIT_USAGE)


def _fault(error: Exception) -> str | None:
    """Return the sentence for a fault of the machine or of the command line; None for a fault of ours."""
    if isinstance(error, UnicodeEncodeError):
        return f"{_word(error)} is not UTF-8; only files and their names may have other bytes"
    if isinstance(error, UnicodeError):
        return f"the input is not UTF-8: {error}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if "home directory" in str(error):  # pathlib's words for a ~ of a user without a home
        return "there is no home directory that ~ could stand for; write the whole path"
    return None


def exit_status(error: BanyanError) -> int:
    """Return the exit code that shows a script the kind of the error."""
    return EXIT_USAGE if isinstance(error, _MISTAKES) else EXIT_REFUSED


def _word(error: UnicodeEncodeError) -> str:
    """Return the text that cannot be sent, cut out of its JSON."""
    text = error.object
    begin = max(text.rfind('"', 0, error.start) + 1, error.start - _SHOWN)
    end = text.find('"', error.end)
    word = text[begin : min(end if end >= 0 else len(text), error.end + _SHOWN)]
    return f"'{word.encode(errors='surrogateescape').decode(errors='backslashreplace')}'"


def complain(sentence: str, status: int) -> int:
    """Print an error on stderr; return `status`."""
    NOTICES.reset()
    print(f"banyan: {sentence}", file=sys.stderr)
    return status
