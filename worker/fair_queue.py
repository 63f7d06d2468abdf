"""The tasks that wait on this worker, in the order in which they start. Part of the core: pure."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count

from worker.attempts import Attempt

MAX_FINISHED = 1_000
"""The most queues that are remembered although none of their tasks waits."""
MIN_REMOVED = 64
"""Removed tasks stay in the heaps until there are so many of them, and more than tasks that wait."""

_Rank = tuple[float, str, int]
"""The order: higher priority first, then the smaller `order`, then the earlier arrival."""


class FairQueue:
    """Start-time fair queueing between queues, priority and age within a queue.

    Virtual time (`turn`) is the start tag of the task that started last. The tag of a queue is the virtual time, or
    1/weight after the tag of its own last start where that is later; the queue with the smallest tag is next, by name
    where tags are equal. So starts are shared by weight, and a queue that had no task here gains no credit.

    One round of starts: `best`, then `start` or `pass_over`, as long as a task may start; then `end_round`.
    """

    def __init__(self) -> None:
        self.turn = 0.0
        self.seconds = 0.0
        """The expected work of all waiting tasks: the sum of their `cost_seconds`."""
        self._next_tags: dict[str, float] = {}
        """The tags of queues that have started a task: the virtual time of their next start."""
        self._queues: dict[str, _Queue] = {}
        self._ready: list[str] = []
        """Queues whose tag is the virtual time: a heap by name."""
        self._later: list[tuple[float, str]] = []
        """Queues whose tag is later: a heap by tag and name."""
        self._passed_over: dict[str, _Queue] = {}
        """Queues with a class that was passed over in this round."""
        self._resting: list[str] = []
        """The passed-over queues without any other class."""
        self._waiting: dict[str, Attempt] = {}
        self._millicores: Counter[int] = Counter()
        self._removed = 0
        self._arrivals = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Attempt]:
        """Yield the waiting tasks, in the order in which they arrived."""
        return iter(self._waiting.values())

    @property
    def least_millicores(self) -> int:
        """Return the smallest number of cores that a waiting task wants."""
        return min(self._millicores, default=0)

    @property
    def next_tags(self) -> dict[str, float]:
        """Return the tags of queues that are beyond the virtual time."""
        return {name: tag for name, tag in self._next_tags.items() if tag > self.turn}

    def tag(self, name: str) -> float:
        """Return the start tag of a queue's next task."""
        return max(self.turn, self._next_tags.get(name, 0.0))

    def add(self, attempt: Attempt) -> None:
        """Add a task that waits."""
        self._waiting[attempt.grant.execution] = attempt
        self._millicores[attempt.grant.resources.millicores] += 1
        self.seconds += attempt.cost_seconds
        self._enter(attempt)

    def _enter(self, attempt: Attempt) -> None:
        name = attempt.grant.queue
        if name not in self._queues:
            self._queues[name] = _Queue(self._waiting)
            self._line_up(name)
        self._queues[name].add(attempt, next(self._arrivals))

    def remove(self, attempt: Attempt) -> None:
        """Remove a task that did not start."""
        self._leave(attempt)
        self._removed += 1
        if self._removed > max(MIN_REMOVED, len(self._waiting)):
            self._rebuild()

    def _leave(self, attempt: Attempt) -> None:
        del self._waiting[attempt.grant.execution]
        millicores = attempt.grant.resources.millicores
        self._millicores[millicores] -= 1
        if not self._millicores[millicores]:
            del self._millicores[millicores]
        self.seconds = self.seconds - attempt.cost_seconds if self._waiting else 0.0

    def _rebuild(self) -> None:
        """Build the heaps anew without the removed tasks."""
        self._removed = 0
        self._queues, self._ready, self._later = {}, [], []
        for attempt in self._waiting.values():
            self._enter(attempt)

    def price(self, cost_seconds: Callable[[Attempt], float]) -> None:
        """Estimate anew how much of the worker's time each task takes."""
        for attempt in self._waiting.values():
            attempt.cost_seconds = cost_seconds(attempt)
        self.seconds = sum(attempt.cost_seconds for attempt in self._waiting.values())

    # A round

    def best(self) -> Attempt | None:
        """Return the next task among those that this round has not passed over."""
        while (name := self._first()) is not None:
            queue = self._queues[name]
            attempt = queue.best()
            if attempt is not None:
                return attempt
            self._pop()
            if name in self._passed_over:
                self._resting.append(name)
            else:
                del self._queues[name]
        return None

    def start(self, attempt: Attempt) -> None:
        """Remove the next task, which has started."""
        self.turn = self.tag(attempt.grant.queue)
        name = self._pop()
        self._next_tags[name] = self.turn + 1.0 / max(attempt.grant.weight, 1e-6)
        self._leave(attempt)
        self._line_up(name)
        if len(self._next_tags) > MAX_FINISHED:
            self._next_tags = self.next_tags

    def pass_over(self, attempt: Attempt) -> None:
        """Leave out the class of the next task, which cannot start now, for the rest of this round."""
        name = attempt.grant.queue
        self._passed_over[name] = self._queues[name]
        self._queues[name].pass_over()

    def end_round(self) -> None:
        """Add the passed-over classes again."""
        for queue in self._passed_over.values():
            queue.end_round()
        for name in self._resting:
            self._line_up(name)
        self._passed_over.clear()
        self._resting.clear()

    def _first(self) -> str | None:
        while self._later and self._later[0][0] <= self.turn:
            heapq.heappush(self._ready, heapq.heappop(self._later)[1])
        if self._ready:
            return self._ready[0]
        return self._later[0][1] if self._later else None

    def _pop(self) -> str:
        return heapq.heappop(self._ready) if self._ready else heapq.heappop(self._later)[1]

    def _line_up(self, name: str) -> None:
        tag = self.tag(name)
        if tag <= self.turn:
            heapq.heappush(self._ready, name)
        else:
            heapq.heappush(self._later, (tag, name))

    # The complete order

    def in_order(self) -> list[Attempt]:
        """Return all waiting tasks in the order in which they would start if each of them had room in its turn."""
        places: list[tuple[float, str, int, Attempt]] = []
        for name, attempts in self.by_queue().items():
            tag = self.tag(name)
            for place, attempt in enumerate(attempts):
                places.append((tag, name, place, attempt))
                tag += 1.0 / max(attempt.grant.weight, 1e-6)
        places.sort(key=lambda each: each[:3])
        return [attempt for *_, attempt in places]

    def by_queue(self) -> dict[str, list[Attempt]]:
        """Return the waiting tasks of each queue, best first."""
        queues: dict[str, list[Attempt]] = {}
        for attempt in self._waiting.values():
            queues.setdefault(attempt.grant.queue, []).append(attempt)
        for attempts in queues.values():
            attempts.sort(key=lambda attempt: (-attempt.grant.priority, attempt.grant.order))
        return queues


