"""`banyan submit`: a command line becomes a task."""

from typing import Annotated, Any

from banyan.cli import late_typer as typer
from banyan.cli import options
from banyan.cli.act import stops_waiting_alone, wait_for
from banyan.cli.connection import connect
from banyan.cli.explain import warn_if_unfit
from banyan.cli.output import print_json
from banyan.cli.task_file import of_each_kind, read_entries, submit_entries


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
    result: options.Result = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Submit the tasks of this file, JSON lines or a JSON list, all or none; - is standard input. "
            "The other options set fields that a task lacks.",
        ),
    ] = None,
    wait: options.Wait = False,
    as_json: options.Answer = False,
) -> None:
    """Put a task in the queue and print its id.

    It runs in the directory in which it is submitted; the tasks of a file run in empty ones unless they name one.
    Example: `banyan submit --cores 2 --memory '1 GiB' -- python3 sweep.py 17`
    """
    if file is not None:
        if command:
            raise typer.BadParameter("it takes no command beside it", param_hint="--file")
        shared = task.fields() | options.command_fields(
            command=None, env=env, export=export, stdin=stdin, result=result
        )
        _submit_file(file, options.given(shared), wait, as_json)
        return
    if not command and not task.after and task.name is None:
        raise typer.BadParameter("give a command after `--` (or --name or --after for a group)", param_hint="COMMAND")
    fields = task.fields() | options.command_fields(command=command, env=env, export=export, stdin=stdin, result=result)
    if command:
        fields["directory"] = task.submission_directory()
    client = connect()
    answer = client.submit(options.given(fields))
    with stops_waiting_alone([answer["_id"]], waits=wait):
        if as_json:
            print_json(answer)
        else:
            print(answer["_id"], flush=True)
        warn_if_unfit(client, answer["_id"])
        if wait:
            wait_for(client, [answer["_id"]])


def _submit_file(path: str, shared: dict[str, Any], wait: bool, as_json: bool) -> None:
    """Submit the tasks of a file, with the common fields, and print their ids."""
    entries = read_entries(path)
    client = connect()
    answers = submit_entries(client, entries, shared)
    ids = [answer["_id"] for answer in answers]
    with stops_waiting_alone(ids, waits=wait):
        if as_json:
            print_json(answers)
        else:
            print("\n".join(ids), flush=True)
        for id in of_each_kind(entries, answers):
            warn_if_unfit(client, id)
        if wait:
            wait_for(client, ids)
