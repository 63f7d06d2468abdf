"""The core's sense of time: the moment of this turn, what is to be done in it, and what to do later."""

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime

from worker.actions import Action

FORGET_AT_ONCE = 1_000
"""Reminders about attempts that are over are thrown out when so many have ended, not one by one."""


class Turn:
    """One moment of the core. `now` is monotonic, `date` the UTC time; reminders outlast the turn."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.date = datetime.fromtimestamp(0, UTC)
        self._actions: list[Action] = []
        self._reminders: list[tuple[float, int, str, str]] = []
        self._count = 0
        self._over: set[str] = set()

    def begin(self, now: float, date: datetime) -> None:
        """The next moment has come."""
        self.now, self.date = now, date

    def do(self, action: Action) -> None:
        """Have this done when the turn is over."""
        self._actions.append(action)

    def end(self) -> list[Action]:
        """What is to be done."""
        actions, self._actions = self._actions, []
        return actions

    def remind(self, seconds: float, what: str, execution: str = "") -> None:
        """Be told `what` about an attempt in so many seconds."""
        self._count += 1
        heapq.heappush(self._reminders, (self.now + seconds, self._count, what, execution))

    def forget(self, execution: str) -> None:
        """Nothing need be remembered of this attempt any more."""
        self._over.add(execution)
        if len(self._over) > FORGET_AT_ONCE:
            self._reminders = [each for each in self._reminders if each[3] not in self._over]
            heapq.heapify(self._reminders)
            self._over.clear()

    def due(self) -> Iterator[tuple[str, str]]:
        """The reminders whose time has come: what, and about which attempt."""
        while self._reminders and self._reminders[0][0] <= self.now:
            _, _, what, execution = heapq.heappop(self._reminders)
            yield what, execution

    @property
    def next_reminder(self) -> float | None:
        """When the next one is due."""
        return self._reminders[0][0] if self._reminders else None
