"""Submissions that are too large for one transaction, stored in parts: all of it or nothing all the same.

MongoDB keeps the writes of a transaction in its cache until the commit, and refuses more than a fraction of it. So the
tasks are first stored in parts, which no reader sees. One small transaction then accepts the submission, and after it
its parts become tasks one after the other, by the request itself, or by rescue if that was interrupted.

A child must not begin before all its edges exist. An edge to a new task is therefore created before both of its new
ends; and of the edges to an existing child, one is created when the submission is accepted: the edge from its last
parent.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import ON_ANY, Edge
from banyan.errors import Conflict
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.graph import Joining, check_ends
from banyan.queue.settle import promote_ready, settle
from banyan.storage.mongo import Session
from banyan.storage.parts import Part
from banyan.storage.tasks import encoded

log = logging.getLogger(__name__)

Document = dict[str, Any]

WHOLE_BYTES = 32 * 2**20
"""The most bytes that one transaction writes: less than a fifth of the smallest cache, above which MongoDB refuses."""
PART_BYTES = 8 * 2**20

TASK_BYTES = 2500
EDGE_BYTES = 1700
"""The cache that a task needs besides its document, and that an edge needs in all; measured with MongoDB 6."""

_REMAINS = timedelta(hours=2)


def weight(stored: Iterable[bytes], edges: int) -> int:
    """Bytes in the cache of a transaction that writes these tasks and so many edges."""
    return sum(len(task) + TASK_BYTES for task in stored) + edges * EDGE_BYTES


def submit_in_parts(
    context: Context,
    unit: ObjectId,
    tasks: Sequence[Document],
    stored: Sequence[bytes],
    joining: Joining,
    actor: Actor,
    record: Callable[[Session], None],
    given: Collection[ObjectId] = (),
    part_bytes: int = PART_BYTES,
) -> None:
    """Store new tasks (`stored` is their BSON) with their edges as the submission `unit`.

    `record` is called in the transaction that accepts it. An error before that leaves nothing; afterwards all of it
    will exist, even if this process dies. `given` are the ids that the client chose: Conflict if another submission
    that was accepted meanwhile has one of them.
    """
    split = Split(tasks, stored, joining.edges, given, part_bytes)
    try:
        for number, part in enumerate(split.parts):
            context.storage.parts.put_aside(unit, number, part)

        def accept(session: Session) -> None:
            now = context.now()
            if given:
                context.storage.meta.touch_graph(session)  # of two with the same ids the second sees the first
                if taken := taken_ids(context, given, session):
                    raise Conflict(f"another submission was accepted meanwhile that makes a task {min(taken)}")
            parents = check_ends(context, joining, actor, now, session)
            context.storage.tasks.touch([child for child in joining.children if child in parents], session)
            context.storage.edges.insert(split.first, session)
            context.storage.parts.accept(unit, len(split.parts), joining.children, now, session)
            record(session)

        context.storage.transaction(accept)
    except BaseException:
        if context.storage.parts.find(unit) is None:
            context.storage.parts.drop([unit])
        raise
    complete(context, unit)


def complete(context: Context, unit: ObjectId) -> None:
    """Create all missing parts of an accepted submission; safe to run in many places at once."""
    while (submission := context.storage.parts.find(unit)) is not None:
        _make(context, submission)


def complete_interrupted(context: Context) -> None:
    """Complete submissions that other processes left, and delete the parts of submissions that were never accepted."""
    now = context.now()
    for unit in context.storage.parts.interrupted(now - context.patience):
        complete(context, unit)
    context.storage.parts.drop(context.storage.parts.remains(now - _REMAINS))


def _make(context: Context, submission: Document) -> None:
    """Create the next part, unless another process does."""

    def write(session: Session) -> tuple[Part, list[ObjectId]] | None:
        part = context.storage.parts.take(submission, context.now(), session)
        if part is None:
            return None
        parents = context.storage.tasks.load(part.parents, session)
        if parents:
            context.storage.tasks.mark_parents(parents, session)
        gone = set(part.parents) - parents.keys()
        if taken := context.storage.tasks.load(part.given, session):  # only one of two tasks with an id can exist
            log.error(
                "submission %s: other tasks have the ids %s, its own are left out", submission["_id"], list(taken)
            )
            part = part.without(taken, _existing(context, part, session))
        context.storage.edges.insert([_orphaned(edge) if edge.parent in gone else edge for edge in part.edges], session)
        context.storage.tasks.insert(part.tasks, session)
        if submission["next"] + 1 == submission["count"]:
            counts = context.storage.edges.pending_counts(submission["children"], session)
            context.storage.tasks.set_pending(counts, session)
        return part, [task.id for task in parents.values() if task.ended]

    made = context.storage.transaction(write)
    if made is None:
        return
    part, ended = made
    context.hub.work(part.claimable)
    settle(context, [*ended, *part.ended])
    promote_ready(context, part.unpromoted)


def taken_ids(context: Context, ids: Iterable[ObjectId], session: Session | None = None) -> set[ObjectId]:
    """Return those of the ids that a task has, or that one of an accepted submission will have."""
    wanted = list(ids)
    taken = context.storage.parts.promised(wanted, session)  # in this order: what is promised becomes a task
    return taken | context.storage.tasks.load(wanted, session).keys()


def _existing(context: Context, part: Part, session: Session) -> set[tuple[ObjectId, ObjectId]]:
    """Return the ends (parent, child) of the part's edges that are there already."""
    parents, children = [edge.parent for edge in part.edges], [edge.child for edge in part.edges]
    return context.storage.edges.existing(parents, children, session)


