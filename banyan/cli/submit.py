"""`banyan submit`: a command line becomes a task."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from banyan.cli import options
from banyan.cli.act import wait_for
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
    name: options.Name = None,
    queue: options.Queue = None,
    priority: options.Priority = None,
    cores: options.Cores = None,
    memory: options.Memory = None,
    gpus: options.Gpus = None,
    scratch: options.Scratch = None,
    max_retries: options.MaxRetries = None,
    retry_delay: options.RetryDelay = None,
    timeout: options.Timeout = None,
    not_before: options.NotBefore = None,
    after: options.After = None,
    directory: Annotated[Path | None, typer.Option("--dir", help="Run there, not in a fresh directory.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Set a variable of its environment.")] = None,
    export: Annotated[bool, typer.Option("--export", help="Send this shell's environment along.")] = False,
    stdin: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text for its standard input; - reads ours.")
    ] = None,
    tag: options.Tag = None,
    label: options.Label = None,
    hold: options.Hold = False,
    wait: options.Wait = False,
    as_json: options.Answer = False,
) -> None:
    """Put a task in the queue and print its id.

    Example: `banyan submit --cores 2 --memory '1 GiB' -- python sweep.py 17`
    """
    if not command and not after and name is None:
        raise typer.BadParameter("give a command after `--` (or --name or --after for a group)", param_hint="COMMAND")
    task = options.fields(
        name=name, queue=queue, priority=priority, cores=cores, memory=memory, gpus=gpus, scratch=scratch,
        max_retries=max_retries, retry_delay=retry_delay, timeout=timeout, not_before=not_before, after=after,
        tag=tag, label=label, hold=hold,
    )  # fmt: skip
    task |= {
        "command": command[0] if command and len(command) == 1 else command,
        "directory": str(directory.absolute()) if directory else None,
        "env": environment(os.environ if export else {}, env or ()),
        "stdin": _text_of(stdin) if stdin else None,
    }
    client = connect()
    answer = client.submit(options.given(task))
    if as_json:
        print_json(answer)
    else:
        print(answer["_id"], flush=True)
    if wait:
        wait_for(client, [answer["_id"]])


def environment(exported: Mapping[str, str], settings: Sequence[str]) -> dict[str, str]:
    """What is exported, without our own secrets, and the `K=V` settings over it."""
    kept = {name: value for name, value in exported.items() if not name.startswith(SECRETS)}
    return kept | options.pairs(settings, "--env")


def _text_of(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read as text: {error}", param_hint="--stdin") from error
