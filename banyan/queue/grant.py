"""Choosing tasks for a worker and making them its own: by class, by queue share, priority and age."""

import heapq
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass
from banyan.domain.resources import Resources
from banyan.domain.task import Task
from banyan.domain.transitions import Change, Claim, decide
from banyan.errors import Conflict, IllegalTransition
from banyan.queue.context import Context
from banyan.storage.mongo import Session
from banyan.storage.tasks import view

Document = dict[str, Any]

_ROUNDS = 50
_RESERVED_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one worker could take: `max_tasks` that fit `free` together, and more of the classes in `ahead`."""

    worker: Document
    offer: Offer
    free: Resources
    max_tasks: int
    ahead: Mapping[str, int]
    request: str
    timeout_seconds: float | None = None


@dataclass(slots=True)
class _Choice:
    """The tasks chosen so far, and what is left of what the worker offered."""

    free: Resources
    slots: int
    limits: Mapping[str, int] = field(default_factory=dict)
    """How many tasks of a queue may run at once, for queues that have such a limit."""
    tasks: list[Document] = field(default_factory=list)
    reserving: bool = False

    def take(self, task: Document, wanted: Resources) -> None:
        self.tasks.append(task)
        self.free = self.free.minus(wanted)
        self.slots -= 1


def grant(context: Context, wanted: Wanted) -> list[Document]:
    """Make the best fitting tasks the worker's; their documents as they are now, each with a fresh `execution`.

    Tasks that other claims took first are replaced by others; nothing is promised beyond what is returned.
    """
    granted: list[Document] = []
    for crowd in range(_ROUNDS):
        choice = _choose(context, wanted, min(crowd, 5))
        if not choice.tasks:
            break
        granted = _claim(context, wanted, choice)
        if granted:
            break
    return granted


def _choose(context: Context, wanted: Wanted, crowd: int) -> _Choice:
    """Choose among the classes that fit; in a `crowd` of claims not always the very first tasks."""
    heads = context.storage.tasks.class_heads()
    if not heads:
        return _Choice(wanted.free, wanted.max_tasks)
    queues = context.storage.queues.all()
    context.shares.rest({head["queue"] for head in heads})
    candidates = _Candidates(context, wanted, crowd)
    for head in heads:
        task_class = context.classes.of(head)
        queue = queues.get(head["queue"])
        if queue is not None and not queue["paused"] and wanted.offer.accepts(task_class):
            candidates.add(head, task_class)
    weights = {name: float(queue["weight"]) for name, queue in queues.items()}
    limits = {name: queue["max_running"] for name, queue in queues.items() if queue.get("max_running") is not None}
    choice = _Choice(wanted.free, wanted.max_tasks, limits)
    _fill(context, wanted, candidates, choice, weights)
    if not choice.reserving:
        _fill_ahead(candidates, wanted, choice)
    return choice


class _Candidates:
    """Tasks of the classes that fit, best first within each queue; read from MongoDB only as far as needed."""

    def __init__(self, context: Context, wanted: Wanted, crowd: int) -> None:
        self._context = context
        self._wanted = wanted
        self._crowd = crowd
        self._classes: dict[str, TaskClass] = {}
        self._waiting: dict[str, list[tuple[float, ObjectId, ObjectId, Document]]] = {}
        self._more: set[str] = set()

    def add(self, head: Document, task_class: TaskClass) -> None:
        """Offer a class by its best task."""
        self._classes[task_class.key] = task_class
        avoided = self._wanted.worker["_id"] in head.get("avoid", ())
        if avoided or self._crowd or self._wanted.timeout_seconds is not None:
            self._read(task_class.key)
        else:
            self._push(head)
            self._more.add(task_class.key)

    def queues(self) -> list[str]:
        """Queues that have a candidate."""
        return [name for name, heap in self._waiting.items() if heap]

    def pop(self, queue: str) -> tuple[Document, TaskClass]:
        """The best candidate of a queue; the next of its class moves up."""
        task = heapq.heappop(self._waiting[queue])[-1]
        key = task["class_key"]
        if key in self._more:
            self._more.discard(key)
            self._read(key, beside=task["_id"])
        return task, self._classes[key]

    def drop(self, queue: str, key: str) -> None:
        """Leave out the rest of a class: one task of it does not fit, so none does."""
        self._more.discard(key)
        self._waiting[queue] = [entry for entry in self._waiting[queue] if entry[-1]["class_key"] != key]
        heapq.heapify(self._waiting[queue])

    def ahead(self, key: str, count: int, beside: set[ObjectId]) -> list[Document]:
        """More tasks of one class, to be queued at the worker."""
        if key not in self._classes or not self._classes[key].resources.fits(self._wanted.offer.total):
            return []
        found = self._find(key, count + len(beside))
        return [task for task in found if task["_id"] not in beside][:count]

    def _read(self, key: str, beside: ObjectId | None = None) -> None:
        for task in self._find(key, max(1, self._wanted.max_tasks)):
            if task["_id"] != beside:
                self._push(task)

    def _find(self, key: str, count: int) -> list[Document]:
        spread = count * 4**self._crowd if self._crowd else count + 1
        found = self._context.storage.tasks.claimable(key, self._wanted.worker["_id"], min(spread, 5000))
        left = self._wanted.timeout_seconds
        if left is not None:
            found = [task for task in found if (task.get("timeout") or float("inf")) <= left]
        return random.sample(found, min(count, len(found))) if self._crowd else found

    def _push(self, task: Document) -> None:
        entry = (-task["priority"], task["order"], task["_id"], task)
        heapq.heappush(self._waiting.setdefault(task["queue"], []), entry)


def _fill(
    context: Context, wanted: Wanted, candidates: _Candidates, choice: _Choice, weights: Mapping[str, float]
) -> None:
    """Take what fits together, each time from the queue whose turn it is."""
    while choice.slots > 0 and not choice.reserving and (queues := candidates.queues()):
        queue = context.shares.next(queues)
        task, task_class = candidates.pop(queue)
        if task_class.resources.fits(choice.free):
            choice.take(task, task_class.resources)
            context.shares.took(queue, weights)
            continue
        candidates.drop(queue, task_class.key)
        choice.reserving = _reserve(context, wanted, task)


def _reserve(context: Context, wanted: Wanted, task: Document) -> bool:
    """Keep this worker free for a wide task that has waited long; one worker for each such task."""
    now = context.now()
    patience = timedelta(seconds=context.settings.queue.reserve_after)
    if now - task.get("time_available", now) < patience:
        return False
    until = now + timedelta(seconds=_RESERVED_SECONDS)
    return context.storage.tasks.reserve(task["_id"], wanted.worker["_id"], until, now)


def _fill_ahead(candidates: _Candidates, wanted: Wanted, choice: _Choice) -> None:
    chosen = {task["_id"] for task in choice.tasks}
    for key, count in wanted.ahead.items():
        more = candidates.ahead(key, count, chosen)
        chosen |= {task["_id"] for task in more}
        choice.tasks.extend(more)


def _claim(context: Context, wanted: Wanted, choice: _Choice) -> list[Document]:
    """Write the claims; those that were written, as documents, with their attempts recorded."""
    chosen = choice.tasks
    limited = {name: choice.limits[name] for name in {task["queue"] for task in chosen} if name in choice.limits}
    if not limited:
        return _write(context, wanted, chosen, None)
    return context.storage.transaction(
        lambda session: _write(context, wanted, _within(context, limited, chosen, session), session)
    )


def _within(
    context: Context, limited: Mapping[str, int], chosen: Sequence[Document], session: Session
) -> list[Document]:
    """Those of the chosen tasks that their queues' limits allow now; other claims in these queues wait."""
    room = {}
    for queue, limit in limited.items():
        context.storage.queues.touch(queue, session)
        room[queue] = limit - context.storage.tasks.running_in(queue, session)
    taken: Counter[str] = Counter()
    kept = []
    for task in chosen:
        taken[task["queue"]] += 1
        if task["queue"] not in room or taken[task["queue"]] <= room[task["queue"]]:
            kept.append(task)
    return kept


