"""When and for how much the worker asks, so that it never idles and never hoards. Part of the core: pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from banyan.domain.resources import Resources
from worker.attempts import Attempt
from worker.events import Document, Grant
from worker.fair_queue import FairQueue

AT_ONCE = 256
"""How many tasks are asked for to start at once, at most."""
AHEAD = 2_000
"""How many tasks are asked for ahead, at most."""
FIRST = 128
"""How many of them while next to nothing is here, at most: a short answer comes soon."""
GROWTH = 2
"""For how many times what is here the next answer may be, so that it comes before that has run out."""
TRUST = 8
"""How many tasks may be asked ahead for on the word of each that has ended."""
RECENT_SECONDS = 5.0
"""The run time of a class is told while its tasks came or ended within this time."""
PAUSE_SECONDS = 0.02
"""How long a claim stays open before a better one replaces it, unless the worker is idle."""
AHEAD_PAUSE_SECONDS = 0.25
"""The same when the better one differs only in what may wait here, and the open one may be answered at any moment."""
EXCESS = 1.25
"""For how many times the seconds that may wait here what does wait is kept: beyond that it goes back."""
MAX_CLASSES = 500
"""Of so many classes the run times are told."""
MAX_PRIORITIES = 100
"""So many priorities of a queue are told apart."""
KNOWN_CLASSES = 2_000
"""So many classes are remembered."""
_SMOOTHING = 0.2
_SLOW_SMOOTHING = 0.05
_ENOUGH = 10
"""So many tasks must have ended before their run time is expected of other classes, too."""


@dataclass(slots=True, kw_only=True)
class ClassKnowledge:
    """What is known of a class of tasks: how long they take (None: unknown), and how many said so."""

    resources: Resources
    mean_seconds: float | None
    count: int
    last_seen: float


class Experience:
    """How long tasks take, by class and in all."""

    def __init__(self) -> None:
        self.count = 0
        """How many tasks have ended."""
        self._known: dict[str, ClassKnowledge] = {}
        """The one that was seen last is the last."""
        self._overall: float | None = None
        self._estimated = False

    @property
    def informed(self) -> bool:
        """Whether anything is known of how long tasks take."""
        return bool(self.count or self._estimated)

    @property
    def overall_seconds(self) -> float | None:
        """How long tasks of any class took lately, None if too few have ended."""
        return self._overall if self.count >= _ENOUGH else None

    def mean_seconds(self, task_class: str) -> float | None:
        """The smoothed run time of the class, else its tasks' own estimate, else None."""
        known = self._known.get(task_class)
        return known.mean_seconds if known else None

    def expected_seconds(self, task_class: str) -> float | None:
        """The same, for a class of which nothing is known that of the others."""
        mean = self.mean_seconds(task_class)
        return self.overall_seconds if mean is None else mean

    def saw(self, grant: Grant, now: float) -> None:
        """A task of the class came."""
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
        """A task of the class took this long."""
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
        """The run times that the server is to know, and what tasks of the class want, the latest first.

        Those of classes whose tasks came or ended lately, and of all that take `long_seconds`, so that none of them is
        taken for one that nobody knows.
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
    """What a claim offers: resources for up to `max_tasks` at once, and up to `most` that may wait here.

    `full`: enough waits here, and more is welcome only if it starts before what is here. `soon` is free, or held by
    tasks that are expected to end soon.
    """

    resources: Resources
    max_tasks: int
    most: int = 0
    full: bool = False
    soon: Resources = field(default_factory=Resources)

    def better_than(self, other: "Offer") -> bool:
        """Whether a server that had nothing for `other` might have something for this."""
        return self._starts_more_than(other) or (self.most > 0 and (other.most == 0 or (other.full and not self.full)))

    def worse_than(self, other: "Offer") -> bool:
        """Whether a server might give something for `other` that would have to wait here for long."""
        return other.most > 0 and (self.most == 0 or not other.soon.fits(self.soon))

    def patience(self, other: "Offer") -> float:
        """How many seconds an open claim with `other` is left alone before this replaces it.

        One that can be answered at any moment gets longer when this differs only in what may wait here.
        """
        answerable = bool(other.max_tasks or (other.most and not other.full))
        return AHEAD_PAUSE_SECONDS if answerable and not self._starts_more_than(other) else PAUSE_SECONDS

    def _starts_more_than(self, other: "Offer") -> bool:
        at_once = self.max_tasks > other.max_tasks or not self.resources.fits(other.resources)
        return self.max_tasks > 0 and at_once

    def to_document(self) -> Document:
        """As keys of a claim's body."""
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
    """What to ask for now.

    `free` could start at once, `soon` (with that) soon; `here` counts all tasks that have not ended, `room` is how many
    may be taken at all (None: any number). Nothing waits here where nothing is to be free soon, or nobody
    knows.
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
    """Zero for amounts of which more was handed out than there is now."""
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
    """A function that tells how much of the worker's time a task takes that waits here.

    What is long, or unknown, counts as `ahead_seconds` of a core: the other cores go on.
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
    """As keys of a claim's body: what may wait here, and what does, in which order.

    `slots` tells how many tasks fit side by side into a part of the worker. Where enough waits here, no more `seconds`
    are offered than wait, so that the server adds nothing behind it.
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
    """What waits of one queue: how many tasks of which priority, and the order of the last of them."""
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
    """Those that would start last, as far as more work waits before them than may wait here."""
    most = EXCESS * ahead_seconds
    if waiting.seconds <= most:
        return []
    found, before = [], 0.0
    for attempt in waiting.in_order():
        if before > most:
            found.append(attempt)
        before += attempt.cost_seconds
    return found
