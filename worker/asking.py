"""The content of a claim: enough that the worker never idles, and no more than it soon runs. Part of the core: pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from banyan.domain.resources import Resources
from worker.attempts import Attempt
from worker.events import Document, Grant
from worker.fair_queue import FairQueue

AT_ONCE = 256
"""The most tasks that a claim asks for to start at once."""
AHEAD = 2_000
"""The most tasks that a claim asks for ahead."""
FIRST = 128
"""The most tasks ahead while the worker has next to nothing: a short response arrives soon."""
GROWTH = 2
"""The largest ratio of the next response to the tasks at hand, so that it arrives before they run out."""
TRUST = 8
"""The most tasks that may be asked for ahead for each task that has ended."""
RECENT_SECONDS = 5.0
"""The run time of a class is reported while its tasks arrived or ended within this time."""
PAUSE_SECONDS = 0.02
"""The time for which a claim stays open before a better one replaces it, unless the worker is idle."""
AHEAD_PAUSE_SECONDS = 0.25
"""The same when the better one differs only in the tasks that may wait here: the open one may soon be answered."""
EXCESS = 1.25
"""The factor of the allowed waiting seconds up to which waiting tasks are kept; the rest is returned."""
MAX_CLASSES = 500
"""The most classes whose run times are reported."""
MAX_PRIORITIES = 100
"""The most priorities of a queue that are reported separately."""
KNOWN_CLASSES = 2_000
"""The most classes that are remembered."""
_SMOOTHING = 0.2
_SLOW_SMOOTHING = 0.05
_ENOUGH = 10
"""The number of ended tasks from which on their run time is expected of other classes, too."""


@dataclass(slots=True, kw_only=True)
class ClassKnowledge:
    """The knowledge of a class of tasks: their run time (None: unknown), and the number of tasks that it rests on."""

    resources: Resources
    mean_seconds: float | None
    count: int
    last_seen: float


class Experience:
    """Run times of tasks, by class and overall."""

    def __init__(self) -> None:
        self.count = 0
        """The number of tasks that have ended."""
        self._known: dict[str, ClassKnowledge] = {}
        """The classes, with the one that was seen last at the end."""
        self._overall: float | None = None
        self._estimated = False

    @property
    def informed(self) -> bool:
        """Return whether any run time is known."""
        return bool(self.count or self._estimated)

    @property
    def overall_seconds(self) -> float | None:
        """Return the recent run time of tasks of any class, None if too few have ended."""
        return self._overall if self.count >= _ENOUGH else None

    def mean_seconds(self, task_class: str) -> float | None:
        """Return the smoothed run time of the class, else its tasks' own estimate, else None."""
        known = self._known.get(task_class)
        return known.mean_seconds if known else None

    def expected_seconds(self, task_class: str) -> float | None:
        """Return the same, for an unknown class the run time of the others."""
        mean = self.mean_seconds(task_class)
        return self.overall_seconds if mean is None else mean

    def saw(self, grant: Grant, now: float) -> None:
        """Record that a task of the class arrived."""
        known = self._known.pop(grant.task_class, None)
        if known is None:
            known = ClassKnowledge(resources=grant.resources, mean_seconds=None, count=0, last_seen=now)
            if len(self._known) >= KNOWN_CLASSES:
                del self._known[next(iter(self._known))]
        if known.count == 0:
            known.mean_seconds = grant.estimated_seconds
            self._estimated = self._estimated or grant.estimated_seconds is not None
        known.last_seen = now
        self._known[grant.task_class] = known

    def learned(self, task_class: str, seconds: float, now: float) -> None:
        """Record the run time of a task of the class."""
        self.count += 1
        self._overall = _smoothed(self._overall, seconds, max(_SLOW_SMOOTHING, 1 / self.count))
        known = self._known.pop(task_class, None)
        if known is None:
            return
        known.count += 1
        before = known.mean_seconds if known.count > 1 else None
        known.mean_seconds = _smoothed(before, seconds, max(_SMOOTHING, 1 / known.count))
        known.last_seen = now
        self._known[task_class] = known

    def told(self, now: float, long_seconds: float) -> dict[str, tuple[float, Resources]]:
        """Return the run times that the server needs, with the resources that tasks of the class want, latest first.

        They are those of classes whose tasks arrived or ended lately, and of all that take `long_seconds`, so that the
        server takes none of these for an unknown one.
        """
        told: dict[str, tuple[float, Resources]] = {}
        for key, known in reversed(self._known.items()):
            if len(told) >= MAX_CLASSES:
                break
            mean = known.mean_seconds
            if key and mean is not None and (mean >= long_seconds or now - known.last_seen <= RECENT_SECONDS):
                told[key] = (mean, known.resources)
        return told


