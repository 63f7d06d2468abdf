"""The effect of a task's end on its continuations: they are promoted, or cancelled, and so on down."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bson import ObjectId

from banyan.domain.continuations import Edge, satisfied
from banyan.domain.task import State, Task
from banyan.domain.transitions import Cancel, Change, Event, Promote
from banyan.queue.apply import Applied, apply_in_order
from banyan.queue.context import Context
from banyan.storage.mongo import Session

_EDGES = 1000
_PARENTS = 500
_COUNTED = 100
_ROUNDS = 20


def settle(context: Context, parents: Iterable[ObjectId], *, thorough: bool = False) -> None:
    """Settle the continuations of tasks that have ended, and of all that end because of it.

    Safe to repeat and to run in many places at once: edges are marked once, children change by guarded writes. With
    `thorough` children of edges that were marked before are checked as well, for a settlement that was interrupted.
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
        # The parents are read after the edges: a parent's present end belongs to the edges' life, or to none.
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
    """Mark the edges; return whether all were unsettled, so that the counts of the children can simply be lowered."""
    kept = [edge for edge in edges if satisfied(edge.on, parents[edge.parent])]
    broken = [edge for edge in edges if not satisfied(edge.on, parents[edge.parent])]
    marked = context.storage.edges.settle(kept, True) if kept else 0
    marked += context.storage.edges.settle(broken, False) if broken else 0
    return marked == len(edges)


def _advance_all(context: Context, parents: Sequence[ObjectId]) -> list[ObjectId]:
    ended: list[ObjectId] = []
    last: Edge | None = None
    while edges := context.storage.edges.page_of_parents(parents, last, _EDGES):
        ended += advance(context, [edge.child for edge in edges], exact=True)
        last = edges[-1]
    return ended


def advance(context: Context, children: Sequence[ObjectId], *, exact: bool = False) -> list[ObjectId]:
    """Promote or cancel inactive children as their edges require; return those that ended by it and are parents.

    `children` names a child once for each edge that was settled just now; with `exact` the displayed number of pending
    dependencies is corrected to any value, unless it is large: then `audit` corrects it once it is small.
    """
    ended: list[ObjectId] = []
    settled = Counter(children)
    for _ in range(_ROUNDS):
        if not settled:
            break
        look = _Look(context, settled, exact)
        applied = apply_in_order(context, list(settled), look.event_of, look.dressed, look.read)
        ended += applied.parents_to_settle()
        settled = look.show_counts(applied)
    return ended


@dataclass
class _Look:
    """One check of children of which some edges (`settled` has their number) were settled.

    The pending edges of a child are counted each time if the displayed number is small, and the true one too. A large
    number is lowered instead, because repeated counts would cost its square.
    """

    context: Context
    settled: Counter[ObjectId]
    exact: bool
    seen: dict[ObjectId, Task] = field(default_factory=dict)
    counts: dict[ObjectId, int] = field(default_factory=dict)
    waiting: set[ObjectId] = field(default_factory=set)
    broken: dict[ObjectId, ObjectId | None] = field(default_factory=dict)

    def read(self, tasks: Mapping[ObjectId, Task], session: Session) -> None:
        """Read the edges of these children."""
        edges = self.context.storage.edges
        few = [id for id, task in tasks.items() if self.exact or task.pending <= _COUNTED]
        counts = edges.few_pending(few, session)
        many = [id for id in tasks if id not in counts]
        self.seen.update(tasks)
        self.counts.update(counts)
        waiting = {id for id, count in counts.items() if count} | (edges.waiting(many, session) if many else set())
        self.waiting = (self.waiting - tasks.keys()) | waiting
        self.broken.update(dict.fromkeys(tasks) | edges.broken(list(tasks), session))

    def event_of(self, task: Task) -> Event | None:
        """The event that a child's edges require."""
        if task.state != State.INACTIVE:
            return None
        if (blamed := self.broken[task.id]) is not None:
            return Cancel({"task": blamed})
        return None if task.id in self.waiting else Promote()

    def dressed(self, task: Task, change: Change) -> Change:
        """The change of a child, with the number of its pending edges."""
        count = self._count(task.id)
        return change if count is None else replace(change, fields={**change.fields, "pending_dependency_count": count})

    def _count(self, child: ObjectId) -> int | None:
        """The number of parents that a child waits for; None where they are many, and were not counted."""
        return self.counts.get(child) if child in self.waiting else 0

    def show_counts(self, applied: Applied) -> Counter[ObjectId]:
        """Write the counts of the other children; return those (with their edges) that were changed meanwhile."""
        tasks = self.context.storage.tasks
        large = {id: self.settled[id] for id in self.seen if self._count(id) is None}
        if large and not self.exact:
            tasks.discount(large)
        others = [(task, self._count(id)) for id, task in self.seen.items() if id not in applied.changed]
        counts = [(task, count) for task, count in others if count is not None and count != task.pending]
        if tasks.show_pending(counts, exact=self.exact):
            return Counter()
        now = tasks.load(task.id for task, _ in counts)
        missed = [task.id for task, _ in counts if task.id in now and _differs(task, now[task.id])]
        return Counter({id: self.settled[id] for id in missed})


def _differs(before: Task, now: Task) -> bool:
    return (before.revision, before.pending) != (now.revision, now.pending)


def promote_ready(context: Context, tasks: Iterable[ObjectId]) -> None:
    """Promote tasks with parents whose edges are all settled and satisfied; remove the mark from all of them."""
    found = context.storage.tasks.load(tasks)
    children = context.storage.edges.having_parents(list(found))
    if children:
        settle(context, advance(context, list(children), exact=True))
    context.storage.tasks.clear_unpromoted({id: task.revision for id, task in found.items()})
