"""The common options of the commands that submit tasks, and the fields of a task that they set."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from banyan.cli import completion
from banyan.cli import late_typer as typer
from banyan.cli.ids import Kind, resolve

Name = Annotated[str | None, typer.Option(help="A name to find it by.")]
Queue = Annotated[str | None, typer.Option(help="The queue; `default` if not given.", autocompletion=completion.queues)]
Priority = Annotated[int | None, typer.Option(help="Higher ones are taken first.")]
Cores = Annotated[float | None, typer.Option(help="Cores to reserve, fractions allowed; 1 by default.")]
Memory = Annotated[str | None, typer.Option(help="Memory to reserve, such as '1 GiB'; then enforced.")]
Gpus = Annotated[int | None, typer.Option(help="GPUs to reserve.")]
Scratch = Annotated[str | None, typer.Option(help="Disk space to reserve, such as '10 GiB'.")]
MaxRetries = Annotated[int | None, typer.Option(help="How often to try again after a failure.")]
RetryDelay = Annotated[str | None, typer.Option(help="Wait before a retry, such as 30s; it doubles.")]
Timeout = Annotated[str | None, typer.Option(help="Stop it after this time, such as 90s or 2h.")]
NotBefore = Annotated[
    str | None, typer.Option(help="Not earlier than, such as '2030-04-02T10:29:13+02:00'; UTC without an offset.")
]
After = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID[:failure|:any]",
        help="Start when this task has succeeded (failed, ended); several, or - for those on standard input.",
        autocompletion=completion.tasks,
    ),
]
Directory = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Run a command there; if not given, in this directory.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Run a command in an empty work directory of its own.")]
Env = Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a variable of its environment.")]
Export = Annotated[bool, typer.Option("--export", help="Send this shell's environment along.")]
Stdin = Annotated[str | None, typer.Option(metavar="FILE", help="Text for its standard input; - reads ours.")]


class ResultFrom(StrEnum):
    """The sources of a command's result."""

    FILE = "file"
    STDOUT = "stdout"


Result = Annotated[
    ResultFrom | None,
    typer.Option(help="Take the result from the last line of `stdout`, as JSON; else from the `file` $BANYAN_RESULT."),
]
Tag = Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag to find it by; may be repeated.")]
Label = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="Only on workers with this label; may be repeated.")
]
Hold = Annotated[bool, typer.Option("--hold", help="Keep it back until `banyan release`.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")]
Answer = Annotated[bool, typer.Option("--json", help="Print the server's answer instead of the id.")]

SECRETS = "BANYAN_"
"""The beginning of variables of the environment that are never sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options for any task on a command line; `spread` makes options of a command of these."""

    name: Name = None
    queue: Queue = None
    priority: Priority = None
    cores: Cores = None
    memory: Memory = None
    gpus: Gpus = None
    scratch: Scratch = None
    max_retries: MaxRetries = None
    retry_delay: RetryDelay = None
    timeout: Timeout = None
    not_before: NotBefore = None
    after: After = None
    directory: Directory = None
    fresh: Fresh = False
    tag: Tag = None
    label: Label = None
    hold: Hold = False

    def fields(self) -> dict[str, Any]:
        """Return the task's fields, released unless it is held; fields without an option are None or empty."""
        amounts = {"cores": _plain(self.cores), "memory": self.memory, "gpus": self.gpus, "scratch": self.scratch}
        return {
            "name": self.name,
            "queue": self.queue,
            "priority": self.priority,
            "requested_resources": given(amounts),
            "max_retry_count": self.max_retries,
            "retry_delay": self.retry_delay,
            "timeout": self.timeout,
            "not_before": self.not_before,
            "dependencies": [parent for text in self.after or () for parent in parse_parents(text)],
            "directory": self.given_directory(),
            "tags": list(self.tag or ()),
            "requires": pairs(self.label or (), "--label"),
            "hold": self.hold or None,
            "state": "available",
        }

    def given_directory(self) -> str | None:
        """Return the absolute directory of `--dir`, if it is given."""
        if self.directory is None:
            return None
        if self.fresh:
            raise typer.BadParameter("it does not go with --fresh", param_hint="--dir")
        return _sendable(self.directory, "--dir")

    def submission_directory(self) -> str | None:
        """Return the directory for a command: that of `--dir`, else this one; None for an empty one of its own."""
        if self.fresh or self.directory is not None:
            return self.given_directory()
        return _sendable(Path(), None)


def _sendable(directory: Path, option: str | None) -> str:
    """Return the absolute path of a directory, as text."""
    another = "" if option else "; --dir names another directory, --fresh takes an empty one"
    try:
        path = str(directory.absolute())
        path.encode()
    except FileNotFoundError as error:
        text = f"the directory of this shell does not exist any more{another}"
        raise typer.BadParameter(text, param_hint=option) from error
    except UnicodeEncodeError as error:
        text = f"the name of the directory {os.fsencode(directory.absolute())!r} is no UTF-8{another}"
        raise typer.BadParameter(text, param_hint=option) from error
    return path


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of its parameter `task`, a `TaskOptions`, in place of that parameter."""
    hints = get_type_hints(TaskOptions, include_extras=True)
    mine = [
        Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in dataclasses.fields(TaskOptions)
    ]

    @functools.wraps(command)
    def spread_command(**values: Any) -> None:
        task = TaskOptions(**{each.name: values.pop(each.name) for each in mine})
        command(**values, task=task)

    own = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        replaced = parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=own[name])
        parameters += mine if name == "task" else [replaced]
    vars(spread_command)["__signature__"] = Signature(parameters)
    spread_command.__annotations__ = {each.name: each.annotation for each in parameters}
    return spread_command


def command_fields(
    *,
    command: Sequence[str] | None,
    env: Sequence[str] | None,
    export: bool,
    stdin: str | None,
    result: ResultFrom | None,
) -> dict[str, Any]:
    """Return the fields of these options for a task that runs a command; one word alone is a line for the shell."""
    return {
        "command": command[0] if command and len(command) == 1 else list(command or ()),
        "env": environment(os.environ if export else {}, env or ()),
        "stdin": text_of(stdin) if stdin else None,
        "result_from": str(result) if result else None,
    }


def environment(exported: Mapping[str, str], settings: Sequence[str]) -> dict[str, str]:
    """Return the exported variables, without our own secrets, and the `K=V` settings over them."""
    kept = {name: value for name, value in exported.items() if not name.startswith(SECRETS)}
    return kept | pairs(settings, "--env")


def text_of(path: str) -> str:
    """Return the text of a file; `-` is stdin."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read as text: {error}", param_hint="--stdin") from error


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are set."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def parse_parents(text: str) -> list[str | dict[str, str]]:
    """Return `ID`, `ID:failure` or `ID:any` as dependencies; commas separate several, `-` is those of stdin."""
    found: list[str | dict[str, str]] = []
    for each in text.split(","):
        parent, colon, on = each.strip().partition(":")
        if colon and on not in ("success", "failure", "any"):
            raise typer.BadParameter(f"{each!r}: write ID, ID:failure or ID:any", param_hint="--after")
        tasks = resolve(Kind.TASK, [parent], "--after")
        found += [{"task": task, "on": on} for task in tasks] if colon else tasks
    return found


def pairs(settings: Sequence[str], option: str) -> dict[str, str]:
    """Return `NAME=VALUE` texts as a table."""
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{setting!r} is not of the form NAME=VALUE", param_hint=option)
        found[name] = value
    return found


def _plain(number: float | None) -> float | int | None:
    return int(number) if number is not None and number.is_integer() else number
