"""`banyan list`: tasks with their states, their workers, and the reasons for which others wait."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import columns, completion, output
from banyan.cli import late_typer as typer
from banyan.cli.act import SHOWN, AsJson, Count, Filter, Page, read_filter
from banyan.cli.columns import WHOLE, Cell, Column
from banyan.cli.connection import connect
from banyan.cli.names import check_matched, check_state
from banyan.errors import BanyanError

if TYPE_CHECKING:
    from banyan.client import Client, Document

_LISTED = (
    "name command model state exit_status queue time_started time_terminated peak_memory_bytes progress execution "
    "hold _created"
).split()
_IDS = 100
_COLUMNS = (
    Column(heading="ID", least=WHOLE),
    Column(heading="NAME", least=16, most=48, middle=True),
    Column(heading="QUEUE", least=7, most=24, goes=2),
    Column(heading="STATUS", least=9, most=40),
    Column(heading="AGE", least=WHOLE, goes=1, right=True),
    Column(heading="RUN TIME", least=WHOLE, goes=5, right=True),
    Column(heading="MEMORY", least=WHOLE, goes=6, right=True),
    Column(heading="PROGRESS", least=8, most=40, goes=4),
    Column(heading="WHERE/WHY", least=10, most=72, goes=3),
)
_PROGRESS = 7


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("list")(list_tasks)


def list_tasks(
    where: Filter = None,
    state: Annotated[
        str | None, typer.Option(help="Only tasks in this state.", autocompletion=completion.states)
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Only tasks of this queue.", autocompletion=completion.queues)
    ] = None,
    sort: Annotated[str, typer.Option(help="Fields to sort by, - before one for descending.")] = "-_id",
    count: Count = None,
    page: Page = 1,
    as_json: AsJson = False,
) -> None:
    """List tasks, the newest first: how each stands, where it runs or ran, or why it waits."""
    if state is not None:
        check_state(state)
    chosen = (read_filter(where) or {}) | ({"state": state} if state else {}) | ({"queue": queue} if queue else {})
    client = connect()
    if as_json and count is None and page == 1:
        if not output.print_json_list(client.each("tasks", chosen, sort=sort)):
            check_matched(client, chosen, "--queue" if queue else "--where")
        return
    found = client.tasks(chosen, sort, None if as_json else _LISTED, count or SHOWN, page)
    if not found.total:
        check_matched(client, chosen, "--queue" if queue else "--where")
    if as_json:
        output.print_json(found.items)
    else:
        print_tasks(client, found.items)
    if found.total > len(found.items):
        print(f"{len(found.items)} of {found.total} tasks; -n shows more, --page the next", file=sys.stderr)


def print_tasks(client: "Client", tasks: "Sequence[Document]") -> None:
    """Print a table of tasks that fits the terminal."""
    notes = {**_places(client, tasks), **_reasons(client, tasks)}
    rows = [_row(task, notes.get(task["_id"], Cell(""))) for task in tasks]
    if not any(row[_PROGRESS].text for row in rows):
        rows = [row[:_PROGRESS] + row[_PROGRESS + 1 :] for row in rows]
        kept: Sequence[Column] = _COLUMNS[:_PROGRESS] + _COLUMNS[_PROGRESS + 1 :]
    else:
        kept = _COLUMNS
    for line in columns.lines(kept, rows, columns.width(), colours=columns.coloured()):
        print(line)


def _row(task: "Document", note: Cell) -> tuple[Cell, ...]:
    return (
        Cell(task["_id"]),
        Cell(str(task.get("name") or output.command(task))),
        Cell(str(task.get("queue") or "")),
        _status(task),
        Cell(output.age(task.get("_created"))),
        Cell(output.run_time(task)),
        Cell(output.size(task.get("peak_memory_bytes"))),
        Cell(_progress(task)),
        note,
    )


def _status(task: "Document") -> Cell:
    """Return the end of a task, or its state, with its progress."""
    if end := task.get("exit_status"):
        return replace(output.exit_status(task), short=_short(str(end)))
    told = output.task_state(task)
    text = told.text.replace("pending_cancellation", "ending")
    percent = _percent(task)
    return Cell(f"{text} {percent}" if percent else text, told.style, short=percent)


def _short(end: str) -> str:
    """Return the distinctive words of an exit status: `exit 3`, `SIGKILL`, `disk full`."""
    kind, _, why = end.removesuffix(")").partition(" (")
    if kind != "failure":
        return {"out of memory": "memory", "abandoned": "abandoned"}.get(kind, end)
    told = why.removeprefix("worker: ").partition(":")[0]
    return told.replace("exit code", "exit").replace("no directory", "no dir")


def _percent(task: "Document") -> str:
    fraction = (task.get("progress") or {}).get("fraction")
    runs = task["state"] in ("running", "pending_cancellation") and task.get("time_started")
    return f"{int(100 * fraction)}%" if runs and isinstance(fraction, (int, float)) else ""


def _progress(task: "Document") -> str:
    message = (task.get("progress") or {}).get("message") if task["state"] == "running" else None
    return " ".join(each for each in (_percent(task), str(message or "")) if each)


def _places(client: "Client", tasks: "Sequence[Document]") -> dict[str, Cell]:
    """Return the present or last worker of each task."""
    attempts = [str(task["execution"]) for task in tasks if task.get("execution")]
    found: list[Document] = []
    for start in range(0, len(attempts), _IDS):
        where = {"_id": {"$in": attempts[start : start + _IDS]}}
        found += client.page("execution_history", where, None, ("task", "host", "worker"), _IDS).items
    workers = sorted({str(each["worker"]) for each in found if each.get("worker")})
    names: dict[str, str] = {}
    for start in range(0, len(workers), _IDS):
        where = {"_id": {"$in": workers[start : start + _IDS]}}
        names |= {each["_id"]: each["name"] for each in client.page("workers", where, None, ("name",), _IDS).items}
    return {
        str(each["task"]): Cell(str(names.get(str(each.get("worker"))) or each.get("host") or "")) for each in found
    }


def _reasons(client: "Client", tasks: "Sequence[Document]") -> dict[str, Cell]:
    """Return why each of the waiting tasks waits, in a few words."""
    waiting = [task["_id"] for task in tasks if task["state"] in ("inactive", "available")]
    try:
        found = client.reasons(waiting) if waiting else {}
    except BanyanError:
        return {}  # a server that is older than this
    return {task: _brief(reason) for task, reason in found.items()}


def _brief(reason: "Document") -> Cell:
    code = reason["reason"]
    if code == "dependencies":
        parents = "1 parent" if reason.get("count") == 1 else f"{reason.get('count')} parents"
        return Cell(f"waits for {parents}", "dim", short=parents)
    if code in ("not_before", "retry_delay"):
        when = output.moment(reason.get("not_before") or reason.get("retry_at"))
        return Cell(f"not before {when}" if code == "not_before" else f"tried again at {when}", "dim", short=when)
    if code == "queue_full":
        return Cell(f"the queue runs its {reason.get('limit')} at once", "yellow", short="queue full")
    if code == "no_fit":
        return Cell(f"no worker has {_wanted(reason.get('missing') or {})}", "red", short="no fit")
    text, short, style = _BRIEFS.get(code, (str(reason.get("message")), code.replace("_", " "), "dim"))
    return Cell(text, style, short=short)


_BRIEFS: Mapping[str, tuple[str, str, str]] = {
    "held": ("held", "held", "yellow"),
    "inactive": ("not made available yet", "not ready", "dim"),
    "no_queue": ("its queue does not exist any more", "no queue", "red"),
    "queue_paused": ("the queue is paused", "paused", "yellow"),
    "no_worker": ("no worker is active", "no worker", "red"),
    "draining": ("the worker that fits is draining", "draining", "yellow"),
    "quarantined": ("the worker that fits is quarantined", "quarantine", "red"),
    "avoided": ("the workers that fit failed it; one is tried again", "failed", "yellow"),
    "no_directory": ("a worker lacks its directory; another is tried", "no dir", "yellow"),
    "silent": ("the workers that fit are silent", "silent", "red"),
    "busy": ("the workers that fit are busy", "busy", "dim"),
    "waiting": ("its turn comes", "next", "dim"),
}


def _wanted(missing: Mapping[str, Any]) -> str:
    """Return the resources that no worker has: `64 cores and memory 2.00 TiB`."""
    texts = []
    for name, amounts in missing.items():
        wanted = amounts.get("wanted") if isinstance(amounts, Mapping) else None
        if name in ("cores", "gpus") and isinstance(wanted, (int, float)):
            texts.append(f"{wanted:g} {name if wanted != 1 else name[:-1]}")
        elif name in ("memory", "scratch", "gpu_memory"):
            texts.append(f"{name.replace('_', ' ')} {output.size(wanted)}")
        else:
            texts.append(f"{name} {wanted}")
    return " and ".join(texts) or "all that it needs"