def _smoothed(before: float | None, seconds: float, weight: float) -> float:
    return seconds if before is None else before * (1 - weight) + seconds * weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The offer of a claim: resources for up to `max_tasks` at once, and up to `most` that may wait here.

    `full`: enough tasks wait here, and a further one is welcome only if it starts before these. `soon` is free, or held
    by tasks that are expected to end soon.
    """

    resources: Resources
    max_tasks: int
    most: int = 0
    full: bool = False
    soon: Resources = field(default_factory=Resources)

    def better_than(self, other: "Offer") -> bool:
        """Return whether a server that had nothing for `other` might have a task for this offer."""
        return self._starts_more_than(other) or (self.most > 0 and (other.most == 0 or (other.full and not self.full)))

    def worse_than(self, other: "Offer") -> bool:
        """Return whether a server might grant for `other` a task that would have to wait here for long."""
        return other.most > 0 and (self.most == 0 or not other.soon.fits(self.soon))

    def patience(self, other: "Offer") -> float:
        """Return the seconds for which an open claim with `other` stays before this one replaces it.

        A claim that may be answered at any moment stays longer when this one differs only in the tasks that may wait
        here.
        """
        answerable = bool(other.max_tasks or (other.most and not other.full))
        return AHEAD_PAUSE_SECONDS if answerable and not self._starts_more_than(other) else PAUSE_SECONDS

    def _starts_more_than(self, other: "Offer") -> bool:
        at_once = self.max_tasks > other.max_tasks or not self.resources.fits(other.resources)
        return self.max_tasks > 0 and at_once

    def to_document(self) -> Document:
        """Return it as keys of a claim's body."""
        return {"resources": self.resources.to_document(), "max_tasks": self.max_tasks}


NOTHING = Offer(resources=Resources(), max_tasks=0)


def offer(
    free: Resources,
    soon: Resources,
    waiting: FairQueue,
    experience: Experience,
    *,
    here: int,
    ahead_seconds: float,
    room: int | None,
) -> Offer:
    """Return the offer to make now.

    `free` could start at once, `soon` (which includes it) soon; `here` counts all tasks that have not ended, `room` is
    the number that may still be taken (None: any number). No task may wait here unless resources are expected to be
    free soon.
    """
    limit = AT_ONCE if room is None else min(AT_ONCE, room)
    at_once = limit if free.millicores > 0 else 0
    soon = not_negative(soon)
    trusted = max(2 * math.ceil(soon.millicores / 1000), TRUST * experience.count)
    most = min(AHEAD, max(FIRST, GROWTH * here), trusted)
    if room is not None:
        most = min(most, room - at_once)
    if ahead_seconds <= 0 or not experience.informed or not soon.millicores or most <= 0:
        return Offer(resources=not_negative(free), max_tasks=at_once)
    full = waiting.seconds > ahead_seconds / 2
    return Offer(resources=not_negative(free), max_tasks=at_once, most=most, full=full, soon=soon)


