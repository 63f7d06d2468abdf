"""`banyan cancel`, `retry` and `wait`: steer tasks, and wait for their end."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from banyan.cli import late_typer as typer
from banyan.cli import retrying
from banyan.cli.connection import connect
from banyan.cli.ids import Ids, SomeIds, resolve_parents
from banyan.cli.names import check_matched
from banyan.cli.output import print_json, screen, task_state
from banyan.cli.waiting import shown_in
from banyan.errors import BanyanError

if TYPE_CHECKING:
    from banyan.client import Client, Document


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (cancel, retry, wait):
        app.command()(command)


def cancel(
    ids: SomeIds = None,
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Cancel all that match this filter.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cancel tasks: running ones get SIGTERM, later SIGKILL; what depends on them is cancelled too."""
    if bool(ids) == (where is not None):
        raise typer.BadParameter("give ids, or --where", param_hint="ID")
    if where is not None:
        client, chosen = connect(), read_filter(where) or {}
        answer = client.update_where(chosen, {"state": "cancelled"})
        if not answer["matched"]:
            check_matched(client, chosen)
        if as_json:
            print_json(answer)
        else:
            print(f"{answer['updated']} of {answer['matched']} matching tasks cancelled")
        return
    _each(ids or [], lambda client, task: client.cancel(task), as_json)


def retry(
    ids: SomeIds = None,
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Retry all that match this filter.")] = None,
    changes: retrying.Set = None,
    downstream: retrying.WhatFollows = retrying.Downstream.REFUSE,
    without: retrying.Without = None,
    dry_run: retrying.DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let ended tasks run again, with the descendants that were cancelled because of them.

    Example: `banyan retry ID --set requested_resources.memory='4 GiB' --downstream keep`.
    """
    if bool(ids) == (where is not None):
        raise typer.BadParameter("give ids, or --where", param_hint="ID")
    options = retrying.options_of(downstream, resolve_parents(without or ()), dry_run)
    if where is not None and not retrying.names_entries(changes or ()):
        retrying.retry_where(connect(), read_filter(where) or {}, changes or (), options, as_json)
        return
    if where is not None:  # each task has other entries beside those that change
        ids = [task["_id"] for task in connect().each_task(read_filter(where), ["_id"])]

    def act(client: "Client", task: str) -> "Document":
        new = retrying.changes_of(changes or (), lambda: client.task(task))
        return client.retry(task, new, **options)

    _each(ids or [], act, as_json, retrying.described)


def wait(
    ids: Ids,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds (exit 1).")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until the tasks have ended; exit 0 if all succeeded, else 1."""
    wait_for(connect(), ids, timeout, as_json)


def wait_for(client: "Client", ids: list[str], timeout: float | None = None, as_json: bool = False) -> None:
    """Wait with a progress bar and say on stderr how it ended; exit 1 unless every task succeeded."""
    ended = waited(client, ids, timeout)
    if as_json:
        print_json(ended)
    failed = [task for task in ended if task.get("exit_status") != "success"]
    for task in failed if len(ended) > 1 else ended:
        print(f"{task['_id']}: {task.get('exit_status') or task['state']}", file=sys.stderr)
    if len(ended) > 1:
        print(f"{len(ended) - len(failed)} of {len(ended)} tasks succeeded", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def waited(client: "Client", ids: list[str], timeout: float | None = None) -> "list[Document]":
    """The tasks once they have ended, which a progress bar waits for; Ctrl-C stops the waiting alone (exit 130)."""
    try:
        return _watched(client, ids, timeout)
    except KeyboardInterrupt:
        goes_on = "the task goes on" if len(ids) == 1 else "the tasks go on"
        print(f"banyan: stopped waiting; {goes_on} (`banyan cancel ID` ends one)", file=sys.stderr)
        raise typer.Exit(130) from None


def read_filter(text: str | None) -> dict[str, Any] | None:
    """The JSON object of a `--where` option."""
    if text is None:
        return None
    try:
        where = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"it is not JSON: {error}", param_hint="--where") from error
    if not isinstance(where, dict):
        raise typer.BadParameter('write an object, such as \'{"state": "running"}\'', param_hint="--where")
    return where


def _watched(client: "Client", ids: list[str], timeout: float | None) -> "list[Document]":
    console = screen(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *((BarColumn(), MofNCompleteColumn()) if len(set(ids)) > 1 else ()),
        TimeElapsedColumn(),
        TextColumn("{task.fields[notice]}", style="yellow"),
    )
    shown = Progress(*columns, console=console, transient=True)
    states: dict[str, str] = {}
    with shown_in(shown) if console.is_terminal else nullcontext():
        bar = shown.add_task("waiting", total=len(set(ids)), notice="")

        def advance(task: "Document") -> None:
            states[task["_id"]] = str(task_state(task))
            ended = sum(state in ("terminated", "cancelled") for state in states.values())
            running = sum(state == "running" for state in states.values())
            text = states[task["_id"]] if len(set(ids)) == 1 else f"{running} running"
            shown.update(bar, completed=ended, description=text)

        return client.wait(ids, timeout, advance)


def _each(
    ids: list[str],
    act: "Callable[[Client, str], Document]",
    as_json: bool,
    described: "Callable[[Document], str]" = lambda answer: f"{answer['_id']} {answer['state']}",
) -> None:
    client = connect()
    answers: list[Document] = []
    problems: list[BanyanError] = []
    for task in ids:
        try:
            answers.append(act(client, task))
        except BanyanError as error:
            problems.append(error)
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            print(described(answer))
    for problem in problems[:-1]:
        print(f"banyan: {problem}", file=sys.stderr)
    if problems:
        raise problems[-1]
