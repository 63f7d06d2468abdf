"""When and for how much the worker asks, so that it never idles and never hoards."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from banyan.domain.resources import Resources
from worker.events import Document, Grant

AT_ONCE = 256
"""How many tasks are asked for to start at once, at most."""
AHEAD = 2_000
"""How many tasks are asked for ahead, at most."""
FIRST = 128
"""How many of them while next to nothing is here, at most: a short answer comes soon."""
GROWTH = 2
"""For how many times what is here the next answer may be, so that it comes before that has run out."""
RECENT_SECONDS = 5.0
"""A class is asked ahead for while its tasks came or ended within this time."""
PAUSE_SECONDS = 0.02
"""How long a claim stays open before a better one replaces it, unless the worker is idle."""
AHEAD_PAUSE_SECONDS = 0.25
"""The same when the better one only asks for more ahead."""
_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassKnowledge:
    """What is known of a class of tasks: how long they take (None: unknown), and how many said so."""

    resources: Resources
    mean_seconds: float | None
    count: int
    last_seen: float


class Experience:
    """How long tasks take, by class."""

    def __init__(self) -> None:
        self._known: dict[str, ClassKnowledge] = {}

    def mean_seconds(self, task_class: str) -> float | None:
        """The smoothed run time of the class, else its tasks' own estimate, else None."""
        known = self._known.get(task_class)
        return known.mean_seconds if known else None

    def saw(self, grant: Grant, now: float) -> None:
        """A task of the class came."""
        known = self._known.get(grant.task_class)
        if known is None or known.count == 0:
            estimate = grant.estimated_seconds
            known = ClassKnowledge(resources=grant.resources, mean_seconds=estimate, count=0, last_seen=now)
        self._known[grant.task_class] = replace(known, last_seen=now)

    def learned(self, task_class: str, seconds: float, now: float) -> None:
        """A task of the class took this long."""
        known = self._known.get(task_class)
        if known is None:
            return
        weight = max(_SMOOTHING, 1 / (known.count + 1))
        mean = seconds if known.mean_seconds is None else known.mean_seconds * (1 - weight) + seconds * weight
        self._known[task_class] = replace(known, mean_seconds=mean, count=known.count + 1, last_seen=now)

    def recent(self, now: float) -> dict[str, ClassKnowledge]:
        """The classes whose tasks came or ended lately; others are forgotten when there are many."""
        recent = {key: known for key, known in self._known.items() if now - known.last_seen <= RECENT_SECONDS}
        if len(self._known) > 1_000:
            self._known = recent
        return {key: known for key, known in recent.items() if key}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a claim offers: resources for up to `max_tasks` at once, and how many more of which class."""

    resources: Resources
    max_tasks: int
    ahead: dict[str, int]

    def better_than(self, other: "Offer") -> bool:
        """Whether a server that had nothing for `other` might have something for this."""
        return self._starts_more_than(other) or any(
            count > 2 * other.ahead.get(key, 0) for key, count in self.ahead.items()
        )

    def patience(self, other: "Offer") -> float:
        """How many seconds an open claim with `other` is left alone before this, which is better, replaces it.

        One that can be answered at any moment gets longer when all that is new is to ask for more ahead.
        """
        answerable = bool(other.max_tasks or other.ahead)
        return AHEAD_PAUSE_SECONDS if answerable and not self._starts_more_than(other) else PAUSE_SECONDS

    def _starts_more_than(self, other: "Offer") -> bool:
        at_once = self.max_tasks > other.max_tasks or not self.resources.fits(other.resources)
        return self.max_tasks > 0 and at_once

    def to_document(self) -> Document:
        """As keys of a claim's body."""
        body: Document = {"resources": self.resources.to_document(), "max_tasks": self.max_tasks}
        return body | ({"ahead": self.ahead} if self.ahead else {})


NOTHING = Offer(resources=Resources(), max_tasks=0, ahead={})


def offer(
    free: Resources,
    queued: Mapping[str, int],
    experience: Experience,
    slots: Callable[[Resources], int],
    *,
    here: int,
    ahead_seconds: float,
    room: int | None,
    now: float,
) -> Offer:
    """What to ask for now.

    `queued` says how many tasks of which class wait here, `slots` tells how many tasks fit side by side, `here` counts
    all that have not ended, `room` is how many tasks may be taken at all (None: any number).
    """
    limit = AT_ONCE if room is None else min(AT_ONCE, room)
    at_once = limit if free.millicores > 0 and not queued else 0
    most = min(AHEAD, max(FIRST, GROWTH * here))
    ahead = _ahead(queued, experience, slots, most, ahead_seconds, now)
    if room is not None:
        ahead = {key: min(count, room - at_once) for key, count in ahead.items() if room > at_once}
    floor = replace(
        free,
        millicores=max(0, free.millicores),
        memory_bytes=max(0, free.memory_bytes),
        gpus=max(0, free.gpus),
        scratch_bytes=max(0, free.scratch_bytes),
        custom={name: max(0, amount) for name, amount in free.custom.items()},
    )
    return Offer(resources=floor, max_tasks=at_once, ahead=ahead)


def _ahead(
    queued: Mapping[str, int],
    experience: Experience,
    slots: Callable[[Resources], int],
    most: int,
    ahead_seconds: float,
    now: float,
) -> dict[str, int]:
    recent = {
        key: (known.mean_seconds, slots(known.resources), known.count)
        for key, known in experience.recent(now).items()
        if known.mean_seconds is not None and known.mean_seconds < ahead_seconds
    }
    recent = {key: known for key, known in recent.items() if known[1]}
    seconds = 0.0
    for key, count in queued.items():
        mean, side_by_side, _ = recent.get(key, (ahead_seconds, 1, 0))
        seconds += count * mean / side_by_side
    if seconds > ahead_seconds / 2:
        return {}  # enough is here
    share = (ahead_seconds - seconds) / max(1, len(recent))
    wanted = {
        key: min(most, _trust(count, side_by_side), math.floor(share * side_by_side / max(mean, 1e-4) + 1e-6))
        for key, (mean, side_by_side, count) in recent.items()
    }
    return {key: count for key, count in wanted.items() if count}


def _trust(count: int, side_by_side: int) -> int:
    """How many tasks may be asked ahead for on the word of `count` that have ended."""
    return side_by_side * 2 if count == 0 else count * 8
