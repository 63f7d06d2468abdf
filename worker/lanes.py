"""The local queue, and the lanes in which tasks run one after another. Part of the core: pure.

A lane is one allocation of resources with the tasks that use it in turn. The supervisor has the whole lane, so that
very short tasks follow each other without a question in between; longer ones have a lane of their own.
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
"""How much expected work a lane may hold, if it is more than one task."""
SHORT_SECONDS = LANE_SECONDS / 2
"""A task that takes no longer may share a lane."""
MAX_LANE = 100
LONG_SECONDS = 0.5
"""A task that has run for so long, and for LONG_FACTOR times what was expected, may go on for long."""
LONG_FACTOR = 5
RESERVE_SECONDS = 1.0
"""After so long a task that does not fit is not passed over any more."""
MAX_PASSED_OVER = 100
"""So many classes are passed over in search of one that fits, at most."""


@dataclass(slots=True, kw_only=True)
class Lane:
    """An allocation, and the attempts that have their place in it, by execution (`members`): the first of them runs.

    `model` is that of its tasks, None for commands: the supervisor that has a command's lane may not be the one that
    has the hosts of models. `last_end` is when the latest of those before ended (seconds, any clock).
    """

    number: int
    model: str | None
    allocation: Allocation
    scarce: bool
    """It has more than its part of something, so that only tasks that want as much may join."""
    long_at: float
    """When its first member is taken for a long one, on the monotonic clock."""
    long: bool = False
    members: dict[str, Attempt] = field(default_factory=dict)
    seconds: float = 0.0
    """The expected work of its members."""
    last_end: float | None = None


class Lanes:
    """Starts tasks in their order, as resources become free; one that does not fit is passed over by those that do.

    `expected_seconds` tells how long a task of a class takes, or None. Nothing waits behind tasks that are not expected
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
        """Whether nothing that waits fits what is free, and others may start before it."""

    @property
    def free(self) -> Resources:
        """What could start at once, nothing while tasks wait here that are to start before."""
        return self.allocator.free if not self.waiting or self._nothing_fits else Resources()

    @property
    def soon(self) -> Resources:
        """What is free, or held by tasks that are expected to end soon."""
        soon = self.allocator.capacity
        for lane in self._lanes.values():
            if lane.long:
                soon = soon.minus(lane.allocation.resources)
        return soon

    @property
    def long_count(self) -> int:
        """How many lanes have a task that may go on for long."""
        return sum(lane.long for lane in self._lanes.values())

    @property
    def backlog(self) -> bool:
        """Whether there is more to run than what runs now."""
        return bool(self.waiting) or self._members > len(self._lanes)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self._lanes

    @property
    def next_long(self) -> float | None:
        """When to look for long tasks again: when the first of those that run may have become one."""
        return min((lane.long_at for lane in self._lanes.values() if not lane.long), default=None)

    def look_for_long_tasks(self, now: float) -> bool:
        """Take tasks for long ones that have run for so long; whether there are any that were none before."""
        found = [lane for lane in self._lanes.values() if not lane.long and lane.long_at <= now]
        for lane in found:
            lane.long = True
        return bool(found)

    def stuck(self) -> list[Attempt]:
        """Those that have their place behind a long task."""
        return [attempt for lane in self._lanes.values() if lane.long for attempt in list(lane.members.values())[1:]]

    def fill(self, now: float) -> list[Attempt]:
        """Give waiting tasks their places; those that got one."""
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
        """Whether another one may start before this one, which does not fit now."""
        if attempt.passed_over_at is None:
            attempt.passed_over_at = now
        free, wants = self.allocator.free, attempt.grant.resources
        may_fit = free.millicores >= self.waiting.least_millicores
        lacks_gpus = wants.gpus > free.gpus and wants.millicores <= free.millicores  # cores kept free would not help it
        return may_fit and (lacks_gpus or now - attempt.passed_over_at < RESERVE_SECONDS)

    def leave(self, attempt: Attempt, ended: float | None, now: float) -> float | None:
        """The attempt is out of its lane; answers with the end of the one before it there.

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
        """Whether it has its place behind another one that has not ended."""
        return next(iter(self._lanes[attempt.lane].members)) != attempt.grant.execution

    def _open(self, grant: Grant, now: float) -> Lane | None:
        """A new lane for a task, if it fits."""
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
        """A task is the first of its lane now."""
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
        """The shortest of the lanes that a very short task may share, if it would not wait long there."""
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
        """What a lane for very short tasks is given, so that tasks that want a little more fit, too.

        That is the part of memory and scratch space that goes with the cores; or a little more than is wanted, as long
        as no fewer of such lanes fit side by side.
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
        """The part of the worker's memory and scratch space that goes with so many of its cores."""
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
    """How much of its lane's LANE_SECONDS a task takes."""
    expected = attempt.expected_seconds
    return max(expected, 1e-4) if expected is not None and expected <= SHORT_SECONDS else 2 * LANE_SECONDS


def _long_after(expected_seconds: float, ahead_seconds: float) -> float:
    """After how many seconds a task is taken for a long one: others should not wait behind it any more."""
    much_longer = max(LONG_FACTOR * expected_seconds, LONG_SECONDS)
    return min(much_longer, max(expected_seconds + ahead_seconds, LONG_SECONDS))
