"""The ends of tasks, with the last lines of failed ones."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from banyan.cli.columns import one_line
from banyan.errors import BanyanError

if TYPE_CHECKING:
    from banyan.client import Client, Document

LINES = 10
"""The most lines that are shown of a single failed task."""
LINES_OF_EACH = 3
"""The most lines of each of several."""
TOLD = 5
"""The most failed tasks whose last lines are shown."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def print_ends(client: "Client", tasks: "Sequence[Document]", titles: Sequence[str]) -> None:
    """Print on stderr the end of each task (`titles`), and below it the last lines of a failed one."""
    failed = [task for task in tasks if _wrote(task)]
    wrote = _last_lines(client, failed[:TOLD])
    most = LINES if len(tasks) == 1 else LINES_OF_EACH
    for task, title in zip(tasks, titles, strict=True):
        print(title, file=sys.stderr)
        lines = wrote.get(task["_id"], [])
        for line in lines[-most:]:
            print(f"  {line}", file=sys.stderr)
        if len(lines) > most:
            print(f"  (all of it: banyan logs --stderr {task['_id']})", file=sys.stderr)


def _wrote(task: "Document") -> bool:
    """Return whether a task failed in an attempt of its own."""
    return bool(task.get("execution")) and task.get("exit_status") not in (None, "success", "cancelled")


def _last_lines(client: "Client", tasks: "Sequence[Document]") -> dict[str, list[str]]:
    """Return the last lines of stderr of each task's last attempt, with its `error`, by the task's id."""
    if not tasks:
        return {}
    where = {"_id": {"$in": [task["execution"] for task in tasks]}}
    try:
        attempts = client.page("execution_history", where, None, ("task", "stderr_tail", "error"), len(tasks)).items
    except BanyanError:
        return {}  # the ends of the tasks are known, and printed
    return {str(attempt["task"]): _lines(attempt) for attempt in attempts}


def _lines(attempt: dict[str, Any]) -> list[str]:
    tail, error = (str(attempt.get(name) or "").strip("\n") for name in ("stderr_tail", "error"))
    text = "\n".join(part for part in (tail, error if error not in tail else "") if part)
    return [one_line(_COLOURS.sub("", line)).rstrip() for line in text.split("\n")] if text else []
