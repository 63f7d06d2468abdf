"""The dependencies of a waiting task: its parents, and the first ancestors that must move."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

from banyan.domain.task import State
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.reasons import how_it_stands, joined, name_of, readable, reason

Document = dict[str, Any]
Explained = Callable[[Document], Document]
"""The first reason why a task is not running."""

MAX_LOOKED_AT = 1000
"""The most ancestors of a task that are read."""

_NAMED = 10
_EXPLAINED = 5
_FIELDS = ("name", "state", "owner", "exit_status", "time_started", "hold", "pending_dependency_count")


@dataclass(slots=True)
class _Ancestors:
    """The ancestors of a task that have not ended, as far as they were read."""

    parents: list[ObjectId]
    """The parents of the task itself."""
    tasks: dict[ObjectId, Document] = field(default_factory=dict)
    child_of: dict[ObjectId, ObjectId] = field(default_factory=dict)
    roots: list[ObjectId] = field(default_factory=list)
    """The ancestors that wait for no parent."""


def waits_for(context: Context, task: Document, asking: Actor | None, explained: Explained) -> Iterable[Document]:
    """The reason `dependencies` for a task with pending parents: the parents, and the reason of the first ancestor."""
    found = _look_up(context, task["_id"])
    if not found.parents:
        return
    named = [_named(id, found.tasks, asking) for id in found.parents[:_NAMED]]
    count = _count(context, task, found)
    more = f" and {count - len(named)} more" if count > len(named) else ""
    text = f"it waits for {', '.join(named)}{more}"
    roots = [found.tasks[id] for id in found.roots if readable(found.tasks.get(id), asking)]
    roots.sort(key=_stuck, reverse=True)
    details: Document = {"parents": found.parents[:_NAMED], "count": count}
    details["missing"] = [id for id in found.parents[:_NAMED] if id not in found.tasks]
    details["roots"] = [_root(context, each, explained) for each in roots[:_EXPLAINED]]
    if details["roots"]:
        text += _because(details["roots"][0], _path(found, roots[0]["_id"], task["_id"]), found, asking)
    yield reason("dependencies", text, **{name: value for name, value in details.items() if value != []})


def _look_up(context: Context, task: ObjectId) -> _Ancestors:
    """The ancestors of a task, level by level."""
    found = _Ancestors(parents=[])
    level = [task]
    while level and len(found.tasks) < MAX_LOOKED_AT:
        edges = context.storage.edges.pending(level, MAX_LOOKED_AT)
        waiting = context.storage.edges.waiting(level)
        found.roots += [id for id in level if id != task and id not in waiting]
        fresh = [edge for edge in edges if edge.parent not in found.child_of]
        found.child_of.update({edge.parent: edge.child for edge in reversed(fresh)})
        if level == [task]:
            found.parents = [edge.parent for edge in edges]
        parents = context.storage.tasks.documents({edge.parent for edge in fresh}, _FIELDS)
        found.tasks |= parents
        found.roots += [id for id, each in parents.items() if each["state"] != State.INACTIVE]
        level = [id for id, each in parents.items() if each["state"] == State.INACTIVE]
    return found


def _count(context: Context, task: Document, found: _Ancestors) -> int:
    if len(found.parents) < MAX_LOOKED_AT:
        return len(found.parents)
    return context.storage.edges.pending_counts([task["_id"]])[task["_id"]]


def _named(id: ObjectId, known: Mapping[ObjectId, Document], asking: Actor | None) -> str:
    if id not in known:
        return f"task {id} (deleted)"
    task = known[id]
    return f"{name_of(task)} ({how_it_stands(task)})" if readable(task, asking) else f"task {id}"


def _stuck(task: Document) -> int:
    """The rank of a state: the higher, the less likely the task ends without help."""
    order = (State.PENDING_CANCELLATION, State.RUNNING, State.AVAILABLE, State.INACTIVE)
    return order.index(task["state"]) if task["state"] in order else 0


def _root(context: Context, task: Document, explained: Explained) -> Document:
    whole = context.storage.tasks.document(task["_id"])
    first = explained(whole) if whole is not None else {"reason": "ended", "message": "it has been deleted"}
    shown = {name: task[name] for name in ("_id", "name", "state") if task.get(name) is not None}
    return {**shown, "reason": first["reason"], "message": first["message"]}


def _path(found: _Ancestors, root: ObjectId, task: ObjectId) -> list[ObjectId]:
    """The tasks between a root and the task, the one before the task first."""
    path: list[ObjectId] = []
    current = found.child_of[root]
    while current != task:
        path.append(current)
        current = found.child_of[current]
    return path[::-1]


def _because(root: Document, path: list[ObjectId], found: _Ancestors, asking: Actor | None) -> str:
    """The reason of the root, and its path to the task, in words."""
    if not path:
        return f": {root['message']}" if len(found.parents) == 1 else f"; {name_of(root)}: {root['message']}"
    between = joined([name_of(found.tasks[id]) for id in path[1:] if readable(found.tasks[id], asking)])
    through = f", by way of {between}" if between else ""
    stands = how_it_stands(found.tasks[root["_id"]])
    return f"; before all others comes {name_of(root)} ({stands}){through}: {root['message']}"