def _write(context: Context, wanted: Wanted, chosen: Sequence[Document], session: Session | None) -> list[Document]:
    now = context.now()
    worker = wanted.worker
    changes: list[tuple[Task, Change]] = []
    documents = {task["_id"]: task for task in chosen}
    for document in chosen:
        task = view(document)
        change = decide(task, Claim(ObjectId(), worker["_id"], wanted.request), now)
        if change is not None:
            changes.append((task, change))
    written = context.storage.tasks.commit(changes, now, session)
    granted = [
        {**documents[task.id], **change.fields, "state": change.state} for task, change in changes if task.id in written
    ]
    context.storage.executions.begin([attempt(document, worker) for document in granted], session)
    return granted


def attempt(task: Document, worker: Document) -> Document:
    """The record of an attempt that begins with a claim."""
    return {
        "_id": task["execution"],
        "task": task["_id"],
        "owner": task["owner"],
        "attempt": task["attempt_count"],
        "worker": worker["_id"],
        "host": worker["host"],
        "files_root": worker.get("files_root"),
        "time_claimed": task["time_claimed"],
        "last_update": task["time_claimed"],
        "_created": task["time_claimed"],
        "_updated": task["time_claimed"],
    }


def claim_one(context: Context, worker: Document, task: Document) -> Document:
    """Make one named task the worker's; raises `IllegalTransition`, or `Conflict` when someone else was first."""
    now = context.now()
    seen = view(task)
    if "class_key" not in task:
        raise IllegalTransition({"state": f"task {task['_id']} is {task['state']}; it cannot be claimed now"})
    change = decide(seen, Claim(ObjectId(), worker["_id"], f"by-hand-{ObjectId()}"), now)
    if change is None or not context.storage.tasks.commit([(seen, change)], now):
        raise Conflict(f"task {task['_id']} was changed meanwhile; read it again")
    granted = {**task, **change.fields, "state": change.state}
    context.storage.executions.begin([attempt(granted, worker)])
    return granted