def claimable(tasks: Iterable[Document]) -> Mapping[str, int]:
    """The number of new tasks that can be claimed now, by class."""
    return Counter(task["class_key"] for task in tasks if "class_key" in task)


def priorities(tasks: Iterable[Document]) -> Mapping[str, float]:
    """The highest priority of new tasks that can be claimed now, by class."""
    best: dict[str, float] = {}
    for task in tasks:
        if (key := task.get("class_key")) is not None:
            best[key] = max(best.get(key, task["priority"]), task["priority"])
    return best


def ended_parents(tasks: Iterable[Document]) -> list[ObjectId]:
    """New tasks that have ended already, because they are groups, and have continuations."""
    return [task["_id"] for task in tasks if "unsettled" in task]


def _orphaned(edge: Edge) -> Edge:
    """The edge from a parent that was deleted meanwhile: its end is unknown."""
    return replace(edge, settled=True, satisfied=edge.on == ON_ANY)


class Split:
    """A submission cut into `parts` where one would become too heavy; tasks keep their order.

    `first` are the edges that must exist from the acceptance on.
    """

    def __init__(
        self,
        tasks: Sequence[Document],
        stored: Sequence[bytes],
        edges: Sequence[Edge],
        given: Collection[ObjectId] = (),
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.first: list[Edge] = []
        self.parts: list[Part] = []
        self._place = {task["_id"]: index for index, task in enumerate(tasks)}
        self._tasks: list[Document] = []
        self._stored: list[bytes] = []
        self._edges: list[Edge] = []
        self._weight = 0
        self._given = given
        self._most = part_bytes
        edges_at = self._placed(edges)
        for index, task in enumerate(tasks):
            for edge in edges_at.get(index, ()):
                self._make_room(EDGE_BYTES)
                self._edges.append(edge)
            self._make_room(len(stored[index]) + TASK_BYTES)
            marked = _marked(task)
            self._tasks.append(marked)
            self._stored.append(stored[index] if marked is task else encoded(marked))
        self._cut()

    def _placed(self, edges: Sequence[Edge]) -> dict[int, list[Edge]]:
        """The edges by the task before which each is created, without those that are created first."""
        last: dict[ObjectId, Edge] = {}
        for edge in edges:
            if edge.child not in self._place:
                known = last.setdefault(edge.child, edge)
                if self._place[known.parent] < self._place[edge.parent]:
                    last[edge.child] = edge
        self.first = list(last.values())
        edges_at: dict[int, list[Edge]] = defaultdict(list)
        for edge in edges:
            if last.get(edge.child) is not edge:
                edges_at[min(self._place[end] for end in (edge.parent, edge.child) if end in self._place)].append(edge)
        return edges_at

    def _make_room(self, size_bytes: int) -> None:
        if self._weight + size_bytes > self._most:
            self._cut()
        self._weight += size_bytes

    def _cut(self) -> None:
        if not self._tasks and not self._edges:
            return
        older = {edge.parent for edge in self._edges if edge.parent not in self._place}
        part = part_of(self._tasks, self._stored, self._edges, list(older))
        given = [task["_id"] for task in self._tasks if task["_id"] in self._given]
        self.parts.append(replace(part, given=given))
        self._tasks, self._stored, self._edges, self._weight = [], [], [], 0


def part_of(
    tasks: Sequence[Document],
    stored: Sequence[bytes],
    edges: Sequence[Edge] = (),
    parents: Sequence[ObjectId] = (),
) -> Part:
    """A part with these new tasks (`stored` is their BSON)."""
    return Part(
        tasks=stored,
        edges=edges,
        parents=parents,
        claimable=claimable(tasks),
        ended=ended_parents(tasks),
        unpromoted=[task["_id"] for task in tasks if "unpromoted" in task],
    )


def _marked(task: Document) -> Document:
    """The task, marked if it has parents, because these may have ended meanwhile."""
    return {**task, "unpromoted": True} if task["pending_dependency_count"] else task
