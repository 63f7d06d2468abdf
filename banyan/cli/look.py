"""`banyan show` and `logs`: a task, and its output."""

import sys
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import late_typer as typer
from banyan.cli import output
from banyan.cli.act import AsJson
from banyan.cli.connection import connect
from banyan.cli.ids import Id, Ids

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.table import Table

    from banyan.client import Document, Stream


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (show, logs):
        app.command()(command)


def show(ids: Ids, as_json: AsJson = False) -> None:
    """Show a task: what it is, how it stands, its attempts, and the end of its error output if it failed.

    With --json one task is an object, and several are a list.
    """
    client = connect()
    if as_json:
        tasks = [client.task(task_id) for task_id in ids]
        output.print_json(tasks[0] if len(tasks) == 1 else tasks)
        return
    for task_id in ids:
        output.screen().print(_panel(client.task(task_id), client.attempts(task_id)))


def _panel(task: "Document", attempts: "list[Document]") -> "Panel":
    """Return a task for people."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[Any] = [_facts(task, attempts)]
    if attempts:
        parts += [Text(), attempts_table(attempts)]
    last = attempts[-1] if attempts else {}
    ended_badly = task.get("exit_status") not in (None, "success")
    if ended_badly:
        tail = str(last.get("error") or last.get("stderr_tail") or "").rstrip()
        parts += [Text(), Text("stderr", style="bold"), Text("\n".join(tail.splitlines()[-15:]))] if tail else []
    name = output.shortened(task.get("name") or output.command(task), 60)
    title = Text.assemble((name, "bold"), "  ", output.styled(output.task_state(task)))
    return Panel(Group(*parts), title=title, title_align="left", expand=False, padding=(1, 2))


def attempts_table(attempts: "list[Document]") -> "Table":
    """Return a table with one row for each attempt."""
    from rich.text import Text

    rows = [
        (
            str(each.get("attempt", "")),
            output.exit_status(each) if each.get("exit_status") else Text("not ended", style="blue"),
            output.moment(each.get("time_started")),
            output.run_time(each),
            _seconds(each.get("cpu_seconds")),
            output.size(each.get("peak_memory_bytes")),
            str(each.get("host") or ""),
        )
        for each in attempts
    ]
    return output.table((">#", "EXIT STATUS", "STARTED", ">RUN TIME", ">CPU", ">MEMORY", "~HOST"), rows)


def logs(
    task_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt, not of the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a task has written, also while it runs."""
    stream: Stream = "stderr" if stderr else "stdout"
    if follow and (as_json or attempt is not None):
        raise typer.BadParameter("it goes with neither --json nor --attempt", param_hint="--follow")
    client = connect()
    chunks = client.follow(task_id, stream, _say_cut) if follow else client.log_chunks(task_id, stream, attempt)
    if as_json:
        chunks = chain([next(chunks, b"")], chunks)  # nothing is printed of a task that does not exist
        output.print_text_as_json({"_id": task_id, "stream": stream}, "text", chunks)
        return
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _say_cut() -> None:
    print("banyan: the output was cut; it goes on from its beginning", file=sys.stderr)


def _facts(task: "Document", attempts: "list[Document]") -> "Table":
    last = attempts[-1] if attempts else {}
    facts: dict[str, object] = {
        "id": task["_id"],
        "exit status": output.exit_status(task) if task.get("exit_status") else None,
        "command": output.command(task) if task.get("model") is None else None,
        "directory": _directory(task),
        "model": task.get("model"),
        "inputs": output.one_line(task["inputs"]) if task.get("inputs") else None,
        "input refs": "\n".join(_ref(name, ref) for name, ref in (task.get("input_refs") or {}).items()),
        "queue": f"{task.get('queue', '')}, priority {task.get('priority', 0)}",
        "owner": task.get("owner"),
        "requested": output.resources(task.get("requested_resources") or {}),
        "requires": ", ".join(f"{label}={value}" for label, value in (task.get("requires") or {}).items()),
        "tags": ", ".join(task.get("tags") or ()),
        "granted": output.resources(last.get("granted_resources") or {}),
        "waits for": f"{task['pending_dependency_count']} parents" if task.get("pending_dependency_count") else None,
        "held": "yes" if task.get("hold") else None,
        "not before": output.moment(task.get("not_before")),
        "next attempt": output.moment(task.get("retry_at")) if task.get("state") == "available" else None,
        "continuations": "\n".join(str(child) for child in task.get("continuations") or ()),
        "created": output.moment(task.get("_created")),
        "started": output.moment(task.get("time_started")),
        "run time": output.run_time(task),
        "retries": f"{task['retry_count']} of {task.get('max_retry_count', 0)}" if task.get("retry_count") else None,
        "lost workers": task.get("abandoned_count") or None,
        "cancelled by": _cause(task.get("cancelled_by")),
        "progress": _progress(task.get("progress")),
        "result": output.one_line(task["result"]) if task.get("result") is not None else task.get("result_file"),
    }
    return output.facts(facts)


_WORKDIRS = {"attempt": "an empty one for each attempt", "task": "one of its own, which retries find again"}


def _directory(task: "Document") -> str | None:
    """Return the directory in which the task runs."""
    if task.get("command") is None and task.get("model") is None:
        return None
    return task.get("directory") or _WORKDIRS.get(task.get("workdir", "attempt"), "none of its own")


def _ref(name: str, ref: "Document") -> str:
    what = f"{ref['result']!r} of the result" if "result" in ref else "the result"
    return f"{name} = {what} of task {ref['task']}"


def _cause(cause: object) -> str | None:
    return ", ".join(f"{kind} {value}" for kind, value in cause.items()) if isinstance(cause, dict) else None


def _progress(progress: object) -> str | None:
    if not isinstance(progress, dict):
        return None
    fraction = progress.get("fraction")
    percent = f"{fraction:.0%} " if isinstance(fraction, (int, float)) else ""
    return percent + str(progress.get("message") or "")


def _seconds(seconds: object) -> str:
    return f"{seconds:.2f}s" if isinstance(seconds, (int, float)) else ""
