"""Cached facts of a quiet time, which make the claim of an idle worker cheap."""

import time
from collections.abc import Callable

from bson import ObjectId

_HOLDS_NOTHING_SECONDS = 60.0
_NOTHING_WAITS_SECONDS = 1.0
_MOST_WORKERS = 100_000


class Quiet:
    """One server's latest facts about the workers that claim here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holds_nothing: dict[ObjectId, tuple[str, float]] = {}
        self._nothing_waits_at: float | None = None

    def may_wait_elsewhere(self) -> bool:
        """Return whether work may wait at other workers; False for a while after none did."""
        known = self._nothing_waits_at
        return known is None or self._clock() - known >= _NOTHING_WAITS_SECONDS

    def nothing_waits(self) -> None:
        """Record that no work waits at any worker."""
        self._nothing_waits_at = self._clock()

    def note(self, worker: ObjectId, request: str, *, holds_nothing: bool) -> None:
        """Record whether a worker holds nothing after the response to its claim `request`."""
        if not holds_nothing:
            self._holds_nothing.pop(worker, None)
            return
        if len(self._holds_nothing) >= _MOST_WORKERS:
            self._holds_nothing.clear()
        self._holds_nothing[worker] = (request, self._clock())

    def holds_nothing(self, worker: ObjectId, before: str | None, request: str) -> bool:
        """Return whether a worker is known to hold nothing when it claims by `request` after its claim `before`.

        A grant at another server meanwhile would belong to another claim.
        """
        known = self._holds_nothing.get(worker)
        recent = known is not None and self._clock() - known[1] < _HOLDS_NOTHING_SECONDS
        return known is not None and recent and known[0] == before != request
