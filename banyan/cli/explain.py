"""`banyan explain`: why a task is not running, or why nothing (more) runs; and the warning after a submission."""

import sys
from typing import TYPE_CHECKING, Any

from banyan.cli import late_typer as typer
from banyan.cli import output
from banyan.cli.act import AsJson
from banyan.cli.columns import Cell
from banyan.cli.connection import connect
from banyan.cli.ids import SomeIds
from banyan.errors import BanyanError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from banyan.client import Client, Document

UNFIT = ("no_fit", "no_worker")
"""Reasons for which no active worker could ever take a task."""

_LINKS = 20
"""The most tasks of a chain that are shown."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(explain)


def explain(ids: SomeIds = None, as_json: AsJson = False) -> None:
    """Say why a task is not running; without an id, why nothing (more) runs.

    With --json the answer for one task is an object, and several are a list.
    """
    client = connect()
    answers = [client.explain(task) for task in ids] if ids else [client.explain()]
    if as_json:
        output.print_json(answers[0] if len(answers) == 1 else answers)
        return
    for answer in answers:
        output.screen().print(task_view(answer) if ids else queue_view(answer))


def task_view(answer: "Document") -> "Group":
    """Return the summary, the further reasons, the chain that led to a cancellation, and the failed task's output."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(answer["summary"])]
    reasons = answer.get("reasons", ())
    parts += [_item(each["message"]) for each in reasons if each["message"] != answer["summary"]]
    for each in reasons:
        if len(each.get("chain", ())) > 1:
            parts += [Text(), _chain(each["chain"])]
        failed = each.get("root") or each
        for name in ("error", "stderr_tail"):
            if failed.get(name):
                parts += [Text(), *_wrote(failed, name)]
                break
        others = each.get("roots", ())[1:]
        parts += [_item(f"{_name(root)}: {root['message']}") for root in others]
        if each.get("help") and each["help"] not in each["message"]:
            parts += [Text(), Text(f"helps: {each['help']}", style="cyan")]
    return Group(*parts)


def _item(text: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=0)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("  - ", Text(text))
    return grid


def _name(task: "Document") -> str:
    return f"{task.get('name') or 'task'} {task['_id']}"


def _chain(links: "list[Document]") -> "Table":
    """Return a table of the tasks from the first that failed down to this one."""
    rows: list[tuple[str | Cell, ...]] = []
    shown = links if len(links) <= _LINKS else [*links[: _LINKS // 2], *links[-_LINKS // 2 :]]
    for index, link in enumerate(shown):
        if len(links) > _LINKS and index == _LINKS // 2:
            rows.append(("", f"{len(links) - _LINKS} more", ""))
        stands: str | Cell = "deleted" if link.get("missing") else "somebody else's"
        if link.get("state"):
            stands = output.exit_status(link) if link.get("exit_status") else output.state(link)
        rows.append((link["_id"], output.shortened(str(link.get("name") or ""), 24), stands))
    return output.table(("CHAIN", "NAME", "~HOW IT STANDS"), rows)


def _wrote(failed: "Document", name: str) -> list[Any]:
    from rich.text import Text

    what = "stderr" if name == "stderr_tail" else "error"
    whose = f" of {_name(failed)}" if "_id" in failed else ""
    lines = "\n".join(f"  {line}" for line in str(failed[name]).splitlines())
    return [Text(f"last lines of {what}{whose}", style="bold"), Text(lines)]


def queue_view(answer: "Document") -> "Group":
    """Return a view of how many tasks wait for which reason, the remedies, and the workers."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(answer["summary"].partition("; ")[0], style="bold")]
    if answer.get("reasons"):
        parts += [Text(), _reasons(answer["reasons"])]
    if answer.get("more_reasons"):
        parts.append(Text(f"and {answer['more_reasons']} further reasons", style="dim"))
    workers = answer.get("workers", ())
    parts += [Text(), _workers(workers) if workers else Text("no workers; start one with 'banyan worker'")]
    parts += [Text(f"{each['name']}: {each['note']}") for each in workers if each.get("note")]
    hidden = answer.get("worker_count", 0) - len(workers)
    if hidden > 0:
        parts.append(Text(f"and {hidden} further workers", style="dim"))
    return Group(*parts)


def _reasons(reasons: "list[Document]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("TASKS", justify="right", no_wrap=True)
    grid.add_column("WHY", overflow="fold")
    for each in reasons:
        why = Text(each["message"])
        if each.get("help"):
            why.append(f"\nhelps: {each['help']}", style="cyan")
        if each.get("example"):
            why.append(f"\nfor example {each['example']}", style="dim")
        grid.add_row(str(each["count"]), why)
    return grid


def _workers(workers: "list[Document]") -> "Table":
    from rich.text import Text

    rows = []
    for each in workers:
        cores = each["cores"]
        heard = Text(output.ago(each["last_seen"]), style="red" if each.get("silent") else "")
        counts = (f"{cores['used']:g}", f"{cores['free']:g}", str(each["running"]), str(each["assigned"]))
        rows.append((f"{each['name']} on {each['host']}", output.state(each), *counts, heard))
    return output.table(("~WORKER", "STATE", ">CORES USED", ">FREE", ">RUNNING", ">ASSIGNED", "LAST HEARD OF"), rows)


def warn_if_unfit(client: "Client", task: str) -> None:
    """Warn on stderr when no active worker could ever take a task that was just submitted."""
    try:
        reasons = client.explain(task).get("reasons", ())
    except BanyanError:
        return  # the task is in the queue, and `banyan explain` shows its reasons
    for each in reasons:
        if each.get("reason") in UNFIT:
            print(f"banyan: warning: {each['message']}; until then the task waits", file=sys.stderr)
