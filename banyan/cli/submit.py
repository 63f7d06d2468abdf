"""`banyan submit`: a command line becomes a task."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from banyan.cli.act import task_id, wait_for
from banyan.cli.connection import connect
from banyan.cli.output import print_json

SECRETS = "BANYAN_"
"""Variables of the environment that begin so are never sent along."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(submit)


def submit(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="Run as it is; one argument alone is a line for /bin/sh. Without a command the task is a group.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to find it by.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue; `default` if not given.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher ones are taken first.")] = None,
    cores: Annotated[float | None, typer.Option(help="Cores to reserve, fractions allowed; 1 by default.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to reserve, such as '1 GiB'; then enforced.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to reserve.")] = None,
    scratch: Annotated[str | None, typer.Option(help="Disk space to reserve, such as '10 GiB'.")] = None,
    max_retries: Annotated[int | None, typer.Option(help="How often to try again after a failure.")] = None,
    retry_delay: Annotated[str | None, typer.Option(help="Wait before a retry, such as 30s; it doubles.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Stop it after this time, such as 90s or 2h.")] = None,
    not_before: Annotated[
        str | None, typer.Option(help="Not earlier than, such as 'Tue, 02 Apr 2030 10:29:13 GMT'.")
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="ID[:failure|:any]", help="Start when this task has succeeded (failed, ended)."),
    ] = None,
    directory: Annotated[Path | None, typer.Option("--dir", help="Run there, not in a fresh directory.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a variable of its environment.")] = None,
    export: Annotated[bool, typer.Option("--export", help="Send this shell's environment along.")] = False,
    stdin: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text for its standard input; - reads ours.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag to find it by; may be repeated.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Only on workers with this label; may be repeated.")
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it back until `hold` is cleared.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's answer instead of the id.")] = False,
) -> None:
    """Put a task in the queue and print its id.

    Example: `banyan submit --cores 2 --memory '1 GiB' -- python sweep.py 17`
    """
    if not command and not after and name is None:
        raise typer.BadParameter("give a command after `--` (or --name or --after for a group)", param_hint="COMMAND")
    amounts = {"cores": _plain(cores), "memory": memory, "gpus": gpus, "scratch": scratch}
    task: dict[str, Any] = {
        "name": name,
        "command": command[0] if command and len(command) == 1 else command,
        "queue": queue,
        "priority": priority,
        "requested_resources": _given(amounts),
        "max_retry_count": max_retries,
        "retry_delay": retry_delay,
        "timeout": timeout,
        "not_before": not_before,
        "dependencies": [parse_parent(text) for text in after or ()],
        "directory": str(directory.absolute()) if directory else None,
        "env": environment(os.environ if export else {}, env or ()),
        "stdin": _text_of(stdin) if stdin else None,
        "tags": tag,
        "requires": _pairs(label or (), "--label"),
        "hold": hold or None,
    }
    client = connect()
    answer = client.submit(_given(task) | {"state": "available"})
    if as_json:
        print_json(answer)
    else:
        print(answer["_id"], flush=True)
    if wait:
        wait_for(client, [answer["_id"]])


def environment(exported: Mapping[str, str], settings: Sequence[str]) -> dict[str, str]:
    """What is exported, without our own secrets, and the `K=V` settings over it."""
    kept = {name: value for name, value in exported.items() if not name.startswith(SECRETS)}
    return kept | _pairs(settings, "--env")


def parse_parent(text: str) -> str | dict[str, str]:
    """`ID`, `ID:failure` or `ID:any` as a dependency."""
    given, colon, on = text.partition(":")
    task = task_id(given)
    if not colon:
        return task
    if on not in ("success", "failure", "any"):
        raise typer.BadParameter(f"{text!r}: write ID, ID:failure or ID:any", param_hint="--after")
    return {"task": task, "on": on}


def _pairs(settings: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{setting!r} is not of the form NAME=VALUE", param_hint=option)
        pairs[name] = value
    return pairs


def _text_of(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read as text: {error}", param_hint="--stdin") from error


def _plain(number: float | None) -> float | int | None:
    return int(number) if number is not None and number.is_integer() else number


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}
