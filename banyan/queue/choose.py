"""Choosing tasks for a worker: by class, by queue share, priority and age."""

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
from banyan.queue.context import Context
from banyan.queue.taken import Taking

Document = dict[str, Any]

_RESERVED_SECONDS = 60.0
_SCATTERED = 4
"""So many classes are looked into where the best tasks were lost to other servers."""


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


_Entry = tuple[float, ObjectId, ObjectId, Document]
"""A candidate behind its rank."""


@dataclass(slots=True)
class Choice:
    """The tasks chosen so far, and what is left of what the worker offered."""

    free: Resources
    slots: int
    limits: Mapping[str, int] = field(default_factory=dict)
    """How many tasks of a queue may run at once, for queues that have such a limit."""
    room: dict[str, int] = field(default_factory=dict)
    """How many more of them may start."""
    tasks: list[Document] = field(default_factory=list)
    reserving: bool = False
    missed: bool = False
    """Whether other claims in this server are taking tasks that would have been chosen."""

    def take(self, task: Document, wanted: Resources) -> None:
        self.add(task)
        self.free = self.free.minus(wanted)
        self.slots -= 1

    def add(self, task: Document) -> None:
        self.tasks.append(task)
        if task["queue"] in self.room:
            self.room[task["queue"]] -= 1

    def full(self, queue: str) -> bool:
        """Whether no more tasks of a queue may start."""
        return self.room.get(queue, 1) <= 0


def choose(context: Context, wanted: Wanted, taking: Taking, crowd: int) -> Choice:
    """Choose among the classes that fit, and begin `taking`; in a `crowd` of servers not always the first tasks."""
    heads = context.heads.get(context.hub.generation, context.storage.tasks.class_heads)
    if not heads:
        return Choice(wanted.free, wanted.max_tasks)
    queues = context.storage.queues.all()
    waiting = {head["queue"] for head in heads}
    context.shares.rest(waiting)
    limits = {name: queues[name]["max_running"] for name in waiting & queues.keys()}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    room = {name: limit - context.storage.tasks.running_in(name) for name, limit in limits.items()}
    choice = Choice(wanted.free, wanted.max_tasks, limits, room)
    candidates = _Candidates(context, wanted, taking, crowd)
    eligible = []
    for head in heads:
        task_class = context.classes.of(head)
        queue = queues.get(head["queue"], {"paused": True})
        if not queue["paused"] and not choice.full(head["queue"]) and wanted.offer.accepts(task_class):
            candidates.add(head, task_class)
            eligible.append(head)
    if crowd:
        candidates.scatter(eligible)
    weights = {name: float(queue["weight"]) for name, queue in queues.items()}
    _fill(context, wanted, candidates, choice, weights)
    if not choice.reserving:
        _fill_ahead(candidates, wanted, choice, [head for head in eligible if not context.taken.has(head)])
    return choice


