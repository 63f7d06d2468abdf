"""`banyan cancel`, `retry` and `wait`: steer tasks, and wait for their end."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import late_typer as typer
from banyan.cli import retrying
from banyan.cli.changes import changes_of, name_entries, settings_of
from banyan.cli.connection import connect
from banyan.cli.ends import print_ends
from banyan.cli.ids import Ids, SomeIds, resolve_parents
from banyan.cli.names import check_matched
from banyan.cli.output import print_json, screen, task_state
from banyan.cli.steering import check_choice, each, in_batches, matching
from banyan.cli.waiting import shown_in

if TYPE_CHECKING:
    from banyan.client import Client, Document


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Filter = Annotated[str | None, typer.Option(metavar="JSON", help='Filter, such as \'{"name": "a"}\'.')]
SHOWN = 20
"""The number of tasks or sweeps that are listed if `Count` is not given."""
Count = Annotated[
    int | None,
    typer.Option("--count", "-n", min=1, max=1000, help=f"How many to show: {SHOWN} if not given, with --json all."),
]
Page = Annotated[int, typer.Option(min=1, help="Which part, when there are more.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (cancel, retry, wait):
        app.command()(command)


def cancel(
    ids: SomeIds = None,
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Cancel all that match this filter.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the tasks that would be cancelled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel tasks: running ones get SIGTERM, later SIGKILL; tasks that depend on them are cancelled, too."""
    check_choice(ids, where)
    client = connect()
    if ids and not dry_run:
        in_batches(ids, lambda batch: client.cancel_many(batch)["_items"], as_json)
        return
    chosen = read_filter(where) or {}
    answer = client.cancel_many(ids, None if ids else chosen, dry_run=dry_run)
    matching(client, chosen, answer, "cancelled", "would be cancelled" if dry_run else "cancelled", as_json)


def retry(
    ids: SomeIds = None,
    where: Annotated[str | None, typer.Option(metavar="JSON", help="Retry all that match this filter.")] = None,
    texts: retrying.Set = None,
    downstream: retrying.WhatFollows = retrying.Downstream.REFUSE,
    without: retrying.Without = None,
    dry_run: retrying.DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let ended tasks run again, with the descendants that were cancelled because of them.

    Example: `banyan retry ID --set memory='4 GiB' --downstream keep`.
    """
    check_choice(ids, where)
    options = retrying.options_of(downstream, resolve_parents(without or ()), dry_run)
    changes = settings_of(texts or (), "--set")
    client = connect()
    if where is not None and not name_entries(changes):
        retrying.retry_where(client, read_filter(where) or {}, changes, options, as_json)
        return
    if where is not None:  # each task has other entries beside the changed ones
        ids = ids_matching(client, where)
    if ids and len(ids) > 1 and not name_entries(changes):
        retrying.retry_together(client, ids, changes, options, as_json)
        return

    def act(task: str) -> "Document":
        new = changes_of(changes, lambda: client.task(task), "--set")
        return client.retry(task, new, **options)

    each(ids or [], act, as_json, retrying.described)


def ids_matching(client: "Client", where: str) -> list[str]:
    """Return the ids of the tasks that match a filter; an error for a filter that names nothing that is there."""
    chosen = read_filter(where) or {}
    ids = [task["_id"] for task in client.each_task(chosen, ["_id"])]
    if not ids:
        check_matched(client, chosen)
    return ids


def wait(
    ids: Ids,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds (exit 1).")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until the tasks have ended; exit 0 if all succeeded, else 1."""
    wait_for(connect(), ids, timeout, as_json)


def wait_for(client: "Client", ids: list[str], timeout: float | None = None, as_json: bool = False) -> None:
    """Wait with a progress bar, print each end on stderr, with the last lines of failed tasks; then exit 1."""
    ended = waited(client, ids, timeout)
    if as_json:
        print_json(ended)
    failed = [task for task in ended if task.get("exit_status") != "success"]
    told = failed if len(ended) > 1 else ended
    print_ends(client, told, [f"{task['_id']}: {task.get('exit_status') or task['state']}" for task in told])
    if len(ended) > 1:
        print(f"{len(ended) - len(failed)} of {len(ended)} tasks succeeded", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def waited(client: "Client", ids: list[str], timeout: float | None = None) -> "list[Document]":
    """Return the tasks once they have ended, with a progress bar meanwhile; Ctrl-C ends only the wait (exit 130)."""
    with stops_waiting_alone(ids):
        return _watched(client, ids, timeout)


@contextmanager
def stops_waiting_alone(ids: Sequence[str], *, waits: bool = True) -> Iterator[None]:
    """Print that the tasks go on when Ctrl-C ends the block, and exit with 130; only where it `waits`."""
    try:
        yield
    except KeyboardInterrupt:
        if not waits:
            raise
        goes_on = "the task goes on" if len(ids) == 1 else "the tasks go on"
        print(f"banyan: stopped waiting; {goes_on} (`banyan cancel ID` ends one)", file=sys.stderr)
        raise typer.Exit(130) from None


def read_filter(text: str | None) -> dict[str, Any] | None:
    """Return the JSON object of a `--where` option."""
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

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
