"""The tasks that wait at one worker, in the order in which it will start them, and the place of one more task."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WORTH_SECONDS = 0.1
"""A negligible amount of work: a task behind it would hardly start earlier on any other worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The tasks of one queue that wait at a worker.

    `turn` is the start tag of the first (see `Shares`: tags of a queue are 1/weight apart), `seconds` the time that the
    worker needs for one of them, `tasks` the number that wait of each priority, highest first, with the order of the
    last.
    """

    turn: float
    seconds: float
    tasks: Sequence[tuple[float, int, str]]

    @property
    def count(self) -> int:
        """The number of tasks that wait."""
        return sum(count for _, count, _ in self.tasks)

    def before(self, priority: float, order: str) -> int:
        """The number of them that start before a task of this priority and age."""
        return sum(count for p, count, last in self.tasks if p > priority or (p == priority and last < order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The position of a task: its start tag, the seconds of work before it, and whether another task comes after it."""

    tag: float
    seconds: float
    precedes: bool


class Line:
    """The tasks that wait at a worker, and the tasks that are added to them.

    `turn` is the worker's virtual time, `turns` the next start tags of queues.
    """

    def __init__(
        self, turn: float, turns: Mapping[str, float], waiting: Mapping[str, Waiting], weights: Mapping[str, float]
    ) -> None:
        self._turn = turn
        self._turns = turns
        self._waiting = waiting
        self._weights = weights
        self._added: Counter[str] = Counter()
        self._added_seconds = 0.0

    def tag(self, queue: str, priority: float, order: str) -> float:
        """The start tag of the next task of a queue."""
        there = self._waiting.get(queue)
        earlier = 0 if there is None else there.before(priority, order)
        first = self._turns.get(queue, self._turn) if there is None else there.turn
        return max(first, self._turn) + (self._added[queue] + earlier) / self._weight(queue)

    def place(self, queue: str, priority: float, order: str) -> Place:
        """The position of the next task of a queue; tasks of a queue must be added best first."""
        there = self._waiting.get(queue)
        earlier = 0 if there is None else there.before(priority, order)
        tag = self.tag(queue, priority, order)
        precedes = (there is not None and earlier < there.count) or self._others_after(queue, tag)
        others = sum(
            each.seconds * self._earlier(name, each, tag) for name, each in self._waiting.items() if name != queue
        )
        own = 0.0 if there is None else there.seconds * earlier
        return Place(tag=tag, seconds=self._added_seconds + own + others, precedes=precedes)

    def add(self, queue: str, seconds: float) -> None:
        """Add a task of a queue at its position."""
        self._added[queue] += 1
        self._added_seconds += seconds

    def _others_after(self, queue: str, tag: float) -> bool:
        """Return whether a waiting task of another queue would start after this tag."""
        return any(tag < self._last_tag(name, there) for name, there in self._waiting.items() if name != queue)

    def _last_tag(self, queue: str, there: Waiting) -> float:
        last = there.count + self._added[queue] - 1
        return there.turn + last / self._weight(queue)

    def _earlier(self, queue: str, there: Waiting, tag: float) -> int:
        """The number of waiting tasks of another queue with an earlier tag; tasks added there come before them."""
        slots = math.ceil((tag - there.turn) * self._weight(queue) - 1e-9)
        return min(there.count, max(0, slots - self._added[queue]))

    def _weight(self, queue: str) -> float:
        return max(self._weights.get(queue, 1.0), 1e-6)
