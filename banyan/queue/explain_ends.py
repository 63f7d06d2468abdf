"""The reasons for the end of a task: the attempt that failed, or the chain of parents up to the first failure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson import ObjectId

from banyan.domain.task import SUCCESS, State, is_no_directory
from banyan.domain.transitions import MAX_LOSSES
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.reasons import how_it_stands, name_of, readable, reason
from banyan.wire import format_size

Document = dict[str, Any]

MAX_CHAIN = 2000
"""The most parents that are followed, one query each."""

_LINK = (
    *("name", "state", "owner", "exit_status", "cancelled_by", "abandoned_count"),
    *("requested_resources", "timeout", "directory"),
)
_OUT_OF_MEMORY = "out of memory"
_TIMED_OUT = "timed out"

_TAIL_LINES = 10
_TAIL_WIDTH = 500


def ended(context: Context, task: Document, asking: Actor | None) -> Iterable[Document]:
    """The reason for the end of a task; for a cancelled one with the first cause and the chain to it."""
    if task["state"] == State.CANCELLED and "task" in (task.get("cancelled_by") or {}):
        yield _cancelled_for_a_parent(context, task, asking)
    elif task["state"] == State.CANCELLED:
        yield reason("ended", f"it was cancelled by {_canceller(task)}")
    elif task.get("exit_status") == SUCCESS:
        yield reason("ended", f"it has ended: {SUCCESS}")
    else:
        yield reason("ended", _failed(task), **_attempt(context, task), help=_remedy(task))


def _failed(task: Mapping[str, Any]) -> str:
    text = f"it has ended: {task.get('exit_status')}"
    if task.get("abandoned_count", 0) >= MAX_LOSSES:
        text += f"; it was lost {MAX_LOSSES} times, and is not tried again by itself"
    return text


def _remedy(task: Mapping[str, Any]) -> str:
    """The remedy for a task that failed."""
    again = f"banyan retry {task['_id']}"
    memory = (task.get("requested_resources") or {}).get("memory")
    if task.get("exit_status") == _OUT_OF_MEMORY and memory is not None:
        more = f"{again} --set requested_resources.memory='{format_size(2 * memory)}'"
        return f"it requested {format_size(memory)} of memory; `{more}` runs it again with more"
    if is_no_directory(str(task.get("exit_status"))):
        return _another_directory(task, again)
    if task.get("exit_status") == _TIMED_OUT and task.get("timeout") is not None:
        more = f"{again} --set timeout={2 * task['timeout']:g}"
        return f"its timeout is {task['timeout']:g} s; `{more}` runs it again with more"
    return f"`{again}` runs it again"


def _another_directory(task: Mapping[str, Any], again: str) -> str:
    """The remedy for a task whose directory no worker has."""
    elsewhere = f"`{again} --set directory=DIR` runs it in another one, `{again} --set directory=null` in an empty one"
    make = f"no worker that fits has the directory {task.get('directory')}: make it there, and `{again}`"
    return f"{make}; {elsewhere}; new tasks take `--dir DIR` or `--fresh`"


def _canceller(task: Mapping[str, Any]) -> str:
    return str((task.get("cancelled_by") or {}).get("user", "its provider"))


def _attempt(context: Context, task: Mapping[str, Any]) -> Document:
    """The facts of the last attempt of a task: exit code, signal, and its last lines of output."""
    last = context.storage.executions.last_of(task["_id"])
    if last is None:
        return {}
    known = {name: last[name] for name in ("attempt", "exit_code", "signal") if last.get(name) is not None}
    tails = {"stderr_tail": _last_lines(last.get("stderr_tail")), "error": _last_lines(last.get("error"))}
    return known | {name: text for name, text in tails.items() if text}


def _last_lines(text: object) -> str:
    lines = str(text or "").rstrip().splitlines()[-_TAIL_LINES:]
    return "\n".join(line[:_TAIL_WIDTH] for line in lines)


def _cancelled_for_a_parent(context: Context, task: Document, asking: Actor | None) -> Document:
    chain = _chain(context, task)
    links = [_link(each, asking) for each in chain]
    root, before_root = chain[-1], chain[-2] if len(chain) > 1 else task
    text = f"it was cancelled because {_root_text(root, asking)}"
    if before_root is not task:
        others = len(chain) - 2
        more = {0: " was", 1: " and another task before that were"}.get(others, f" and {others} before that were")
        text += f"; its parent {name_of(links[0])}{more} cancelled for the same reason"
    elif root.get("missing"):
        text += f"; a retry with 'without': [\"{root['_id']}\"] does without it"
    details: Document = {}
    if root.get("state") == State.TERMINATED and readable(root, asking):
        links[-1] |= _attempt(context, root)
        if root.get("exit_status") != SUCCESS:
            details["help"] = f"{_remedy(root)}, and what was cancelled for its sake"
    return reason("cancelled", text, root=links[-1], chain=[*reversed(links), _link(task, asking)], **details)


def _chain(context: Context, task: Document) -> Sequence[Document]:
    """The parents because of which each was cancelled, the nearest first; a deleted one has only its id."""
    chain: list[Document] = []
    seen = {task["_id"]}
    current = task
    while len(chain) < MAX_CHAIN:
        parent = (current.get("cancelled_by") or {}).get("task")
        if not isinstance(parent, ObjectId) or parent in seen:
            break
        seen.add(parent)
        current = context.storage.tasks.documents([parent], _LINK).get(parent, {"_id": parent, "missing": True})
        chain.append(current)
        if current.get("state") != State.CANCELLED:
            break
    return chain


def _link(task: Document, asking: Actor | None) -> Document:
    """The fields of one task of the chain that the requesting user may see."""
    if task.get("missing"):
        return {"_id": task["_id"], "missing": True}
    if not readable(task, asking):
        return {"_id": task["_id"]}
    shown = {name: task[name] for name in ("_id", "name", "state", "exit_status") if task.get(name) is not None}
    if task["state"] == State.CANCELLED and task.get("cancelled_by"):
        shown["cancelled_by"] = task["cancelled_by"]
    return shown


def _root_text(root: Document, asking: Actor | None) -> str:
    """The end of the task at the beginning of the chain, in words."""
    if root.get("missing"):
        return f"task {root['_id']}, which has been deleted, did not end as it needs"
    if not readable(root, asking):
        return f"task {root['_id']}, which belongs to another user, did not end as it needs"
    if root["state"] == State.CANCELLED and "task" in (root.get("cancelled_by") or {}):
        return f"{name_of(root)} was cancelled, and {MAX_CHAIN} tasks or more before it"
    if root["state"] == State.CANCELLED:
        return f"{name_of(root)} was cancelled by {_canceller(root)}"
    if root["state"] != State.TERMINATED:
        return f"{name_of(root)} had not ended as it needs (it is {how_it_stands(root)} again)"
    if root.get("exit_status") == SUCCESS:
        return f"{name_of(root)} succeeded, and it was to run after a failure"
    return f"{name_of(root)} failed: {root.get('exit_status')}"
