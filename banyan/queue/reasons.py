"""The sentences of `explain`: reasons with their details, and the names of tasks, workers and amounts in them."""

from collections.abc import Iterable, Mapping
from typing import Any

from banyan.domain.task import State
from banyan.queue.actor import Actor
from banyan.wire import format_date, format_size

Document = dict[str, Any]

LABEL = "label "
"""The prefix of a missing label among the needs that a worker lacks."""

_SIZES = ("memory", "scratch", "gpu_memory")


def reason(code: str, message: str, **details: Any) -> Document:
    """A reason: a short code, a sentence, and details for programs."""
    return {"reason": code, "message": message, **details}


def readable(task: Mapping[str, Any] | None, asking: Actor | None) -> bool:
    """Return whether the requesting user may see a task; None for the user is the server itself."""
    return task is not None and (asking is None or ("owner" in task and asking.may_read(task["owner"])))


def name_of(task: Mapping[str, Any]) -> str:
    """The name of a task, if it has one, and its id."""
    return f"{task.get('name') or 'task'} {task['_id']}"


def how_it_stands(task: Mapping[str, Any]) -> str:
    """The state of a task in words; its exit status, if it has ended."""
    if task["state"] == State.TERMINATED:
        return str(task.get("exit_status"))
    if task["state"] == State.RUNNING and task.get("time_started") is None:
        return "assigned"
    return "being cancelled" if task["state"] == State.PENDING_CANCELLATION else str(task["state"])


def worker_name(worker: Mapping[str, Any]) -> str:
    """The name of a worker with its host."""
    return f"{worker['name']} on {worker['host']}"


def last_heard(worker: Mapping[str, Any]) -> str:
    """The time of a worker's last sign of life, in words."""
    return f"has been silent since {format_date(worker['last_seen'])}"


def full(queue: str, limit: int) -> str:
    """The sentence about a queue that runs as many tasks as it may."""
    if limit == 0:
        return f"queue {queue!r} is to run no tasks (max_running is 0)"
    tasks = "task" if limit == 1 else f"{limit} tasks"
    return f"queue {queue!r} runs its {tasks} at once already (max_running is {limit})"


def amount(name: str, value: Any) -> str:
    """An amount of a resource for people: sizes with their unit."""
    if name in _SIZES and isinstance(value, (int, float)):
        return format_size(value)
    return str(value)


def lacking(missing: Mapping[str, tuple[Any, Any]]) -> str:
    """The needs that a worker lacks: `cores 8 (it has 4), label os=linux (it has none)`."""
    return ", ".join(
        f"{name}{'=' if name.startswith(LABEL) else ' '}{amount(name, want)} (it has {amount(name, has)})"
        for name, (want, has) in missing.items()
    )


def joined(parts: Iterable[str], most: int = 3) -> str:
    """A few of the parts, and the number of the others."""
    known = list(parts)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
