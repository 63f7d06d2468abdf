"""The local queue, and the lanes in which tasks run one after another. Part of the core: pure.

A lane is one allocation of resources with the tasks that use it in turn. The supervisor has the whole lane, so that
very short tasks follow each other without a round trip in between; longer ones have a lane of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from banyan.domain.resources import Resources, rounded_up
from worker.allocation import Allocator
from worker.attempts import Attempt, Phase
from worker.events import Allocation, Grant
from worker.fair_queue import FairQueue

LANE_SECONDS = 0.05
"""The expected work that a lane may hold, if it has more than one task."""
SHORT_SECONDS = LANE_SECONDS / 2
"""The longest run time of a task that may share a lane."""
MAX_LANE = 100
LONG_SECONDS = 0.5
"""A task that has run for so long, and for LONG_FACTOR times its expected time, counts as long."""
LONG_FACTOR = 5
RESERVE_SECONDS = 1.0
"""The time after which a task that does not fit is passed over no more."""
MAX_PASSED_OVER = 100
"""The most classes that are passed over in search of one that fits."""


@dataclass(slots=True, kw_only=True)
class Lane:
    """An allocation, and the attempts that have a place in it, by execution (`members`): the first of them runs.

    `model` is that of its tasks, None for commands: the supervisor that has a command's lane may not be the one that
    has the hosts of models. `last_end` is the latest end of an earlier member (seconds, any clock).
    """

    number: int
    model: str | None
    allocation: Allocation
    scarce: bool
    """True if it has more than its part of a resource, so that only tasks that want as much may join."""
    long_at: float
    """The time from which on its first member counts as long, on the monotonic clock."""
    long: bool = False
    members: dict[str, Attempt] = field(default_factory=dict)
    seconds: float = 0.0
    """The expected work of its members."""
    last_end: float | None = None


class Lanes:
    """The lanes: they start tasks in order, as resources become free; a task that does not fit is passed over.

    `expected_seconds` returns how long a task of a class takes, or None. No task waits behind one that is not expected
    to end within `ahead_seconds`.
    """

    def __init__(self, expected_seconds: Callable[[str], float | None], ahead_seconds: float = 2.0) -> None:
        self.allocator = Allocator(Resources())
        self.waiting = FairQueue()
        self._expected_seconds = expected_seconds
        self._ahead_seconds = ahead_seconds
        self._lanes: dict[int, Lane] = {}
        self._members = 0
        self._nothing_fits = False
        """True if no waiting task fits the free resources, and others may start before these."""

    @property
    def free(self) -> Resources:
        """Return the resources for a task that could start at once, none while tasks wait here that start before."""
        return self.allocator.free if not self.waiting or self._nothing_fits else Resources()

    @property
    def soon(self) -> Resources:
        """Return the resources that are free, or held by tasks that are expected to end soon."""
        soon = self.allocator.capacity
        for lane in self._lanes.values():
            if lane.long:
                soon = soon.minus(lane.allocation.resources)
        return soon

    @property
    def long_count(self) -> int:
        """Return how many lanes have a long task."""
        return sum(lane.long for lane in self._lanes.values())

    @property
    def backlog(self) -> bool:
        """Return whether more tasks wait to run."""
        return bool(self.waiting) or self._members > len(self._lanes)

    @property
    def idle(self) -> bool:
        """Return whether no task waits or runs."""
        return not self.waiting and not self._lanes

    @property
    def next_long(self) -> float | None:
        """Return the time of the next search for long tasks: the first at which a running one may have become long."""
        return min((lane.long_at for lane in self._lanes.values() if not lane.long), default=None)

    def look_for_long_tasks(self, now: float) -> bool:
        """Mark the tasks that have become long; return whether there are any new ones."""
        found = [lane for lane in self._lanes.values() if not lane.long and lane.long_at <= now]
        for lane in found:
            lane.long = True
        return bool(found)

    def stuck(self) -> list[Attempt]:
        """Return the tasks that have their place behind a long one."""
        return [attempt for lane in self._lanes.values() if lane.long for attempt in list(lane.members.values())[1:]]

    def fill(self, now: float) -> list[Attempt]:
        """Give waiting tasks their places; return those that got one."""
        placed: list[Attempt] = []
        waiting, passed_over = self.waiting, 0
        while (attempt := waiting.best()) is not None:
            lane = self._open(attempt.grant, now)
            if lane is None and not passed_over:
                lane = self._joinable(attempt.grant)
            if lane is not None:
                waiting.start(attempt)
                self._join(lane, attempt)
                placed.append(attempt)
            elif passed_over < MAX_PASSED_OVER and self._may_be_passed_over(attempt, now):
                waiting.pass_over(attempt)
                passed_over += 1
            else:
                break
        self._nothing_fits = attempt is None and passed_over > 0
        waiting.end_round()
        return placed

    def _may_be_passed_over(self, attempt: Attempt, now: float) -> bool:
        """Return whether another task may start before this one, which does not fit now."""
        if attempt.passed_over_at is None:
            attempt.passed_over_at = now
        free, wants = self.allocator.free, attempt.grant.resources
        may_fit = free.millicores >= self.waiting.least_millicores
        lacks_gpus = wants.gpus > free.gpus and wants.millicores <= free.millicores  # cores kept free would not help it
        return may_fit and (lacks_gpus or now - attempt.passed_over_at < RESERVE_SECONDS)

    def leave(self, attempt: Attempt, ended: float | None, now: float) -> float | None:
        """Remove the attempt from its lane; return the end of the one before it there.

        An empty lane returns its resources.
        """
        lane = self._lanes[attempt.lane]
        before, lane.last_end = lane.last_end, ended
        was_first = not self.behind(attempt)
        del lane.members[attempt.grant.execution]
        lane.seconds -= _load(attempt)
        self._members -= 1
        if not lane.members:
            del self._lanes[lane.number]
            self.allocator.give(lane.allocation)
        elif was_first:
            self._begin(lane, next(iter(lane.members.values())).grant, now)
        return before

    def behind(self, attempt: Attempt) -> bool:
        """Return whether it has its place behind another one that has not ended."""
        return next(iter(self._lanes[attempt.lane].members)) != attempt.grant.execution

    def _open(self, grant: Grant, now: float) -> Lane | None:
        """Open a lane for a task, if it fits."""
        if grant.resources.millicores > self.allocator.free.millicores:
            return None
        expected = self._expected_seconds(grant.task_class)
        room = self._room_for_alike(grant.resources) if _is_short(expected) else grant.resources
        allocation = self.allocator.take(room) or self.allocator.take(grant.resources)
        if allocation is None:
            return None
        lane = Lane(
            number=next(number for number in count() if number not in self._lanes),  # low: evenly among supervisors
            model=grant.document.get("model"),
            allocation=allocation,
            scarce=self._is_scarce(allocation.resources),
            long_at=now,
        )
        self._lanes[lane.number] = lane
        self._begin(lane, grant, now)
        return lane

    def _begin(self, lane: Lane, grant: Grant, now: float) -> None:
        """Make a task the first of its lane."""
        expected = self._expected_seconds(grant.task_class)
        lane.long = expected is not None and expected >= self._ahead_seconds
        lane.long_at = now + _long_after(expected or 0.0, self._ahead_seconds)

    def _join(self, lane: Lane, attempt: Attempt) -> None:
        attempt.phase, attempt.lane = Phase.SENT, lane.number
        attempt.expected_seconds = self._expected_seconds(attempt.grant.task_class)
        attempt.allocation = Allocation(resources=attempt.grant.resources, gpu_indexes=lane.allocation.gpu_indexes)
        lane.members[attempt.grant.execution] = attempt
        lane.seconds += _load(attempt)
        self._members += 1

    def _joinable(self, grant: Grant) -> Lane | None:
        """Return the shortest of the lanes that a very short task may share, if it would not wait long there."""
        expected = self._expected_seconds(grant.task_class)
        if expected is None or expected > SHORT_SECONDS:
            return None
        most = LANE_SECONDS - expected + 1e-9
        model = grant.document.get("model")
        lanes = [
            lane
            for lane in self._lanes.values()
            if lane.seconds <= most and lane.model == model and not lane.long and len(lane.members) < MAX_LANE
        ]
        lanes = [lane for lane in lanes if _may_share(grant.resources, lane)]
        return min(lanes, key=lambda lane: lane.seconds, default=None)

    def _room_for_alike(self, wanted: Resources) -> Resources:
        """Return the resources of a lane for very short tasks, so that tasks that want a little more fit, too.

        That is the part of memory and scratch space that goes with the cores; or a little more than the task wants, as
        long as no fewer of such lanes fit side by side.
        """
        part = self._part(wanted.millicores)
        if wanted.memory_bytes <= part.memory_bytes and wanted.scratch_bytes <= part.scratch_bytes:
            return replace(wanted, memory_bytes=part.memory_bytes, scratch_bytes=part.scratch_bytes)
        up = rounded_up(wanted)
        more = replace(wanted, memory_bytes=up.memory_bytes, scratch_bytes=up.scratch_bytes)
        return more if self.allocator.slots(more) >= self.allocator.slots(wanted) else wanted

    def _is_scarce(self, resources: Resources) -> bool:
        part = self._part(resources.millicores)
        beyond = resources.memory_bytes > part.memory_bytes or resources.scratch_bytes > part.scratch_bytes
        return bool(beyond or resources.gpus or any(resources.custom.values()))

    def _part(self, millicores: int) -> Resources:
        """Return the part of the worker's memory and scratch space that goes with so many of its cores."""
        whole = self.allocator.capacity
        return Resources(
            memory_bytes=whole.memory_bytes * millicores // max(whole.millicores, millicores, 1),
            scratch_bytes=whole.scratch_bytes * millicores // max(whole.millicores, millicores, 1),
        )


def _may_share(wanted: Resources, lane: Lane) -> bool:
    room = lane.allocation.resources
    if wanted.millicores != room.millicores or wanted.gpus != room.gpus or not wanted.fits(room):
        return False
    return not lane.scarce or (rounded_up(wanted) == rounded_up(room) and wanted.custom == room.custom)


def _is_short(expected_seconds: float | None) -> bool:
    return expected_seconds is not None and expected_seconds <= SHORT_SECONDS


def _load(attempt: Attempt) -> float:
    """Return how much of its lane's LANE_SECONDS a task takes."""
    expected = attempt.expected_seconds
    return max(expected, 1e-4) if expected is not None and expected <= SHORT_SECONDS else 2 * LANE_SECONDS


def _long_after(expected_seconds: float, ahead_seconds: float) -> float:
    """Return the seconds after which a task counts as long: others should not wait behind it any more."""
    much_longer = max(LONG_FACTOR * expected_seconds, LONG_SECONDS)
    return min(much_longer, max(expected_seconds + ahead_seconds, LONG_SECONDS))
