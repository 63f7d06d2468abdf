"""Edges between tasks: what the end of a parent does to them, and that they never form a cycle."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bson import ObjectId

from banyan.domain.task import SUCCESS, State, Task

ON_SUCCESS: Final = "success"
ON_FAILURE: Final = "failure"
ON_ANY: Final = "any"
CONDITIONS: Final = (ON_SUCCESS, ON_FAILURE, ON_ANY)
"""What a dependency may wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """`child` waits for `parent`; `settled` once that has ended, and then `satisfied` or not.

    `life` counts how often it was made to wait again by a retry, so that an end of an earlier life settles nothing.
    An `outdated` edge is still as the parent ended before its last retry, which left the child as it was. An edge stays
    when its parent is deleted, and tells how that ended; it leaves with its child.
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
    """Whether an edge is satisfied by its parent; None while that has not ended.

    `success` wants a parent that ended well, `failure` one that ran and did not, `any` one that ended at all,
    cancelled included.
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
    """Follow parents backwards within `left`, where each has one, until a task comes round again."""
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