class _Candidates:
    """Tasks of the classes that fit, best first within each queue; read from MongoDB only as far as needed."""

    def __init__(self, context: Context, wanted: Wanted, taking: Taking, crowd: int) -> None:
        self._context = context
        self._wanted = wanted
        self._taking = taking
        self._crowd = crowd
        self._classes: dict[str, TaskClass] = {}
        self._waiting: dict[str, list[_Entry]] = {}
        self._more: set[str] = set()
        """Classes of which there may be tasks that were not read yet."""
        self._missed: dict[str, Document] = {}
        """The last task of each class that was wanted, and is being taken by another claim."""
        self._left: Counter[str] = Counter()
        self._seen: set[ObjectId] = set()
        self._popped: Document | None = None

    def add(self, head: Document, task_class: TaskClass) -> None:
        """Offer a class by its best task."""
        self._classes[task_class.key] = task_class
        if not self._crowd:
            self._push(head)
            self._more.add(task_class.key)

    def scatter(self, heads: Sequence[Document]) -> None:
        """Take any tasks of a few classes, any of those whose best tasks come first."""
        now = [head for head in heads if self._classes[head["class_key"]].resources.fits(self._wanted.free)]
        first = heapq.nsmallest(4**self._crowd, now or heads, key=_rank)
        for head in random.sample(first, min(len(first), _SCATTERED, max(1, self._wanted.max_tasks))):
            self._read(head["class_key"])

    def queues(self) -> list[str]:
        """Queues that have a candidate; now more of a class are read, if one of them may be the next."""
        if self._popped is not None:
            self._read_more(self._popped["class_key"])
        while (key := self._overdue()) is not None:
            self._more.add(key)
            self._read_more(key)
        return [name for name, heap in self._waiting.items() if heap]

    def _overdue(self) -> str | None:
        """A class whose best task another claim has taken, when nothing else of its queue has the same priority."""
        for key, task in self._missed.items():
            heap = self._waiting.get(task["queue"])
            if not heap or heap[0][0] > _rank(task)[0]:
                del self._missed[key]
                return key
        return None

    def _read_more(self, key: str) -> None:
        if key in self._more and not self._left[key]:
            self._more.discard(key)
            self._read(key)

    def pop(self, queue: str) -> tuple[Document, TaskClass]:
        """The best candidate of a queue; the next of its class moves up when `queues` is asked again."""
        self._popped = task = heapq.heappop(self._waiting[queue])[-1]
        self._left[task["class_key"]] -= 1
        return task, self._classes[task["class_key"]]

    def suits(self, task: Document) -> bool:
        """Whether the worker may have this very task: a class is offered by its best task, whatever that is like."""
        return _could_run(self._wanted, task)

    def take(self, task: Document) -> bool:
        """Whether the task is ours to take; where another claim takes it, more of its class may be wanted."""
        if self._taking.take(task):
            return True
        self._more.discard(task["class_key"])
        self._missed[task["class_key"]] = task
        return False

    def drop(self, queue: str, key: str) -> None:
        """Leave out the rest of a class: one task of it does not fit, so none does."""
        self._more.discard(key)
        self._waiting[queue] = [entry for entry in self._waiting[queue] if entry[-1]["class_key"] != key]
        heapq.heapify(self._waiting[queue])
        self._left[key] = 0

    def ahead(self, key: str, count: int, beside: set[ObjectId]) -> list[Document]:
        """More tasks of one class, to be queued at the worker."""
        if key not in self._classes or not self._classes[key].resources.fits(self._wanted.offer.total):
            return []
        found = self._find(key, count + len(beside))
        return [task for task in found if task["_id"] not in beside][:count]

    def _read(self, key: str) -> None:
        for task in self._find(key, max(1, self._wanted.max_tasks)):
            if task["_id"] not in self._seen:
                self._push(task)

    def _find(self, key: str, count: int) -> list[Document]:
        """So many tasks of a class besides those that other claims are taking, and one that was seen before."""
        spread = (count * 4**self._crowd if self._crowd else count + 1) + self._context.taken.count(key)
        wanted = self._wanted
        found = self._context.storage.tasks.claimable(
            key, wanted.worker["_id"], min(spread, 5000), wanted.timeout_seconds
        )
        return random.sample(found, min(count, len(found))) if self._crowd else found

    def _push(self, task: Document) -> None:
        self._seen.add(task["_id"])
        self._left[task["class_key"]] += 1
        heapq.heappush(self._waiting.setdefault(task["queue"], []), (*_rank(task), task["_id"], task))


def _fill(
    context: Context, wanted: Wanted, candidates: _Candidates, choice: Choice, weights: Mapping[str, float]
) -> None:
    """Take what fits together, each time from the queue whose turn it is."""
    while choice.slots > 0 and not choice.reserving:
        queues = [queue for queue in candidates.queues() if not choice.full(queue)]
        if not queues:
            return
        queue = context.shares.next(queues)
        task, task_class = candidates.pop(queue)
        if not candidates.suits(task):
            continue
        if not task_class.resources.fits(choice.free):
            candidates.drop(queue, task_class.key)
            choice.reserving = _reserve(context, wanted, task)
        elif candidates.take(task):
            choice.take(task, task_class.resources)
            context.shares.took(queue, weights)
        else:
            choice.missed = True


def _reserve(context: Context, wanted: Wanted, task: Document) -> bool:
    """Keep this worker free for a wide task that has waited long; one worker for each such task."""
    now = context.now()
    patience = timedelta(seconds=context.settings.queue.reserve_after)
    if now - task.get("time_available", now) < patience:
        return False
    until = now + timedelta(seconds=_RESERVED_SECONDS)
    return context.storage.tasks.reserve(task["_id"], wanted.worker["_id"], until, now)


def _fill_ahead(candidates: _Candidates, wanted: Wanted, choice: Choice, eligible: Sequence[Document]) -> None:
    """Queue more tasks at the worker, but none before one of another class that it could run and that comes first."""
    chosen = {task["_id"] for task in choice.tasks}
    others = [head for head in eligible if head["class_key"] not in wanted.ahead and head["_id"] not in chosen]
    others = [head for head in others if _could_run(wanted, head)]
    for key, count in wanted.ahead.items():
        for task in candidates.ahead(key, count, chosen):
            outranked = any(head["queue"] != task["queue"] or _rank(head) < _rank(task) for head in others)
            if outranked or choice.full(task["queue"]):
                break
            if candidates.take(task):
                chosen.add(task["_id"])
                choice.add(task)


def _rank(task: Document) -> tuple[float, ObjectId]:
    """Within its queue: higher priority first, then older."""
    return -task["priority"], task["order"]


def _could_run(wanted: Wanted, head: Document) -> bool:
    left = wanted.timeout_seconds
    in_time = left is None or head.get("timeout", float("inf")) <= left
    return in_time and wanted.worker["_id"] not in head.get("avoid", ())
