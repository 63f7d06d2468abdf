"""Choosing tasks for a worker: by class, by queue share, priority and age."""

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass
from banyan.domain.resources import Resources
from banyan.queue.context import Context
from banyan.queue.pool import Pool, rank

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
    patient: bool = False
    """Whether it waits if there is nothing, and is woken then."""


_Entry = tuple[float, bytes, ObjectId, Document]
"""A candidate behind its rank."""


@dataclass(slots=True)
class Choice:
    """The tasks chosen so far, and what is left of what the worker offered."""

    free: Resources
    slots: int
    tasks: list[Document] = field(default_factory=list)
    reserving: bool = False
    missed: bool = False
    """Whether other claims of the round took what would have been chosen."""

    def take(self, task: Document, wanted: Resources) -> None:
        self.tasks.append(task)
        self.free = self.free.minus(wanted)
        self.slots -= 1


def choose(context: Context, wanted: Wanted, pool: Pool) -> Choice:
    """Choose among the classes that fit; in a crowd of servers not always the first tasks."""
    choice = Choice(wanted.free, wanted.max_tasks)
    candidates = _Candidates(wanted, pool, choice)
    if pool.crowd:
        candidates.scatter(4**pool.crowd)
    _fill(context, wanted, candidates, choice, pool)
    if wanted.ahead and not choice.reserving:
        _fill_ahead(candidates, wanted, choice, pool)
    return choice


class _Candidates:
    """Tasks of the classes that fit, best first within each queue; read from MongoDB only as far as needed."""

    def __init__(self, wanted: Wanted, pool: Pool, choice: Choice) -> None:
        self._wanted = wanted
        self._pool = pool
        self._choice = choice
        self._offered = {queue: self._fitting(heads) for queue, heads in pool.heads.items() if not pool.full(queue)}
        """The best tasks of the classes of each queue that were not looked at yet, best first."""
        self._next = {queue: next(heads, None) for queue, heads in self._offered.items()}
        self._waiting: dict[str, list[_Entry]] = {queue: [] for queue in self._offered}
        self._more: set[str] = set()
        """Classes of which there may be tasks that were not read yet."""
        self._missed: dict[str, Document] = {}
        """The last task of each class that was wanted, and was chosen for another claim."""
        self._left: Counter[str] = Counter()
        self._seen: set[ObjectId] = set()
        self._popped: Document | None = None

    def _fitting(self, heads: Sequence[Document]) -> Iterator[Document]:
        return (head for head in heads if self._wanted.offer.accepts(self._pool.class_of(head)))

    def heads(self) -> list[Document]:
        """The best tasks of all classes that fit, also those that were chosen."""
        return [head for queue in self._offered for head in self._fitting(self._pool.heads[queue])]

    def scatter(self, count: int) -> None:
        """Offer any tasks of a few classes, any of those whose best tasks are among the first `count`."""
        heads = self.heads()
        now = [head for head in heads if self._pool.class_of(head).resources.fits(self._wanted.free)]
        first = heapq.nsmallest(count, now or heads, key=rank)
        self._next = dict.fromkeys(self._next)
        for head in random.sample(first, min(len(first), _SCATTERED, max(1, self._wanted.max_tasks))):
            self._read(head["class_key"])

    def queues(self) -> list[str]:
        """Queues that have a candidate; now more of a class are read, if one of them may be the next."""
        if self._popped is not None:
            self._read_more(self._popped["class_key"])
        for queue in self._offered:
            self._look_at_heads(queue)
        while (key := self._overdue()) is not None:
            self._more.add(key)
            self._read_more(key)
        return [name for name, heap in self._waiting.items() if heap]

    def _look_at_heads(self, queue: str) -> None:
        """Offer the best tasks of classes as far as one of them may be the next."""
        heap = self._waiting[queue]
        while (head := self._next[queue]) is not None and (not heap or rank(head) < heap[0][:2]):
            self._push(head)
            self._more.add(head["class_key"])
            self._next[queue] = next(self._offered[queue], None)

    def _overdue(self) -> str | None:
        """A class whose best task went to another claim, when nothing else of its queue has the same priority."""
        for key, task in self._missed.items():
            heap = self._waiting[task["queue"]]
            if not heap or heap[0][0] > rank(task)[0]:
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
        return task, self._pool.class_of(task)

    def suits(self, task: Document) -> bool:
        """Whether the worker may have this very task: a class is offered by its best task, whatever that is like."""
        return _could_run(self._wanted, task)

    def take(self, task: Document) -> bool:
        """Whether the task is ours to take; where another claim has it, more of its class may be wanted."""
        if self._pool.choose(task):
            return True
        self._choice.missed = True
        self._more.discard(task["class_key"])
        self._missed[task["class_key"]] = task
        return False

    def drop(self, queue: str, key: str) -> None:
        """Leave out the rest of a class: one task of it does not fit, so none does."""
        self._more.discard(key)
        self._waiting[queue] = [entry for entry in self._waiting[queue] if entry[-1]["class_key"] != key]
        heapq.heapify(self._waiting[queue])
        self._left[key] = 0

    def ahead(self, key: str, count: int) -> list[Document]:
        """More tasks of one class, to be queued at the worker."""
        known = self._pool.classes.get(key)
        if known is None or known.queue not in self._offered or not self._wanted.offer.accepts(known):
            return []
        return self._find(key, count)[:count]

    def _read(self, key: str) -> None:
        for task in self._find(key, max(1, self._wanted.max_tasks)):
            if task["_id"] not in self._seen:
                self._push(task)

    def _find(self, key: str, count: int) -> list[Document]:
        wanted = self._wanted
        found = self._pool.best(key, count, self.suits, wanted.worker["_id"], wanted.timeout_seconds)
        if len(found) < count and self._pool.chosen(key):
            self._choice.missed = True
        return found

    def _push(self, task: Document) -> None:
        self._seen.add(task["_id"])
        self._left[task["class_key"]] += 1
        heapq.heappush(self._waiting.setdefault(task["queue"], []), (*rank(task), task["_id"], task))


