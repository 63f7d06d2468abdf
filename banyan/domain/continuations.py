"""Edges between tasks: the effect of a parent's end on them, and the search for cycles."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bson import ObjectId

from banyan.domain.task import SUCCESS, State, Task

ON_SUCCESS: Final = "success"
ON_FAILURE: Final = "failure"
ON_ANY: Final = "any"
CONDITIONS: Final = (ON_SUCCESS, ON_FAILURE, ON_ANY)
"""The conditions of a dependency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An edge: `child` waits for `parent`. When the parent has ended, the edge is `settled`, and `satisfied` or not.

    `life` counts how often a retry made the edge wait again, so that an end of an earlier life settles nothing. An
    `outdated` edge still shows the end of its parent before the parent's last retry, which left the child as it was. An
    edge stays when its parent is deleted, and records how the parent ended; it is deleted with its child.
    """

    parent: ObjectId
    child: ObjectId
    on: str = ON_SUCCESS
    settled: bool = False
    satisfied: bool | None = None
    owner: str = ""
    life: int = 0
    outdated: bool = False
    id: ObjectId = field(default_factory=ObjectId)


def satisfied(on: str, parent: Task) -> bool | None:
    """Return whether the parent satisfies an edge; None until the parent has ended.

    `success` needs a parent that succeeded, `failure` one that ran and failed, `any` one that ended in any way,
    cancellation included.
    """
    if not parent.ended:
        return None
    if on == ON_ANY:
        return True
    if parent.state == State.CANCELLED:
        return False
    return (parent.exit_status == SUCCESS) == (on == ON_SUCCESS)


def find_cycle(edges: Iterable[tuple[ObjectId, ObjectId]]) -> list[ObjectId]:
    """Tasks in a cycle of the (parent, child) pairs, in order; empty when there is none."""
    children: dict[ObjectId, list[ObjectId]] = {}
    waits: dict[ObjectId, int] = {}
    for parent, child in edges:
        children.setdefault(parent, []).append(child)
        waits[child] = waits.get(child, 0) + 1
        waits.setdefault(parent, 0)
    ready = [task for task, count in waits.items() if not count]
    while ready:
        for child in children.get(ready.pop(), ()):
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    left = {task for task, count in waits.items() if count > 0}
    return _walk(left, children) if left else []


def _walk(left: set[ObjectId], children: Mapping[ObjectId, list[ObjectId]]) -> list[ObjectId]:
    """Follow parents backwards within `left`, where each task has one, until a task repeats."""
    parent_of: dict[ObjectId, ObjectId] = {}
    for parent in left:
        for child in children.get(parent, ()):
            if child in left:
                parent_of[child] = parent
    task = min(left)
    path: list[ObjectId] = []
    while task not in path:
        path.append(task)
        task = parent_of[task]
    return path[path.index(task) :][::-1]
