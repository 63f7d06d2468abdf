"""The local queue, and the lanes in which tasks run one after another.

A lane is one allocation of resources with the tasks that use it in turn, all of one class. The supervisor has the
whole lane, so that very short tasks follow each other without a question in between; longer ones have a lane of
their own.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from banyan.domain.resources import Resources
from worker.allocation import Allocator
from worker.attempts import Attempt, Phase
from worker.events import Allocation

LANE_SECONDS = 0.05
"""How much expected work a lane may hold beyond its first task."""
MAX_LANE = 100


@dataclass(slots=True, kw_only=True)
class Lane:
    """`members` are the executions in it, `last_end` when the latest of those before ended (seconds, any clock)."""

    number: int
    task_class: str
    allocation: Allocation
    members: dict[str, None] = field(default_factory=dict)
    last_end: float | None = None


class Lanes:
    """Starts tasks in the order in which they came, as resources become free; none overtakes another.

    `mean_seconds` tells how long a task of a class takes, or None.
    """

    def __init__(self, mean_seconds: Callable[[str], float | None]) -> None:
        self.allocator = Allocator(Resources())
        self.queue: deque[Attempt] = deque()
        self.queued: Counter[str] = Counter()
        """How many of which class wait."""
        self._mean_seconds = mean_seconds
        self._lanes: dict[int, Lane] = {}
        self._of_class: dict[str, dict[int, Lane]] = {}
        self._members = 0

    @property
    def free(self) -> Resources:
        """What could start at once, nothing while tasks wait here."""
        return Resources() if self.queue else self.allocator.free

    @property
    def backlog(self) -> bool:
        """Whether there is more to run than what runs now."""
        return bool(self.queue) or self._members > len(self._lanes)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.queue and not self._lanes

    def wait(self, attempt: Attempt) -> None:
        """Put an attempt at the end of the queue."""
        self.queue.append(attempt)
        self.queued[attempt.grant.task_class] += 1

    def remove(self, attempt: Attempt) -> None:
        """Take an attempt out of the queue."""
        self.queue.remove(attempt)
        self._counted(attempt)

    def _counted(self, attempt: Attempt) -> None:
        task_class = attempt.grant.task_class
        self.queued[task_class] -= 1
        if not self.queued[task_class]:
            del self.queued[task_class]

    def fill(self) -> list[Attempt]:
        """Give waiting tasks their places; those that got one."""
        placed: list[Attempt] = []
        while self.queue:
            lane = self._place(self.queue[0])
            if lane is None:
                break
            attempt = self.queue.popleft()
            self._counted(attempt)
            attempt.phase, attempt.lane, attempt.allocation = Phase.SENT, lane.number, lane.allocation
            lane.members[attempt.grant.execution] = None
            self._members += 1
            placed.append(attempt)
        return placed

    def leave(self, attempt: Attempt, ended: float | None) -> float | None:
        """The attempt is out of its lane; answers with the end of the one before it there.

        An empty lane returns its resources.
        """
        lane = self._lanes[attempt.lane]
        before, lane.last_end = lane.last_end, ended
        del lane.members[attempt.grant.execution]
        self._members -= 1
        if not lane.members:
            self._close(lane)
        return before

    def behind(self, attempt: Attempt) -> bool:
        """Whether it has its place behind another one that has not ended."""
        return next(iter(self._lanes[attempt.lane].members)) != attempt.grant.execution

    def _close(self, lane: Lane) -> None:
        del self._lanes[lane.number]
        del self._of_class[lane.task_class][lane.number]
        self.allocator.give(lane.allocation)

    def _place(self, attempt: Attempt) -> Lane | None:
        allocation = self.allocator.take(attempt.grant.resources)
        if allocation is None:
            return self._room(attempt.grant.task_class)
        number = next(number for number in count() if number not in self._lanes)  # low: evenly among the supervisors
        lane = Lane(number=number, task_class=attempt.grant.task_class, allocation=allocation)
        self._lanes[lane.number] = lane
        self._of_class.setdefault(lane.task_class, {})[lane.number] = lane
        return lane

    def _room(self, task_class: str) -> Lane | None:
        """The shortest lane of the class, if one more very short task would not wait long there."""
        lanes = self._of_class.get(task_class)
        mean = self._mean_seconds(task_class)
        if not lanes or not task_class or mean is None or mean > LANE_SECONDS / 2:
            return None
        shortest = min(lanes.values(), key=lambda lane: len(lane.members))
        return shortest if len(shortest.members) < min(MAX_LANE, LANE_SECONDS / max(mean, 1e-4)) else None
