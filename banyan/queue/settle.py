"""What the end of a task means for its continuations: they are promoted, or cancelled, and so on down."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bson import ObjectId

from banyan.domain.continuations import Edge, satisfied
from banyan.domain.task import State, Task
from banyan.domain.transitions import Cancel, Event, Promote
from banyan.queue.apply import apply_in_order
from banyan.queue.context import Context
from banyan.storage.mongo import Session

_EDGES = 1000
_PARENTS = 500


def settle(context: Context, parents: Iterable[ObjectId], *, thorough: bool = False) -> None:
    """Settle the continuations of tasks that have ended, and of all that end because of it.

    Safe to repeat and to run in many places at once: edges are marked once, children change by guarded writes.
    With `thorough` also edges that were marked before are looked at, for a settlement that was interrupted.
    Cost follows the number of edges, whatever the shape of the graph.
    """
    frontier = list(dict.fromkeys(parents))
    while frontier:
        batch, frontier = frontier[:_PARENTS], frontier[_PARENTS:]
        with context.storage.in_order() as session:
            frontier += _settle_batch(context, batch, thorough, session)


def _settle_batch(context: Context, parents: Sequence[ObjectId], thorough: bool, session: Session) -> list[ObjectId]:
    marked = {id: task for id, task in context.storage.tasks.load(parents, session).items() if task.ended}
    ended: list[ObjectId] = []
    while edges := context.storage.edges.unsettled(marked, _EDGES, session):
        # The parents are read after the edges: the end that a parent has now belongs to the edges' life, or to none.
        tasks = context.storage.tasks.load({edge.parent for edge in edges}, session)
        again = {edge.parent for edge in edges if edge.parent not in tasks or not tasks[edge.parent].ended}
        marked = {id: task for id, task in marked.items() if id not in again}
        edges = [edge for edge in edges if edge.parent not in again]
        all_ours = _mark(context, edges, tasks)
        ended += advance(context, [edge.child for edge in edges], exact=thorough or not all_ours)
    if thorough:
        ended += _advance_all(context, list(marked))
    context.storage.tasks.clear_unsettled({id: task.revision for id, task in marked.items() if task.unsettled})
    return ended


def _mark(context: Context, edges: Sequence[Edge], parents: dict[ObjectId, Task]) -> bool:
    """Mark the edges; whether each was still unsettled, so that the counts of the children can simply go down."""
    kept = [edge for edge in edges if satisfied(edge.on, parents[edge.parent])]
    broken = [edge for edge in edges if not satisfied(edge.on, parents[edge.parent])]
    marked = context.storage.edges.settle(kept, True) if kept else 0
    marked += context.storage.edges.settle(broken, False) if broken else 0
    return marked == len(edges)


def _advance_all(context: Context, parents: Sequence[ObjectId]) -> list[ObjectId]:
    ended: list[ObjectId] = []
    last: ObjectId | None = None
    while edges := context.storage.edges.of_parents(parents, after=last, limit=_EDGES):
        ended += advance(context, [edge.child for edge in edges], exact=True)
        last = edges[-1].id
    return ended


def advance(context: Context, children: Sequence[ObjectId], *, exact: bool = False) -> list[ObjectId]:
    """Promote or cancel those inactive children whose edges say so; those that ended by it and are parents.

    `children` names a child once for each edge that was settled just now; with `exact` the number of pending
    dependencies is counted anew instead of lowered.
    """
    if not children:
        return []
    counts = Counter(children)
    ids = list(counts)
    waiting: set[ObjectId] = set()
    broken: dict[ObjectId, ObjectId] = {}

    def read(now: Sequence[ObjectId], session: Session) -> None:
        nonlocal waiting, broken
        waiting, broken = context.storage.edges.waiting(now, session), context.storage.edges.broken(now, session)

    def event_of(task: Task) -> Event | None:
        if task.state != State.INACTIVE:
            return None
        if task.id in broken:
            return Cancel({"task": broken[task.id]})
        return None if task.id in waiting else Promote()

    applied = apply_in_order(context, ids, event_of, read)
    if exact:
        context.storage.tasks.set_pending(context.storage.edges.pending_counts(ids))
    else:
        context.storage.tasks.discount(counts)
    return applied.parents_to_settle()


def promote_ready(context: Context, tasks: Iterable[ObjectId]) -> None:
    """Promote those of the tasks that have parents, all of them settled as they ask; unmark those looked at."""
    found = context.storage.tasks.load(tasks)
    children = context.storage.edges.having_parents(list(found))
    if children:
        settle(context, advance(context, list(children), exact=True))
    context.storage.tasks.clear_unpromoted({id: task.revision for id, task in found.items()})
