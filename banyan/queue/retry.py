"""Retrying ended tasks: their life starts anew, and so does that of descendants that were cancelled because of them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bson import ObjectId

from banyan.domain.continuations import Edge
from banyan.domain.task import State, Task
from banyan.domain.transitions import Change, Retry, Revive, decide
from banyan.errors import BanyanError, Conflict, IllegalTransition, NotFound
from banyan.queue.apply import announce
from banyan.queue.context import Context
from banyan.queue.settle import promote_ready, settle
from banyan.storage.mongo import Session


@dataclass(frozen=True, slots=True)
class Retried:
    """What a transaction changed, and why some of the tasks were left as they are."""

    changes: Sequence[tuple[Task, Change]] = ()
    refused: dict[ObjectId, BanyanError] = field(default_factory=dict)


def retry(context: Context, task_id: ObjectId) -> None:
    """Let an ended task run again, in one transaction with the descendants that come back.

    Raises `IllegalTransition` if it has not ended, if a parent of its own did not end as it needs, or if a child has
    begun on the strength of its end.
    """
    refused = retry_all(context, [task_id])
    if refused:
        raise refused[task_id]


def retry_all(
    context: Context, tasks: Sequence[ObjectId], uncounted: Collection[ObjectId] = ()
) -> dict[ObjectId, BanyanError]:
    """Let those of the ended tasks run again that can; why the others cannot.

    They share a transaction, so let them be a thousand at most. The pending dependencies of the children `uncounted`
    are the caller's to count.
    """
    unsettled = [task.id for task in context.storage.tasks.load(tasks).values() if task.unsettled]
    settle(context, unsettled, thorough=True)
    try:
        retried = context.storage.transaction(lambda session: begin_again(context, tasks, session, uncounted))
    except IllegalTransition as error:
        if len(tasks) == 1:
            return {tasks[0]: error}
        return {id: why for task in tasks for id, why in retry_all(context, [task], uncounted).items()}
    follow(context, retried)
    return retried.refused


def follow(context: Context, retried: Retried) -> None:
    """What comes after the transaction: claims are woken, groups that ended are settled, ready tasks promoted."""
    changes = retried.changes
    announce(context, changes)
    settle(context, [task.id for task, change in changes if change.ended and task.has_continuations])
    promote_ready(context, [task.id for task, change in changes if change.state == State.INACTIVE])


def begin_again(
    context: Context, tasks: Sequence[ObjectId], session: Session, uncounted: Collection[ObjectId] = ()
) -> Retried:
    """Write the new beginning of ended tasks and of their descendants, within a transaction.

    Raises `IllegalTransition` when the child of a descendant has begun; of several tasks it does not say which is to
    blame.
    """
    now = context.now()
    roots, refused = _roots(context, tasks, session)
    if not roots:
        return Retried(refused=refused)
    context.storage.meta.touch_graph(session)
    revived: dict[ObjectId, Task] = {}
    frontier = list(roots)
    while frontier:
        out = context.storage.edges.of_parents(frontier, session)
        children = context.storage.tasks.load({edge.child for edge in out}, session)
        begun = _begun(out, children)
        if begun and revived:
            raise next(iter(begun.values()))
        refused |= begun
        roots = {id: task for id, task in roots.items() if id not in begun}
        out = [edge for edge in out if edge.parent not in begun]
        _wait_again(context, out, children, session, uncounted)
        came_back = [child for child in _revivable(context, out, children, session) if child.id not in revived]
        revived |= {child.id: child for child in came_back}
        frontier = [child.id for child in came_back if child.has_continuations]
    waiting = context.storage.edges.waiting(list(roots), session)
    decided = [(task, decide(task, Retry(task.id in waiting), now)) for task in roots.values()]
    decided += [(child, decide(child, Revive(), now)) for child in revived.values()]
    changes = [(task, change) for task, change in decided if change is not None]
    written = context.storage.tasks.commit(changes, now, session)
    if len(written) != len(changes):
        raise Conflict("a task or a descendant was changed meanwhile; try again")
    context.storage.tasks.mark_unpromoted(written, session)
    return Retried(changes, {id: error for id, error in refused.items() if id not in revived})


def _roots(
    context: Context, tasks: Sequence[ObjectId], session: Session
) -> tuple[dict[ObjectId, Task], dict[ObjectId, BanyanError]]:
    """The tasks that have ended and whose parents let them run again, and why the others cannot."""
    found = context.storage.tasks.load(tasks, session)
    blamed = context.storage.edges.broken(list(found), session)
    refused: dict[ObjectId, BanyanError] = {}
    for id in tasks:
        if id not in found or found[id].leaving:
            refused[id] = NotFound(f"there is no task {id}" if id not in found else f"task {id} is being deleted")
        elif id in blamed:
            reason = f"its parent {blamed[id]} did not end as it needs; retry that one first"
            refused[id] = IllegalTransition({"state": f"task {id} cannot be retried: {reason}"})
        else:
            try:
                decide(found[id], Retry(), context.now())
            except IllegalTransition as error:
                refused[id] = error
    return {id: task for id, task in found.items() if id not in refused}, refused


def _begun(edges: Iterable[Edge], children: Mapping[ObjectId, Task]) -> dict[ObjectId, IllegalTransition]:
    """Which of the parents have a child that has begun, and the reason that this is against a retry."""
    begun: dict[ObjectId, IllegalTransition] = {}
    for edge in edges:
        child = children.get(edge.child)
        if child is not None and child.state not in (State.INACTIVE, State.CANCELLED):
            reason = f"its continuation {child.id} is {child.state} already"
            begun[edge.parent] = IllegalTransition({"state": f"task {edge.parent} cannot be retried: {reason}"})
    return begun


def _wait_again(
    context: Context,
    edges: Sequence[Edge],
    children: Mapping[ObjectId, Task],
    session: Session,
    uncounted: Collection[ObjectId],
) -> None:
    """Let the children of these edges wait for their parents anew."""
    ids = {edge.child for edge in edges if edge.child in children}
    context.storage.edges.unsettle([edge.id for edge in edges], session)
    context.storage.tasks.touch([id for id in ids if not children[id].ended], session)
    counts = context.storage.edges.pending_counts(ids - set(uncounted), session)
    context.storage.tasks.set_pending(counts, session)


def _revivable(
    context: Context, edges: Sequence[Edge], children: Mapping[ObjectId, Task], session: Session
) -> list[Task]:
    """Those that were cancelled for a parent's sake, and for no other parent that is still to blame.

    Where it is another one alone that still is, the child says so from now on.
    """
    cancelled = {
        edge.child: children[edge.child]
        for edge in edges
        if edge.child in children
        and children[edge.child].state == State.CANCELLED
        and not children[edge.child].leaving
        and "task" in (children[edge.child].cancelled_by or {})
    }
    blamed = context.storage.edges.broken(list(cancelled), session) if cancelled else {}
    again = {edge.parent for edge in edges}
    causes = {id: (cancelled[id].cancelled_by or {}).get("task") for id in blamed}
    context.storage.tasks.blame({id: blamed[id] for id, cause in causes.items() if cause in again}, session)
    return [child for child in cancelled.values() if child.id not in blamed]
