"""The open claim, its replacement by a better one, and the responses that still count. Part of the core: pure."""

from collections.abc import Callable

from worker.asking import NOTHING, Offer

RETURN_SECONDS = 0.1
"""The longest time for which the next claim waits for the report of attempts that the server has asked to return."""
MAX_OVERTAKEN = 100
"""The number of replaced claims whose responses are still expected."""


class Claims:
    """The claims of a worker: one is open at a time; one that a newer one has replaced may still be answered.

    `ids` makes a fresh text for each claim. Times are on the core's monotonic clock.
    """

    def __init__(self, ids: Callable[[], str]) -> None:
        self.overtaken: list[str] = []
        """Replaced claims whose responses may still arrive."""
        self.number = 0
        """The number of claims so far."""
        self._ids = ids
        self._open: tuple[str, Offer] | None = None
        self._reduced = False
        """True if the server has reduced the open claim's offer by the grants of an earlier one, which are here now."""
        self._asked_at: float | None = None
        self._again_at: float | None = None
        self._pause_until: float | None = None
        self._returning_until: float | None = None

    @property
    def ever_asked(self) -> bool:
        """Return whether there has been any claim."""
        return self._asked_at is not None

    @property
    def deadlines(self) -> list[float | None]:
        """Return the latest times for the next claim."""
        return [self._again_at, self._pause_until, self._returning_until]

    def pause(self, until: float) -> None:
        """Send no claim until then."""
        self._pause_until = until

    def paused(self, now: float) -> bool:
        """Return whether claims are paused now."""
        if self._pause_until is not None and self._pause_until <= now:
            self._pause_until = None
        return self._pause_until is not None

    def wait_for_returns(self, until: float) -> None:
        """Delay the next claim, which would only bring the same request for attempts that are about to be returned."""
        self._returning_until = until

    def returned(self) -> None:
        """End the delay: the server has received all reports."""
        self._returning_until = None

    def _returning(self, now: float) -> bool:
        if self._returning_until is not None and self._returning_until <= now:
            self._returning_until = None
        return self._returning_until is not None

    def ask(self, offer: Offer, now: float, *, idle: bool, take_back: bool) -> str | None:
        """Open a claim with this offer, unless the open one suffices; return its name, or None.

        The open one is replaced by a better one, at once if the worker is `idle`; by one that offers less where the
        server might grant a task that would have to wait here for long; with `take_back` at once if it offers anything.
        """
        self._again_at = None
        returning = self._returning(now)
        if self._open is None and returning:
            return None
        if self._open is not None:
            before = self._open[1]
            if not (take_back and (before.max_tasks or before.most)):
                had = NOTHING if self._reduced else before
                better = offer.better_than(had)
                if not better and not offer.worse_than(before):
                    return None
                soon = (self._asked_at or 0.0) + offer.patience(had)
                if not (idle and better) and now < soon:
                    self._again_at = soon
                    return None
            self.overtaken = [*self.overtaken, self._open[0]][-MAX_OVERTAKEN:]
        self._open, self._reduced = (self._ids(), offer), False
        self.number += 1
        self._asked_at = now
        return self._open[0]

    def answered(self, request: str, *, granted: bool) -> bool:
        """Return whether the response to this claim counts; if not, the server takes back the tasks `granted` in it."""
        if self._open is not None and self._open[0] == request:
            self._open = None
            return True
        counts = request in self.overtaken
        self._reduced = self._reduced or (counts and granted)
        self.give_up(request)
        return counts

    def give_up(self, request: str) -> None:
        """Stop expecting the response to a replaced claim."""
        if request in self.overtaken:
            self.overtaken.remove(request)

    def clear(self) -> None:
        """Forget the open claim."""
        self._open, self.overtaken, self._returning_until = None, [], None
