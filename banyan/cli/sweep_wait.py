"""The wait for a sweep, with a progress bar."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from banyan.cli import late_typer as typer
from banyan.cli import output, sweep_view
from banyan.cli.ends import print_ends
from banyan.cli.waiting import shown_in

if TYPE_CHECKING:
    from banyan.client import Client, Document

_NAMED = 5
"""The most failed tasks that are named."""


def wait_for(client: "Client", sweep_id: str, timeout: float | None = None, as_json: bool = False) -> None:
    """Wait with a progress bar and print the end on stderr; exit 1 unless every task succeeded."""
    with stops_waiting_alone(sweep_id):
        sweep = _watched(client, sweep_id, timeout)
    if as_json:
        output.print_json(sweep)
    told = failed(client, sweep)
    print_ends(client, told, [f"[{task['index']}] {task['_id']}: {task['exit_status']}" for task in told])
    progress = sweep["progress"]
    print(sweep_view.outcome(progress), file=sys.stderr)
    barrier = _end_of_barrier(client, sweep)
    if barrier is not None and barrier["exit_status"] != "success":
        print_ends(client, [barrier], [f"barrier {sweep['barrier']}: {barrier['exit_status']}"])
    if progress["failed"] or progress["cancelled"] or (barrier and barrier["exit_status"] != "success"):
        raise typer.Exit(1)


@contextmanager
def stops_waiting_alone(sweep_id: str, *, waits: bool = True) -> Iterator[None]:
    """Print that the sweep goes on when Ctrl-C ends the block, and exit with 130; only where it `waits`."""
    try:
        yield
    except KeyboardInterrupt:
        if not waits:
            raise
        print(f"banyan: stopped waiting; the sweep goes on (`banyan sweep cancel {sweep_id}` ends it)", file=sys.stderr)
        raise typer.Exit(130) from None


def failed(client: "Client", sweep: Mapping[str, Any]) -> "list[Document]":
    """Return the first failed tasks of a sweep."""
    if not sweep["progress"]["failed"]:
        return []
    where = {"sweep": sweep["_id"], "state": "terminated", "exit_status": {"$ne": "success"}}
    return client.tasks(where, "index", ["index", "exit_status", "execution", "inputs"], _NAMED).items


def _end_of_barrier(client: "Client", sweep: Mapping[str, Any]) -> "Document | None":
    """Return the end of a barrier; None when there is none any more."""
    if sweep["progress"].get("barrier", "deleted") == "deleted":
        return None
    return client.task(sweep["barrier"], ["exit_status", "execution"])


def _watched(client: "Client", sweep_id: str, timeout: float | None) -> "Document":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = output.screen(stderr=True)
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    notice = TextColumn("{task.fields[notice]}", style="yellow")
    shown = Progress(*columns, TimeElapsedColumn(), notice, console=console, transient=True)
    with shown_in(shown) if console.is_terminal else nullcontext():
        bar = shown.add_task("waiting", total=None, notice="")

        def advance(progress: "Document") -> None:
            done = round(progress["fraction"] * progress["count"])
            shown.update(bar, total=progress["count"], completed=done, description=sweep_view.pulse(progress))

        return client.wait_sweep(sweep_id, timeout, advance)
