"""The new beginning of ended tasks and of descendants, in one transaction: these run again, stay, or forbid it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import Edge, satisfied
from banyan.domain.task import LIVE, State, Task
from banyan.domain.transitions import Change, Retry, Revive, decide
from banyan.errors import BanyanError, Conflict, IllegalTransition, Invalid, NotFound
from banyan.queue.context import Context
from banyan.queue.retry_options import Downstream, RetryOptions
from banyan.queue.update import with_class
from banyan.storage.mongo import Session
from banyan.storage.tasks import view

Document = dict[str, Any]

_NAMED = 10


@dataclass(frozen=True, slots=True)
class Retried:
    """The changes of a transaction, and the reasons why tasks were refused and why descendants were kept."""

    changes: Sequence[tuple[Task, Change]] = ()
    refused: dict[ObjectId, BanyanError] = field(default_factory=dict)
    kept: dict[ObjectId, str] = field(default_factory=dict)

    @property
    def again(self) -> dict[ObjectId, State]:
        """The tasks that begin again, and their new states."""
        return {task.id: change.state for task, change in self.changes}


def begin_again(context: Context, tasks: Sequence[ObjectId], options: RetryOptions, session: Session) -> Retried:
    """Write the new beginning of ended tasks and of their descendants, within a transaction.

    Raises `IllegalTransition` when a descendant forbids it; of several tasks it does not name the cause.
    """
    return _Beginning(context, tasks, options, session).write()


class _Beginning:
    """One transaction: `again` are the tasks that begin again, `roots` the requested ones among them."""

    def __init__(self, context: Context, tasks: Sequence[ObjectId], options: RetryOptions, session: Session) -> None:
        self._context = context
        self._tasks = tasks
        self._options = options
        self._session = session
        self._storage = context.storage
        self._refused: dict[ObjectId, BanyanError] = {}
        self._kept: dict[ObjectId, str] = {}
        self._roots: dict[ObjectId, Task] = {}
        self._fields: dict[ObjectId, Document] = {}
        self._again: dict[ObjectId, Task] = {}
        self._waiting: set[ObjectId] = set()
        """Children whose edges wait again."""
        self._going_on: set[ObjectId] = set()
        """Parents that have not ended, of tasks that began without waiting for them and must wait for them now."""

    def write(self) -> Retried:
        self._storage.meta.touch_graph(self._session)
        self._find_roots()
        self._refuse_begun()
        self._again = dict(self._roots)
        frontier = list(self._roots)
        while frontier:
            frontier = self._go_down(frontier)
        if not self._roots:
            return Retried(refused=self._refused)
        self._do_without()
        return self._commit()

    # The tasks themselves

    def _find_roots(self) -> None:
        found = self._load(self._tasks)
        for id in self._tasks:
            if (fault := self._fault(id, found.get(id))) is not None:
                self._refused[id] = fault
        ended = {id: task for id, task in found.items() if id not in self._refused}
        self._renew(ended)
        for id in self._broken(ended):
            self._refused[id] = self._refusal(id)
        self._roots = {id: task for id, task in ended.items() if id not in self._refused}
        self._refuse_lost_inputs()
        if self._options.changes.fields:
            self._change_fields()

    def _fault(self, id: ObjectId, task: Task | None) -> BanyanError | None:
        if task is None or task.leaving:
            return NotFound(f"there is no task {id}" if task is None else f"task {id} is being deleted")
        try:
            decide(task, Retry(), self._context.now())
        except IllegalTransition as error:
            return error
        return None

    def _refusal(self, id: ObjectId) -> IllegalTransition:
        """The reason why a task cannot run again: a parent, possibly deleted, whose end does not satisfy its edge."""
        parents = self._storage.edges.broken_by(id, _NAMED, self._session)
        missing = self._missing(parents)
        if missing:
            named = ", ".join(map(str, missing))
            text = f"task {id} needs another end of {named}, and that was deleted; 'without': [..] with these ids lets"
            return IllegalTransition({"without": f"{text} it run without them"})
        reason = f"its parent {parents[0]} did not end as it needs; retry that one first"
        return IllegalTransition({"state": f"task {id} cannot be retried: {reason}"})

    def _refuse_lost_inputs(self) -> None:
        """Refuse tasks that take the result of a deleted parent, unless the request names it in `without`."""
        for id, refs in self._lost_inputs(self._roots).items():
            spared = {name: ref for name, ref in refs.items() if ref["task"] in self._options.without}
            if len(spared) < len(refs):
                self._refused[id] = _lost_input(id, {n: ref for n, ref in refs.items() if n not in spared})
                del self._roots[id]
                continue
            left = self._storage.tasks.input_refs([id], self._session)[id]
            self._fields[id] = {"input_refs": {n: ref for n, ref in left.items() if n not in spared} or None}

    def _lost_inputs(self, tasks: Iterable[ObjectId]) -> dict[ObjectId, Document]:
        """The inputs of tasks that are results of deleted tasks."""
        refs = self._storage.tasks.input_refs(tasks, self._session)
        there = self._load({ref["task"] for each in refs.values() for ref in each.values()}) if refs else {}
        lost = {id: {n: r for n, r in each.items() if r["task"] not in there} for id, each in refs.items()}
        return {id: each for id, each in lost.items() if each}

    def _missing(self, ids: Sequence[ObjectId]) -> list[ObjectId]:
        there = self._load(ids)
        return [id for id in ids if id not in there]

    def _load(self, ids: Iterable[ObjectId]) -> dict[ObjectId, Task]:
        return self._storage.tasks.load(ids, self._session)

    def _broken(self, tasks: Iterable[ObjectId]) -> dict[ObjectId, ObjectId]:
        """The tasks with a parent whose end does not satisfy its edge, each with that parent; see `without`."""
        edges, without = self._storage.edges, self._options.without
        broken = edges.broken(list(tasks), self._session)
        if not without:
            return broken
        blamed = {id: edges.broken_by(id, len(without) + 1, self._session) for id in broken}
        return {id: left[0] for id, parents in blamed.items() if (left := [p for p in parents if p not in without])}

    def _renew(self, children: Iterable[ObjectId]) -> None:
        """Update outdated edges to tasks that begin again to the last ends of their parents, or let them wait."""
        edges = self._storage.edges.outdated_to(children, self._session)
        parents = self._load({edge.parent for edge in edges})
        going_on = {id for id, task in parents.items() if not task.ended}
        for outcome in (True, False):
            told = [e for e in edges if e.parent in parents and satisfied(e.on, parents[e.parent]) is outcome]
            self._storage.edges.correct(told, outcome, self._session)
        waiting = [edge for edge in edges if edge.parent in going_on]
        self._storage.edges.unsettle([edge.id for edge in waiting], self._session)
        self._waiting |= {edge.child for edge in waiting}
        self._going_on |= going_on

    def _do_without(self) -> None:
        """Remove the edges from the deleted parents in `without`; refuse a parent that exists or that is not needed."""
        without = self._options.without
        if not without:
            return
        for id in self._load(without):
            raise Invalid({"without": f"it is for parents that were deleted, and task {id} is there; retry that one"})
        spared = self._storage.edges.remove_between(without, self._again, self._session)
        if not spared and self._options.must_spare:
            raise Invalid({"without": "nothing that runs again has any of these as a parent"})

    def _change_fields(self) -> None:
        documents = self._storage.tasks.documents(self._roots, session=self._session)
        for id in list(self._roots):
            try:
                kept = {**documents[id], **self._fields.get(id, {})}
                self._fields[id] = self._fields.get(id, {}) | with_class(self._context, kept, self._options.changes)
            except BanyanError as error:
                self._refused[id] = error
                del self._roots[id]
                continue
            whole = {**documents[id], **self._fields[id]}
            self._roots[id] = view({name: value for name, value in whole.items() if value is not None})

    # Their descendants

    def _refuse_begun(self) -> None:
        """Refuse tasks whose children forbid the retry, until no more are refused."""
        out = self._storage.edges.of_parents(self._roots, self._session)
        children = self._there(out)
        before = -1
        while len(self._roots) != before:
            before = len(self._roots)
            for edge in out:
                child = children.get(edge.child)
                if child is None or edge.parent not in self._roots or edge.child in self._roots:
                    continue
                if (fault := self._forbids(child, edge.parent)) is not None:
                    self._refused[edge.parent] = fault
                    del self._roots[edge.parent]

    def _forbids(self, child: Task, parent: ObjectId) -> IllegalTransition | None:
        """The reason why a descendant forbids the new beginning of a parent."""
        if child.id in self._options.uncounted or not has_begun(child):
            return None
        if self._options.downstream == Downstream.REFUSE:
            state = "available after a first attempt" if child.state == State.AVAILABLE else child.state
            text = f"task {parent} cannot be retried as it is: its continuation {child.id} is {state} already"
            how = "'rerun' lets what has run after it run again, 'keep' leaves that as it is"
            return IllegalTransition({"downstream": f"{text}; {how}"})
        if self._options.may_rerun(child.owner) and child.state in LIVE:
            text = f"{child.id}, which comes after task {parent}, is {child.state}"
            how = "wait for its end or cancel it, or send 'keep'"
            return IllegalTransition({"downstream": f"{text}; {how}"})
        return None

    def _go_down(self, parents: Sequence[ObjectId]) -> list[ObjectId]:
        """Make the edges of restarted tasks wait for them; return the restarted children that are parents."""
        out = self._storage.edges.of_parents(parents, self._session)
        children = self._there(out)
        new = [(children[e.child], e.parent) for e in out if e.child in children and e.child not in self._again]
        for child, parent in new:
            if (fault := self._forbids(child, parent)) is not None:
                raise fault
        stay = {id: why for id, task in children.items() if (why := self._stays(task)) is not None}
        self._storage.edges.outdate([edge for edge in out if edge.child in stay], self._session)
        waiting = [edge for edge in out if edge.child not in stay]
        self._storage.edges.unsettle([edge.id for edge in waiting], self._session)
        self._kept |= stay
        self._waiting |= {edge.child for edge in waiting if edge.child in children}
        inactive = [id for id, task in children.items() if task.state == State.INACTIVE]
        self._storage.tasks.touch(inactive, self._session)
        come_back = self._coming_back([task for id, task in children.items() if id not in stay])
        self._again |= come_back
        return [task.id for task in come_back.values() if task.has_continuations]

    def _stays(self, child: Task) -> str | None:
        """The reason why a child that has begun or ended stays as it is; None for all others."""
        if child.id in self._again or child.id in self._options.uncounted:
            return None
        if has_begun(child) and not self._options.may_rerun(child.owner):
            kept = self._options.downstream == Downstream.KEEP
            return f"it is {child.state}" if kept else f"it is {child.state}, and another user's"
        by_user = self._options.downstream == Downstream.KEEP and _was_cancelled_by_user(child)
        return _BY_USER if by_user else None

    def _coming_back(self, children: Iterable[Task]) -> dict[ObjectId, Task]:
        """The children that begin again: those that ran, and those that were cancelled because of no other parent.

        A child that stays cancelled because of another parent alone names that parent from now on.
        """
        new = [task for task in children if task.id not in self._again and task.id not in self._options.uncounted]
        run = {task.id: task for task in new if task.state in (State.AVAILABLE, State.TERMINATED)}
        cancelled = {task.id: task for task in new if task.state == State.CANCELLED}
        self._kept |= {id: _BY_USER for id, task in cancelled.items() if _was_cancelled_by_user(task)}
        cancelled = {id: task for id, task in cancelled.items() if not _was_cancelled_by_user(task)}
        self._renew(run)
        broken = self._broken([*run, *cancelled])
        for id in broken.keys() & run.keys():
            if self._missing([broken[id]]):
                raise self._refusal(id)
        for id, refs in self._lost_inputs(run).items():
            raise _lost_input(id, refs)
        self._blame({id: parent for id, parent in broken.items() if id in cancelled}, cancelled)
        back = run | {id: task for id, task in cancelled.items() if id not in broken}
        for id in back:
            self._kept.pop(id, None)
        return back

    def _blame(self, broken: Mapping[ObjectId, ObjectId], cancelled: Mapping[ObjectId, Task]) -> None:
        """Record the parents because of which tasks stay cancelled."""
        causes = {id: (cancelled[id].cancelled_by or {}).get("task") for id in broken}
        others = {id: parent for id, parent in broken.items() if causes[id] in self._again}
        self._storage.tasks.blame(others, self._session)
        self._kept |= {id: f"its parent {parent} did not end as it needs" for id, parent in broken.items()}

    def _there(self, edges: Iterable[Edge]) -> dict[ObjectId, Task]:
        """The children of edges, without those that are being deleted."""
        found = self._load({edge.child for edge in edges})
        return {id: task for id, task in found.items() if not task.leaving}

    # Writing

    def _commit(self) -> Retried:
        storage, now = self._storage, self._context.now()
        affected = (self._waiting | self._again.keys()) - set(self._options.uncounted)
        storage.tasks.set_pending(storage.edges.pending_counts(affected, self._session), self._session)
        waiting = storage.edges.waiting(list(self._roots), self._session)
        decided = [(task, self._decide(task, task.id in waiting, now)) for task in self._again.values()]
        changes = [(task, change) for task, change in decided if change is not None]
        written = storage.tasks.commit(changes, now, self._session)
        if len(written) != len(changes):
            raise Conflict("a task or a descendant was changed meanwhile; try again")
        storage.tasks.mark_unpromoted(written, self._session)
        storage.tasks.mark_parents(self._going_on - self._again.keys(), self._session)
        refused = {id: error for id, error in self._refused.items() if id not in self._again}
        return Retried(changes, refused, self._kept)

    def _decide(self, task: Task, pending: bool, now: datetime) -> Change | None:
        if task.id not in self._roots:
            return decide(task, Revive(), now)
        change = decide(task, Retry(pending), now)
        return change and replace(change, fields={**self._fields.get(task.id, {}), **change.fields})


_BY_USER = "its user cancelled it"


def _lost_input(id: ObjectId, refs: Mapping[str, Any]) -> IllegalTransition:
    name, parent = next((name, ref["task"]) for name, ref in refs.items())
    text = f"task {id} takes its input {name!r} from the result of {parent}, which was deleted"
    how = f"retry it with 'without': [\"{parent}\"] and give that input in 'inputs'"
    return IllegalTransition({"without": f"{text}; {how}"})


def has_begun(task: Task) -> bool:
    """Return whether a task has run, is running, or had an attempt that failed."""
    if task.state == State.AVAILABLE:
        return task.retry_count > 0 or task.abandoned_count > 0
    return task.state in LIVE or task.state == State.TERMINATED


def _was_cancelled_by_user(task: Task) -> bool:
    return task.state == State.CANCELLED and "task" not in (task.cancelled_by or {})
