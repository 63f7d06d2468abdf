"""Retrying an ended task: its life starts anew, and so does that of descendants that were cancelled because of it."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.domain.continuations import Edge
from banyan.domain.task import State, Task
from banyan.domain.transitions import Change, Retry, Revive, decide
from banyan.errors import Conflict, IllegalTransition, NotFound
from banyan.queue.apply import announce
from banyan.queue.context import Context
from banyan.queue.settle import promote_ready, settle
from banyan.storage.mongo import Session


def retry(context: Context, task_id: ObjectId) -> None:
    """Let an ended task run again, in one transaction with the descendants that come back.

    Raises `IllegalTransition` if it has not ended, if a parent of its own did not end as it needs, or if a child has
    begun on the strength of its end.
    """
    task = _load(context, task_id)
    if task.unsettled:
        settle(context, [task_id], thorough=True)
    changes = context.storage.transaction(lambda session: _retry(context, task_id, session))
    announce(context, changes)
    settle(context, [task.id for task, change in changes if change.ended and task.has_continuations])
    promote_ready(context, [task.id for task, change in changes if change.state == State.INACTIVE])


def _load(context: Context, task_id: ObjectId, session: Session | None = None) -> Task:
    task = context.storage.tasks.load([task_id], session).get(task_id)
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    return task


def _retry(context: Context, task_id: ObjectId, session: Session) -> list[tuple[Task, Change]]:
    now = context.now()
    task = _load(context, task_id, session)
    edges = context.storage.edges
    if blamed := edges.broken([task_id], session):
        reason = f"its parent {blamed[task_id]} did not end as it needs; retry that one first"
        raise IllegalTransition({"state": f"task {task_id} cannot be retried: {reason}"})
    pending = bool(edges.waiting([task_id], session))
    change = decide(task, Retry(pending), now)
    changes = [] if change is None else [(task, change)]
    context.storage.meta.touch_graph(session)
    revived_ids: set[ObjectId] = set()
    frontier = [task_id]
    while frontier:
        out = edges.of_parents(frontier, session)
        children = context.storage.tasks.load({edge.child for edge in out}, session)
        _refuse_begun(task_id, out, children)
        edges.unsettle([edge.id for edge in out], session)
        context.storage.tasks.touch([id for id, child in children.items() if not child.ended], session)
        revived = [child for child in _revivable(context, children, session) if child.id not in revived_ids]
        revived_ids |= {child.id for child in revived}
        for child in revived:
            revive = decide(child, Revive(), now)
            if revive is not None:
                changes.append((child, revive))
        context.storage.tasks.set_pending(edges.pending_counts(children, session), session)
        frontier = [child.id for child in revived if child.has_continuations]
    written = context.storage.tasks.commit(changes, now, session)
    if len(written) != len(changes):
        raise Conflict(f"task {task_id} or a descendant was changed meanwhile; try again")
    context.storage.tasks.mark_unpromoted(written, session)
    return changes


def _refuse_begun(task_id: ObjectId, edges: Sequence[Edge], children: dict[ObjectId, Task]) -> None:
    for edge in edges:
        child = children.get(edge.child)
        if child is not None and child.state not in (State.INACTIVE, State.CANCELLED):
            raise IllegalTransition(
                {"state": f"task {task_id} cannot be retried: its continuation {child.id} is {child.state} already"}
            )


def _revivable(context: Context, children: dict[ObjectId, Task], session: Session) -> list[Task]:
    """Those that were cancelled for a parent's sake, and for no other parent that is still to blame."""
    cancelled = [
        child for child in children.values() if child.state == State.CANCELLED and "task" in (child.cancelled_by or {})
    ]
    blamed = context.storage.edges.broken([child.id for child in cancelled], session) if cancelled else {}
    return [child for child in cancelled if child.id not in blamed]
