"""`banyan submit`: a command line becomes a task."""

from typing import Annotated

import typer

from banyan.cli import options
from banyan.cli.act import wait_for
from banyan.cli.connection import connect
from banyan.cli.output import print_json


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
    directory: options.Directory = None,
    env: options.Env = None,
    export: options.Export = False,
    stdin: options.Stdin = None,
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
        directory=directory, tag=tag, label=label, hold=hold,
    )  # fmt: skip
    task |= options.command_fields(command=command, env=env, export=export, stdin=stdin)
    client = connect()
    answer = client.submit(options.given(task))
    if as_json:
        print_json(answer)
    else:
        print(answer["_id"], flush=True)
    if wait:
        wait_for(client, [answer["_id"]])
