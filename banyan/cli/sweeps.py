"""`banyan sweep`: many tasks of one request, watched and steered as one. Submitting is in `sweep_submit`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from banyan.cli import late_typer as typer
from banyan.cli import output, retrying, sweep_submit, sweep_view
from banyan.cli.act import SHOWN, AsJson, Count, Filter, Page, read_filter
from banyan.cli.changes import changes_of, settings_of
from banyan.cli.connection import connect
from banyan.cli.ids import SweepId, resolve_parents
from banyan.cli.names import check_matched
from banyan.cli.sweep_wait import failed, wait_for
from banyan.errors import IllegalTransition

if TYPE_CHECKING:
    from banyan.client import Client

_LISTED = ("name", "command", "model", "count", "progress")
_NAMED = 5
"""The most failed tasks that are named."""

group = typer.Typer(no_args_is_help=True, help="Make, watch and steer sweeps: many tasks of one request.")


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    sweep_submit.register(group)
    group.command("list")(list_sweeps)
    for command in (show, results, wait, cancel, retry, delete):
        group.command()(command)
    app.add_typer(group, name="sweep")


def list_sweeps(
    where: Filter = None,
    count: Count = None,
    page: Page = 1,
    as_json: AsJson = False,
) -> None:
    """List sweeps, the newest first, and how far they are."""
    client, chosen = connect(), read_filter(where) or {}
    if as_json and count is None and page == 1:
        if not output.print_json_list(client.each("sweeps", chosen, _LISTED, "-_id")):
            check_matched(client, chosen)
        return
    found = client.sweeps(chosen, "-_id", _LISTED, count or SHOWN, page)
    if not found.total:
        check_matched(client, chosen)
    if as_json:
        output.print_json(found.items)
    else:
        print(*sweep_view.listing(found.items), sep="\n")
    if found.total > len(found.items):
        print(f"{len(found.items)} of {found.total} sweeps; -n shows more, --page the next", file=sys.stderr)


def show(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Show a sweep: what it is, how far it is, how long its tasks take, and which failed."""
    client = connect()
    sweep = client.sweep(sweep_id)
    if as_json:
        output.print_json(sweep)
        return
    statistics = client.sweep_statistics(sweep_id)
    output.screen().print(sweep_view.panel(sweep, statistics, failed(client, sweep)))


def results(
    sweep_id: SweepId,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV.")] = False,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there (CSV, or JSON with --json).")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many rows of the table to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show inputs and results of a sweep's tasks as a table, or print or save all of them as CSV or JSON."""
    if as_csv and as_json:
        raise typer.BadParameter("it is either --csv or --json", param_hint="--csv")
    client = connect()
    if file is not None:
        _save(file, _json(client, sweep_id) if as_json else client.sweep_csv(sweep_id))
    elif as_csv:
        sys.stdout.buffer.write(client.sweep_csv(sweep_id))
        sys.stdout.buffer.flush()
    elif as_json:
        output.print_json(client.sweep_results(sweep_id))
    else:
        table = client.sweep_results(sweep_id)
        output.screen().print(sweep_view.rows(table, count))
        if len(table["_items"]) > count:
            print(f"{count} of {len(table['_items'])} rows; -n shows more, --csv prints all", file=sys.stderr)


def _json(client: "Client", sweep_id: str) -> bytes:
    from banyan import wire

    return wire.dumps(client.sweep_results(sweep_id)) + b"\n"


def _save(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="--output") from error


def wait(
    sweep_id: SweepId,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds (exit 1).")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a sweep has ended, its barrier too; exit 0 if all succeeded, else 1."""
    wait_for(connect(), sweep_id, timeout, as_json)


def cancel(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Cancel all tasks of a sweep and its barrier: running ones get SIGTERM, later SIGKILL."""
    answer = connect().cancel_sweep(sweep_id)
    if as_json:
        output.print_json(answer)
    else:
        print(f"{answer['cancelled']} of {answer['progress']['count']} tasks cancelled")


def retry(
    sweep_id: SweepId,
    texts: retrying.Set = None,
    downstream: retrying.WhatFollows = retrying.Downstream.REFUSE,
    without: retrying.Without = None,
    dry_run: retrying.DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let those tasks of a sweep that did not succeed run again; its barrier waits for them."""
    client = connect()
    options = retrying.options_of(downstream, resolve_parents(without or ()), dry_run)
    changes = settings_of(texts or (), "--set")
    new = changes_of(changes, lambda: next(iter(client.tasks({"sweep": sweep_id}, max_results=1).items), {}), "--set")
    answer = client.retry_sweep(sweep_id, new, **options)
    if as_json:
        output.print_json(answer)
    else:
        print(f"{answer['retried']} tasks {'would ' if dry_run else ''}run again{retrying.downstream_of(answer)}")
    for item in answer["_items"][:_NAMED]:
        print(f"banyan: {item['_error']['message']}", file=sys.stderr)
    if answer["refused"]:
        raise IllegalTransition({"sweep": f"{answer['refused']} tasks cannot be retried"})


def delete(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Delete a sweep that has ended, with all its tasks, their histories and files."""
    answer = connect().delete_sweep(sweep_id)
    if as_json:
        output.print_json(answer)
    else:
        print(f"{answer['deleted']} tasks deleted")
