"""Submission of tasks: a list becomes tasks and edges in one transaction, or nothing at all."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import Edge, find_cycle
from banyan.domain.matching import CLASS_FIELDS, TaskClass
from banyan.domain.task import State
from banyan.domain.transitions import Release, decide
from banyan.errors import Invalid, TooLarge
from banyan.queue import parts
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.graph import Joining, describe_cycle, join
from banyan.queue.inputs import add_defaults, fault_of_refs, implied_edges
from banyan.queue.posting import Faults, posting_faults
from banyan.queue.settle import settle
from banyan.spelling import unknown
from banyan.storage.mongo import Session
from banyan.storage.tasks import encoded, first_fields, new_revision, view

Document = dict[str, Any]
Record = Callable[[Session | None, list[Document]], None]

MAX_TASK_BYTES = 12 * 2**20
"""The largest size of a stored task, which leaves room for the fields of its attempts (MongoDB's limit is 16 MiB)."""

_BEGIN_ALIKE = ("task_class", "hold", "not_before", "has_continuations")
"""New tasks with equal values of these fields get the same first state."""

_ANSWERED = ("_id", "_etag", "_created", "_updated", "state")


def submit(
    context: Context,
    documents: Sequence[Document],
    actor: Actor,
    record: Record | None = None,
    check: Collection[int] | None = None,
    unit: ObjectId | None = None,
) -> list[Document]:
    """Store validated tasks (with `dependencies` and `continuations` still in them) and start them.

    Returns `_id`, `_etag`, `_created`, `_updated` and `state` of each, in order. `record(session, answers)` is called
    within the transaction. `check` are the items for the posting check, all if it is None. Raises `Invalid` with the
    faults of all items, and then nothing is stored. `unit` is the id of the submission in `parts` if it is too large
    for one transaction.
    """
    now = context.now()
    tasks = _fresh(documents, actor, now)
    add_defaults(context, tasks)
    edges = [edge for task in tasks for edge in _edges(task, actor)]
    edges += implied_edges(tasks, edges, actor)
    given = {document["_id"]: index for index, document in enumerate(documents) if "_id" in document}
    _raise(_faults(context, tasks, edges, given, actor))
    _start(tasks, edges, now)
    stored = _encoded(context, tasks)
    _raise(posting_faults(context, tasks, check))
    joining = Joining.of(edges, [task["_id"] for task in tasks])
    answers = [_answer(task) for task in tasks]

    def recorded(session: Session | None) -> None:
        if record is not None:
            record(session, answers)

    if parts.weight(stored, len(edges)) > parts.WHOLE_BYTES:
        parts.submit_in_parts(context, unit or ObjectId(), tasks, stored, joining, actor, recorded, given)
        return answers
    alone = len(tasks) == 1 and not edges and record is None
    ended = _store_whole(context, stored, joining, actor, None if alone else recorded)
    context.hub.work(parts.claimable(tasks), parts.priorities(tasks))
    ended += parts.ended_parents(tasks)
    if not ended:
        return answers
    settle(context, ended)
    current = context.storage.tasks.documents([task["_id"] for task in tasks], _ANSWERED)
    return [_answer(current.get(task["_id"], task)) for task in tasks]


def _store_whole(
    context: Context,
    stored: Sequence[bytes],
    joining: Joining,
    actor: Actor,
    record: Callable[[Session | None], None] | None,
) -> list[ObjectId]:
    """Store tasks and edges, in one transaction unless `record` is None; return existing parents that ended."""

    def write(session: Session | None) -> list[ObjectId]:
        ended = join(context, joining, actor, context.now(), session) if joining.edges else []
        context.storage.tasks.insert(stored, session)
        context.storage.edges.insert(joining.edges, session=session)
        if joining.children:
            context.storage.tasks.set_pending(context.storage.edges.pending_counts(joining.children, session), session)
        if record is not None:
            record(session)
        return ended

    return write(None) if record is None else context.storage.transaction(write)


def _fresh(documents: Sequence[Document], actor: Actor, now: datetime) -> list[Document]:
    classes: dict[str, str] = {}
    seen: dict[tuple[int, ...], str] = {}  # tasks of a sweep share the very objects
    new = {"owner": actor.name, "_created": now, "_updated": now, "_etag": new_revision()}
    new |= {"retry_count": 0, "abandoned_count": 0, "attempt_count": 0}
    tasks = []
    for document in documents:
        task = {"_id": document.get("_id") or ObjectId(), **document, **new, "order": ObjectId()}
        if task.get("command") is not None or task.get("model") is not None:
            needs = [task.get(name) for name in CLASS_FIELDS]
            same = tuple(map(id, needs))
            if same not in seen:
                text = repr(needs)
                seen[same] = classes.get(text) or classes.setdefault(text, TaskClass.of(task).key)
            task["task_class"] = seen[same]
        tasks.append(task)
    return tasks


def _edges(task: Document, actor: Actor) -> list[Edge]:
    """Take the edges out of a new task."""
    if "dependencies" not in task and "continuations" not in task:
        return []
    parents = task.pop("dependencies", None) or []
    children = task.pop("continuations", None) or []
    edges = [Edge(parent=p["task"], child=task["_id"], on=p["on"], owner=actor.name) for p in parents]
    return edges + [Edge(parent=task["_id"], child=child, owner=actor.name) for child in children]


def _faults(
    context: Context, tasks: Sequence[Document], edges: Sequence[Edge], given: dict[ObjectId, int], actor: Actor
) -> Faults:
    """The faults of tasks: an unknown queue, an `_id` that is taken or repeated, impossible edges, a cycle."""
    known = context.storage.queues.names()
    faults: Faults = [{} for _ in tasks]
    conditions = {(edge.parent, edge.child): edge.on for edge in edges}
    place: dict[ObjectId, int] = {}
    for index, task in enumerate(tasks):
        if task["queue"] not in known:
            faults[index]["queue"] = unknown_queue(task["queue"], known)
        if task["_id"] in place:
            faults[index]["_id"] = f"item {place[task['_id']]} has the same _id"
        place.setdefault(task["_id"], index)
        if fault := fault_of_refs(task, conditions):
            faults[index]["input_refs"] = fault
    pairs = Counter((edge.parent, edge.child) for edge in edges)
    for (parent, child), count in pairs.items():
        if count > 1:
            index = place.get(child, place.get(parent, 0))
            faults[index]["dependencies"] = f"the edge from {parent} to {child} is given {count} times"
    if cycle := find_cycle(pairs):
        index = next(place[task] for task in cycle if task in place)
        faults[index]["dependencies"] = describe_cycle(cycle)
    if given:
        _refuse_ids(context, given, actor, faults)
    return faults


def _refuse_ids(context: Context, given: Mapping[ObjectId, int], actor: Actor, faults: Faults) -> None:
    """Refuse ids of existing tasks, and of deleted tasks that edges still name."""
    taken = parts.taken_ids(context, given)  # in this order: a task deleted meanwhile is named by its edges
    reasons = {
        id: f"tasks that are there still name {id} as a parent; make another id"
        for id in context.storage.edges.naming(given)
    }
    reasons |= {id: f"there is a task {id} already" for id in taken}
    for id, reason in reasons.items():
        hidden = f"{id} cannot be the id of a new task; leave '_id' out, or make another id"
        faults[given[id]]["_id"] = reason if actor.sees_all else hidden


def check_size(task: Document) -> bytes:
    """A task as it is stored; raises `TooLarge` for one that MongoDB could not hold with its results."""
    stored = encoded(task)
    if len(stored) > MAX_TASK_BYTES:
        raise _too_large(f"task {task['_id']} has", len(stored))
    return stored


def check_bytes(document: Mapping[str, Any], what: str) -> None:
    """Raise `TooLarge`, with `what` ("X has") in its text, for a document that is larger than a task may be."""
    if (size := len(encoded(document))) > MAX_TASK_BYTES:
        raise _too_large(what, size)


def _too_large(what: str, size: int) -> TooLarge:
    return TooLarge(f"{what} {size} bytes, at most {MAX_TASK_BYTES}; pass large data as files")


def _encoded(context: Context, tasks: Sequence[Document]) -> list[bytes]:
    limit = context.settings.limits.max_submission_bytes
    stored: list[bytes] = []
    total = 0
    for task in tasks:
        stored.append(check_size(task))
        total += len(stored[-1])
        if total > limit:
            reason = f"{len(stored)} of the tasks have {total} bytes, all together may have {limit}"
            what = "pass large data as files, or submit less at once"
            raise TooLarge(f"{reason} (limits.max_submission_bytes); {what}")
    return stored


def unknown_queue(name: str, known: set[str]) -> str:
    """The fault text for a queue that does not exist."""
    return unknown("queue", name, known)


def _raise(faults: Faults) -> None:
    if any(faults):
        raise Invalid(faults[0]) if len(faults) == 1 else Invalid(items=faults)


def _start(tasks: Sequence[Document], edges: Sequence[Edge], now: datetime) -> None:
    """Give each new task its first state: available at once only if it waits for nothing."""
    waits = Counter(edge.child for edge in edges)
    parents = {edge.parent for edge in edges}
    begun: dict[tuple[object, ...], Document] = {}
    for document in tasks:
        wanted, document["state"] = document["state"], State.INACTIVE
        document["pending_dependency_count"] = waits[document["_id"]]
        if document["_id"] in parents:
            document["has_continuations"] = True
        if wanted != State.AVAILABLE or waits[document["_id"]]:
            continue
        alike = tuple(map(document.get, _BEGIN_ALIKE))
        if alike not in begun:
            begun[alike] = _released(document, now)
        document.update(begun[alike])


def _released(document: Document, now: datetime) -> Document:
    """The fields of a new task that becomes available at once."""
    task = view(document)
    change = decide(task, Release(), now)
    return {} if change is None else first_fields(task, change)


def _answer(task: Document) -> Document:
    return dict(zip(_ANSWERED, _answered(task), strict=True))


_answered = itemgetter(*_ANSWERED)