def _fill(context: Context, wanted: Wanted, candidates: _Candidates, choice: Choice, pool: Pool) -> None:
    """Take what fits together, each time from the queue whose turn it is."""
    while choice.slots > 0 and not choice.reserving:
        queues = [queue for queue in candidates.queues() if not pool.full(queue)]
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
            context.shares.took(queue, pool.weights)


def _reserve(context: Context, wanted: Wanted, task: Document) -> bool:
    """Keep this worker free for a wide task that has waited long; one worker for each such task."""
    now = context.now()
    patience = timedelta(seconds=context.settings.queue.reserve_after)
    if now - task.get("time_available", now) < patience:
        return False
    until = now + timedelta(seconds=_RESERVED_SECONDS)
    return context.storage.tasks.reserve(task["_id"], wanted.worker["_id"], until, now)


def _fill_ahead(candidates: _Candidates, wanted: Wanted, choice: Choice, pool: Pool) -> None:
    """Queue more tasks at the worker, but none before one of another class that it could run and that comes first."""
    heads = [head for head in candidates.heads() if pool.has(head)]
    others = [head for head in heads if head["class_key"] not in wanted.ahead and _could_run(wanted, head)]
    for key, count in wanted.ahead.items():
        for task in candidates.ahead(key, count):
            outranked = any(head["queue"] != task["queue"] or rank(head) < rank(task) for head in others)
            if outranked or pool.full(task["queue"]):
                break
            if candidates.take(task):
                choice.tasks.append(task)


def _could_run(wanted: Wanted, head: Document) -> bool:
    left = wanted.timeout_seconds
    in_time = left is None or head.get("timeout", float("inf")) <= left
    return in_time and wanted.worker["_id"] not in head.get("avoid", ())