def not_negative(resources: Resources) -> Resources:
    """Return zero for amounts of which more is allocated than exists now."""
    amounts = (resources.millicores, resources.memory_bytes, resources.gpus, resources.scratch_bytes)
    if min(*amounts, *resources.custom.values()) >= 0:
        return resources
    return replace(
        resources,
        millicores=max(0, resources.millicores),
        memory_bytes=max(0, resources.memory_bytes),
        gpus=max(0, resources.gpus),
        scratch_bytes=max(0, resources.scratch_bytes),
        custom={name: max(0, amount) for name, amount in resources.custom.items()},
    )


_Slots = Callable[[Resources, Resources], int]


def cost_of(soon: Resources, experience: Experience, slots: _Slots, ahead_seconds: float) -> Callable[[Attempt], float]:
    """Return a function that estimates how much of the worker's time a waiting task takes.

    A task that is long, or of unknown length, counts as `ahead_seconds` of a core: the other cores go on.
    """
    known: dict[str, float] = {}

    def cost(attempt: Attempt) -> float:
        key = attempt.grant.task_class
        if key not in known:
            expected = experience.expected_seconds(key)
            seconds = ahead_seconds if expected is None else min(expected, ahead_seconds)
            known[key] = seconds / max(1, slots(attempt.grant.resources, soon))
        return known[key]

    return cost


def ahead_document(
    offer: Offer, waiting: FairQueue, experience: Experience, slots: _Slots, ahead_seconds: float, now: float
) -> Document:
    """Return as keys of a claim's body which tasks may wait here, and which do, in which order.

    `slots` returns how many tasks fit side by side into a part of the worker. Where enough tasks wait here, the offer
    has no more `seconds` than these take, so that the server adds nothing behind them.
    """
    if not offer.most:
        return {}
    seconds = min(ahead_seconds, waiting.seconds * (1 - 1e-6)) if offer.full else ahead_seconds
    ahead: Document = {"seconds": seconds, "most": offer.most, "resources": offer.soon.to_document()}
    ahead["classes"] = classes = {}
    for key, (mean, resources) in experience.told(now, ahead_seconds).items():
        side_by_side = slots(resources, offer.soon)
        if mean >= ahead_seconds:
            classes[key] = mean
        elif side_by_side:
            classes[key] = mean / side_by_side
    overall = experience.overall_seconds
    if overall is not None and overall < ahead_seconds:
        ahead["other"] = overall / max(1, offer.soon.millicores // 1000)
    body: Document = {"ahead": ahead, "turn": waiting.turn, "turns": waiting.next_tags}
    if waiting:
        body["waiting"] = {
            name: _waiting_document(waiting.tag(name), attempts) for name, attempts in waiting.by_queue().items()
        }
    return body


def _waiting_document(tag: float, attempts: Sequence[Attempt]) -> Document:
    """Describe the waiting tasks of one queue: their number by priority, and the order of the last of them."""
    seconds = sum(attempt.cost_seconds for attempt in attempts) / len(attempts)
    groups: list[tuple[float, int, str]] = []
    for attempt in attempts:
        priority, order = attempt.grant.priority, attempt.grant.order
        if groups and groups[-1][0] == priority:
            groups[-1] = (priority, groups[-1][1] + 1, order)
        else:
            groups.append((priority, 1, order))
    together = math.ceil(len(groups) / MAX_PRIORITIES)
    parts = [groups[start : start + together] for start in range(0, len(groups), together)]
    tasks = [[part[-1][0], sum(group[1] for group in part), part[-1][2]] for part in parts]
    return {"turn": tag, "seconds": seconds, "tasks": tasks}


def excess(waiting: FairQueue, ahead_seconds: float) -> list[Attempt]:
    """Return the tasks that would start last, as far as more work waits before them than may wait here."""
    most = EXCESS * ahead_seconds
    if waiting.seconds <= most:
        return []
    found, before = [], 0.0
    for attempt in waiting.in_order():
        if before > most:
            found.append(attempt)
        before += attempt.cost_seconds
    return found
