"""Changes of the graph: edges between existing tasks, and the refusal of cycles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bson import ObjectId

from banyan.domain.continuations import Edge, find_cycle
from banyan.domain.task import State, Task
from banyan.errors import Conflict, IllegalTransition, Invalid
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.storage.mongo import Session


@dataclass(frozen=True, slots=True)
class Joining:
    """New edges, and their ends that already exist."""

    edges: Sequence[Edge]
    parents: list[ObjectId]
    children: list[ObjectId]

    @classmethod
    def of(cls, edges: Sequence[Edge], new: Iterable[ObjectId] = ()) -> "Joining":
        """Sort the ends of `edges` by whether they are among the `new` tasks."""
        fresh = set(new)
        parents = dict.fromkeys(edge.parent for edge in edges if edge.parent not in fresh)
        children = dict.fromkeys(edge.child for edge in edges if edge.child not in fresh)
        return cls(edges, list(parents), list(children))


def join(context: Context, joining: Joining, actor: Actor, now: datetime, session: Session | None) -> list[ObjectId]:
    """Check the existing ends of new edges and mark their tasks, within a transaction.

    Returns the parents that have ended, to be settled after the commit. Raises `Invalid` naming each end that does not
    allow its edge, and `Conflict` when a child was changed meanwhile.
    """
    parents = check_ends(context, joining, actor, now, session)
    if joining.parents:
        context.storage.tasks.mark_parents(joining.parents, session)
    return [task.id for task in parents.values() if task.ended]


def check_ends(
    context: Context, joining: Joining, actor: Actor, now: datetime, session: Session | None
) -> dict[ObjectId, Task]:
    """The existing parents of new edges, after all ends were checked and the existing children guarded; see `join`."""
    parents = context.storage.tasks.load(joining.parents, session)
    children = context.storage.tasks.load(joining.children, session)
    _refuse_ends(joining, parents, children, actor)
    if joining.parents and joining.children:
        context.storage.meta.touch_graph(session)
        _refuse_cycle(context, joining, session)
    for child in children.values():
        if child.id not in parents and context.storage.tasks.edit(child, {}, now, session) is None:
            raise Conflict(f"task {child.id} was changed meanwhile; try again")
    return parents


def _refuse_ends(joining: Joining, parents: dict[ObjectId, Task], children: dict[ObjectId, Task], actor: Actor) -> None:
    faults: dict[str, list[str]] = {}
    for id in joining.parents:
        parent = parents.get(id)
        if parent is None or parent.leaving or not actor.may_read(parent.owner):
            faults.setdefault("dependencies", []).append(f"there is no task {id}")
    for id in joining.children:
        child = children.get(id)
        if child is None or not actor.may_read(child.owner):
            faults.setdefault("continuations", []).append(f"there is no task {id}")
            continue
        actor.must_own(child.owner, f"task {id}")
        if child.state != State.INACTIVE:
            reason = f"task {id} is {child.state}; only an inactive task can become a continuation"
            faults.setdefault("continuations", []).append(reason)
    if faults:
        raise Invalid(faults)


def _refuse_cycle(context: Context, joining: Joining, session: Session | None) -> None:
    pairs = {(edge.parent, edge.child) for edge in joining.edges}
    known = _reachable(context, joining.children, session)
    if cycle := find_cycle(pairs | known):
        raise Invalid({"continuations": describe_cycle(cycle)})


def _reachable(context: Context, starts: Iterable[ObjectId], session: Session | None) -> set[tuple[ObjectId, ObjectId]]:
    """All edges below these tasks."""
    pairs: set[tuple[ObjectId, ObjectId]] = set()
    seen = set(starts)
    frontier = set(seen)
    while frontier:
        edges = context.storage.edges.of_parents(frontier, session)
        pairs |= {(edge.parent, edge.child) for edge in edges}
        frontier = {edge.child for edge in edges} - seen
        seen |= frontier
    return pairs


def describe_cycle(cycle: Sequence[ObjectId]) -> str:
    """The fault text for tasks that would wait for each other."""
    return f"these tasks would wait for each other: {' -> '.join(str(task) for task in [*cycle, cycle[0]])}"


def add_edges(context: Context, pairs: Iterable[tuple[ObjectId, ObjectId]], actor: Actor, session: Session) -> None:
    """Add continuations (parent, child) to inactive tasks of the actor's own, within a transaction.

    Existing edges stay as they are.
    """
    wanted = dict.fromkeys(pairs)
    _check_parents(context, {parent for parent, _ in wanted}, actor, session)
    there = context.storage.edges.existing({p for p, _ in wanted}, {c for _, c in wanted}, session)
    edges = [Edge(parent=p, child=c, owner=actor.name) for p, c in wanted if (p, c) not in there]
    if not edges:
        return
    join(context, Joining.of(edges), actor, context.now(), session)
    context.storage.edges.insert(edges, session)
    _count(context, [edge.child for edge in edges], session)


def remove_edges(
    context: Context, pairs: Iterable[tuple[ObjectId, ObjectId]], actor: Actor, session: Session
) -> list[ObjectId]:
    """Remove continuations (parent, child) of inactive tasks, within a transaction; return the children that had one.

    Raises `Invalid` when an edge does not exist. The caller must promote children whose last unsettled edge was
    removed.
    """
    wanted = dict.fromkeys(pairs)
    _check_parents(context, {parent for parent, _ in wanted}, actor, session)
    there = context.storage.edges.existing({p for p, _ in wanted}, {c for _, c in wanted}, session)
    missing = [f"task {c} is no continuation of task {p}" for p, c in wanted if (p, c) not in there]
    if missing:
        raise Invalid({"remove_continuations": missing})
    children = list(dict.fromkeys(child for _, child in wanted))
    for child in context.storage.tasks.load(children, session).values():
        actor.must_own(child.owner, f"task {child.id}")
    context.storage.meta.touch_graph(session)
    context.storage.edges.remove(wanted, session)
    context.storage.tasks.mark_unpromoted(children, session)
    _count(context, children, session)
    return children


def _check_parents(context: Context, ids: set[ObjectId], actor: Actor, session: Session) -> None:
    parents = context.storage.tasks.load(ids, session)
    for id in ids:
        parent = parents.get(id)
        if parent is None or not actor.may_read(parent.owner):
            raise Invalid({"targets": f"there is no task {id}"})
        actor.must_own(parent.owner, f"task {id}")
        if parent.state != State.INACTIVE:
            raise IllegalTransition(
                {"continuations": f"task {id} is {parent.state}; continuations change only while it is inactive"}
            )


def _count(context: Context, children: Sequence[ObjectId], session: Session) -> None:
    context.storage.tasks.set_pending(context.storage.edges.pending_counts(children, session), session)
