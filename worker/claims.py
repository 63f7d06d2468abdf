"""Which claim is open, when a better one replaces it, and whose answers still count. Part of the core: pure."""

from collections.abc import Callable

from worker.asking import NOTHING, Offer

RETURN_SECONDS = 0.1
"""For so long the next claim waits for the report of what the server has asked to have back, at most."""
MAX_OVERTAKEN = 100
"""Of how many earlier claims the answers are still waited for."""


class Claims:
    """One claim is open at a time; one that is overtaken by a newer one may still be answered.

    `ids` makes a fresh text for each claim. Times are on the core's monotonic clock.
    """

    def __init__(self, ids: Callable[[], str]) -> None:
        self.overtaken: list[str] = []
        """Earlier claims whose answers may still be on their way."""
        self.number = 0
        """How many claims there have been."""
        self._ids = ids
        self._open: tuple[str, Offer] | None = None
        self._reduced = False
        """The server has taken from the open claim's offer what an earlier one was granted, which is here now."""
        self._asked_at: float | None = None
        self._again_at: float | None = None
        self._pause_until: float | None = None
        self._returning_until: float | None = None

    @property
    def ever_asked(self) -> bool:
        """Whether there has been any claim."""
        return self._asked_at is not None

    @property
    def deadlines(self) -> list[float | None]:
        """When to ask again at the latest."""
        return [self._again_at, self._pause_until, self._returning_until]

    def pause(self, until: float) -> None:
        """Ask for nothing until then."""
        self._pause_until = until

    def paused(self, now: float) -> bool:
        """Whether nothing is to be asked for now."""
        if self._pause_until is not None and self._pause_until <= now:
            self._pause_until = None
        return self._pause_until is not None

    def wait_for_returns(self, until: float) -> None:
        """The next claim would be answered at once with the same question for what is to be given back; it can wait."""
        self._returning_until = until

    def returned(self) -> None:
        """The server has heard what there was to report."""
        self._returning_until = None

    def _returning(self, now: float) -> bool:
        if self._returning_until is not None and self._returning_until <= now:
            self._returning_until = None
        return self._returning_until is not None

    def ask(self, offer: Offer, now: float, *, idle: bool, take_back: bool) -> str | None:
        """Open a claim with this offer, unless the open one will do; its name, or None.

        The open one is replaced by a better one, at once if the worker is `idle`; by one that offers less where the
        server might give something that would wait here for long; with `take_back` at once if it offers anything.
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
        """Whether the answer to this claim counts; if not, the server takes back what it has `granted` in it."""
        if self._open is not None and self._open[0] == request:
            self._open = None
            return True
        counts = request in self.overtaken
        self._reduced = self._reduced or (counts and granted)
        self.give_up(request)
        return counts

    def give_up(self, request: str) -> None:
        """An overtaken claim will not be answered."""
        if request in self.overtaken:
            self.overtaken.remove(request)

    def clear(self) -> None:
        """No claim is open any more."""
        self._open, self.overtaken, self._returning_until = None, [], None