class _Queue:
    """The tasks of one queue: a heap for each class, and a heap of the classes by their best tasks.

    `waiting` has the tasks that were not removed.
    """

    def __init__(self, waiting: dict[str, Attempt]) -> None:
        self._waiting = waiting
        self._classes: dict[str, list[tuple[_Rank, Attempt]]] = {}
        self._heads: list[tuple[_Rank, str]] = []
        """The best task of each class; a rank that is not in `_ranks` is out of date."""
        self._ranks: dict[str, _Rank] = {}
        self._aside: dict[str, _Rank] = {}
        """The classes that were passed over in this round."""

    def add(self, attempt: Attempt, arrival: int) -> None:
        grant = attempt.grant
        rank = (-grant.priority, grant.order, arrival)
        key = grant.task_class
        heapq.heappush(self._classes.setdefault(key, []), (rank, attempt))
        if key not in self._ranks or rank < self._ranks[key]:
            self._enter(rank, key)

    def _enter(self, rank: _Rank, key: str) -> None:
        self._ranks[key] = rank
        heapq.heappush(self._heads, (rank, key))

    def best(self) -> Attempt | None:
        """Return the best task of the classes that were not passed over."""
        while self._heads:
            rank, key = self._heads[0]
            if key in self._aside or self._ranks.get(key) != rank:
                heapq.heappop(self._heads)
                continue
            first = self._first(key)
            if first is None:
                heapq.heappop(self._heads)
                del self._classes[key], self._ranks[key]
            elif first[0] != rank:
                heapq.heappop(self._heads)
                self._enter(first[0], key)
            else:
                return first[1]
        return None

    def _first(self, key: str) -> tuple[_Rank, Attempt] | None:
        """Return the best waiting task of a class, without those that have started or were removed."""
        tasks = self._classes[key]
        while tasks and self._waiting.get(tasks[0][1].grant.execution) is not tasks[0][1]:
            heapq.heappop(tasks)
        return tasks[0] if tasks else None

    def pass_over(self) -> None:
        rank, key = heapq.heappop(self._heads)
        self._aside[key] = rank

    def end_round(self) -> None:
        for key, rank in self._aside.items():
            heapq.heappush(self._heads, (rank, key))
        self._aside.clear()
