"""The core's clock: the moment of this turn, the actions of it, and reminders for later."""

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime

from worker.actions import Action

FORGET_AT_ONCE = 1_000
"""The number of ended attempts at which their reminders are removed, together and not one by one."""


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
        """Begin the next turn."""
        self.now, self.date = now, date

    def do(self, action: Action) -> None:
        """Add an action for the end of the turn."""
        self._actions.append(action)

    def end(self) -> list[Action]:
        """Return the actions of this turn."""
        actions, self._actions = self._actions, []
        return actions

    def remind(self, seconds: float, what: str, execution: str = "") -> None:
        """Add a reminder `what` about an attempt, due in so many seconds."""
        self._count += 1
        heapq.heappush(self._reminders, (self.now + seconds, self._count, what, execution))

    def forget(self, execution: str) -> None:
        """Forget the reminders about this attempt."""
        self._over.add(execution)
        if len(self._over) > FORGET_AT_ONCE:
            self._reminders = [each for each in self._reminders if each[3] not in self._over]
            heapq.heapify(self._reminders)
            self._over.clear()

    def due(self) -> Iterator[tuple[str, str]]:
        """Yield the due reminders: what, and about which attempt."""
        while self._reminders and self._reminders[0][0] <= self.now:
            _, _, what, execution = heapq.heappop(self._reminders)
            yield what, execution

    @property
    def next_reminder(self) -> float | None:
        """Return the time of the next reminder."""
        return self._reminders[0][0] if self._reminders else None
