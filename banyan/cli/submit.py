"""`banyan submit`: a command line becomes a task."""

from typing import Annotated

from banyan.cli import late_typer as typer
from banyan.cli import options
from banyan.cli.act import wait_for
from banyan.cli.connection import connect
from banyan.cli.explain import warn_if_unfit
from banyan.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(submit)


@options.spread
def submit(
    *,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND",
            help="Run as it is; one argument alone is a line for /bin/sh. Without a command the task is a group.",
        ),
    ] = None,
    task: options.TaskOptions,
    env: options.Env = None,
    export: options.Export = False,
    stdin: options.Stdin = None,
    wait: options.Wait = False,
    as_json: options.Answer = False,
) -> None:
    """Put a task in the queue and print its id.

    Example: `banyan submit --cores 2 --memory '1 GiB' -- python sweep.py 17`
    """
    if not command and not task.after and task.name is None:
        raise typer.BadParameter("give a command after `--` (or --name or --after for a group)", param_hint="COMMAND")
    fields = task.fields() | options.command_fields(command=command, env=env, export=export, stdin=stdin)
    if command:
        fields["directory"] = task.submission_directory()
    client = connect()
    answer = client.submit(options.given(fields))
    if as_json:
        print_json(answer)
    else:
        print(answer["_id"], flush=True)
    warn_if_unfit(client, answer["_id"])
    if wait:
        wait_for(client, [answer["_id"]])
