"""The choice of tasks for a worker: by class, by queue share, priority and age."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from banyan.domain.line import WORTH_SECONDS, Line, Waiting
from banyan.domain.matching import Offer
from banyan.domain.resources import Resources
from banyan.queue.context import Context
from banyan.queue.directories import closed_directories
from banyan.queue.pool import Pool
from banyan.queue.stream import Candidates, Scattered, Stream, Suitability, resources_of

Document = dict[str, Any]

_RESERVED_SECONDS = 60.0
_MOST_BYTES = 15 * 2**20
"""The largest size in bytes of several tasks that are granted at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """The work that may wait at a worker until its cores are free, in the order in which the queue would start it.

    The limits are `seconds` of work in all, and `most` tasks in this response. A task of a class takes `classes`
    seconds of the worker's time, of another class `other`; None: unknown. `soon` are the resources that are free or are
    soon. `turn` and `turns` are its virtual time and the next start tags of queues, `waiting` the tasks that it has not
    begun.
    """

    seconds: float
    most: int
    classes: Mapping[str, float] = field(default_factory=dict)
    other: float | None = None
    soon: Resources
    turn: float = 0.0
    turns: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)

    def cost(self, class_key: str) -> float:
        """Seconds that a task of the class takes; infinite when unknown."""
        known = self.classes.get(class_key, self.other)
        return float("inf") if known is None else known

    @property
    def waiting_seconds(self) -> float:
        """The seconds of work that wait at the worker."""
        return sum(there.count * there.seconds for there in self.waiting.values())

    def line(self, weights: Mapping[str, float]) -> Line:
        """The line of waiting tasks, to which tasks can be added."""
        return Line(self.turn, self.turns, self.waiting, weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The capacity of one worker: `max_tasks` that fit `free` together, and the tasks that may wait `ahead`."""

    worker: Document
    offer: Offer
    free: Resources
    max_tasks: int
    request: str
    ahead: Ahead | None = None
    timeout_seconds: float | None = None
    patient: bool = False
    """True if the claim waits and is woken later when there is no task."""


@dataclass(slots=True)
class Choice:
    """The tasks chosen so far, and the rest of the worker's offer."""

    free: Resources
    slots: int
    tasks: list[Document] = field(default_factory=list)
    reserving: bool = False
    missed: bool = False
    """True if other claims of the round took tasks that would have been chosen."""
    bytes: int = 0

    def has_room(self, task: Document) -> bool:
        """Return whether the response stays small enough with one more task."""
        return not self.tasks or self.bytes + task.get("bytes", 0) <= _MOST_BYTES

    def take(self, task: Document) -> None:
        """Add a task."""
        self.tasks.append(task)
        self.bytes += task.get("bytes", 0)


_Streams = Mapping[str, Candidates]


def choose(context: Context, wanted: Wanted, pool: Pool) -> Choice:
    """Choose among the classes that fit; when servers compete, not always the first tasks."""
    choice = Choice(wanted.free, wanted.max_tasks)
    closed = closed_directories(context, wanted.worker)
    suits = Suitability(wanted.worker["_id"], wanted.offer.total, wanted.timeout_seconds, closed)
    streams = _streams(wanted, suits, pool)
    _fill(context, wanted, _scattered(streams, wanted.max_tasks, pool), choice, pool)
    if wanted.ahead is not None and not choice.reserving:
        lined_up = _streams(wanted, suits, pool)  # including the classes of which no task could start at once
        _fill_ahead(context, wanted, wanted.ahead, _scattered(lined_up, wanted.ahead.most, pool), choice, pool)
        streams = {**streams, **lined_up}
    choice.missed = any(stream.missed for stream in streams.values())
    return choice


def _scattered(streams: Mapping[str, Stream], count: int, pool: Pool) -> _Streams:
    """The streams as they are; when servers compete, any of their first tasks in random order."""
    if not pool.crowd:
        return streams
    return {queue: Scattered(stream, max(1, count) * 4**pool.crowd) for queue, stream in streams.items()}


def _streams(wanted: Wanted, suits: Suitability, pool: Pool) -> dict[str, Stream]:
    accepted = pool.accepted(wanted.worker["_id"], wanted.offer)
    return {queue: Stream(pool, heads, suits) for queue, heads in accepted.items()}


def _fill(context: Context, wanted: Wanted, streams: _Streams, choice: Choice, pool: Pool) -> None:
    """Take tasks that fit together, each time from the next queue by its share."""
    closed: set[str] = set()
    while choice.slots > 0 and not choice.reserving:
        offered = ((queue, stream) for queue, stream in streams.items() if queue not in closed)
        next_tasks = {queue: task for queue, stream in offered if (task := stream.peek()) is not None}
        if not next_tasks:
            return
        queue = context.shares.next(next_tasks)
        task = next_tasks[queue]
        wants = resources_of(task)
        if pool.full(queue):
            closed.add(queue)
        elif not wants.fits(choice.free):
            choice.reserving = _reserve(context, wanted, task)
            _pass_over(pool, streams[queue], task, choice.free)
        elif not choice.has_room(task):
            return
        else:
            streams[queue].advance()
            if pool.choose(task):
                choice.take(task)
                choice.free = choice.free.minus(wants)
                choice.slots -= 1
                context.shares.took(queue, pool.weights)


def _pass_over(pool: Pool, stream: Candidates, task: Document, free: Resources) -> None:
    """Skip a task that does not fit, or its whole class if no task of it does."""
    if pool.classes[task["class_key"]].least.fits(free):
        stream.advance()
    else:
        stream.drop()


def _reserve(context: Context, wanted: Wanted, task: Document) -> bool:
    """Reserve this worker for a wide task that has waited long; one worker for each such task."""
    now = context.now()
    patience = timedelta(seconds=context.settings.queue.reserve_after)
    if now - task.get("time_available", now) < patience:
        return False
    until = now + timedelta(seconds=_RESERVED_SECONDS)
    return context.storage.tasks.reserve(task["_id"], wanted.worker["_id"], until, now)


def _fill_ahead(context: Context, wanted: Wanted, ahead: Ahead, streams: _Streams, choice: Choice, pool: Pool) -> None:
    """Add tasks to the worker's line that it would start within `ahead.seconds` if all of them were there.

    A long task or one of unknown duration ends the line, and is granted when a core is free; it is added only if a task
    that waits there would start after it. Of a queue with a limit only tasks that are nearly next are added, so that no
    worker hoards the limit.
    """
    line = ahead.line(pool.weights)
    for chosen in choice.tasks:
        line.add(chosen["queue"], 0.0)
    queues = _Queues(line, streams)
    taken = 0
    while taken < ahead.most and not choice.reserving and (task := queues.first()) is not None:
        queue, key = task["queue"], task["class_key"]
        place = line.place(queue, task["priority"], str(task["order"]))
        if place.seconds >= ahead.seconds or not choice.has_room(task):
            return
        if queue in pool.limits and (place.seconds > WORTH_SECONDS or pool.full(queue)):
            queues.leave_out()
            continue
        if not resources_of(task).fits(ahead.soon):
            choice.reserving = _reserve(context, wanted, task)
            _pass_over(pool, streams[queue], task, ahead.soon)
            queues.refresh()
            continue
        cost = ahead.cost(key)
        if (cost >= ahead.seconds and not place.precedes) or _is_somebodys(context, wanted, pool, key):
            return
        streams[queue].advance()
        if pool.choose(task):
            choice.take(task)
            line.add(queue, cost)
            taken += 1
        queues.refresh()


def _is_somebodys(context: Context, wanted: Wanted, pool: Pool, key: str) -> bool:
    """Return whether an idle worker could start a task of the class at once; it is woken for it."""
    if key in pool.nobodys:
        return False
    if context.hub.call_idle(key, but=wanted.worker["_id"]):
        return True
    pool.nobodys.add(key)
    return False


class _Queues:
    """The queues whose tasks may wait at a worker; the queue whose next task comes first is in front."""

    def __init__(self, line: Line, streams: _Streams) -> None:
        self._line = line
        self._streams = streams
        self._heap = [entry for queue in streams if (entry := self._entry(queue)) is not None]
        heapq.heapify(self._heap)

    def _entry(self, queue: str) -> tuple[float, str] | None:
        task = self._streams[queue].peek()
        return None if task is None else (self._line.tag(queue, task["priority"], str(task["order"])), queue)

    def first(self) -> Document | None:
        """The next task of all queues."""
        return self._streams[self._heap[0][1]].peek() if self._heap else None

    def refresh(self) -> None:
        """Reorder after the next task of the front queue has changed."""
        entry = self._entry(self._heap[0][1])
        if entry is None:
            self.leave_out()
        else:
            heapq.heapreplace(self._heap, entry)

    def leave_out(self) -> None:
        """Remove the front queue."""
        heapq.heappop(self._heap)
