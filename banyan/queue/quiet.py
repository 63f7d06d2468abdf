"""What is known of a quiet time, so that idle workers cost little: nothing can be claimed, and who holds nothing."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from bson import ObjectId

Document = dict[str, Any]

_NOTHING_SECONDS = 1.0
"""For so long it is believed that nothing has come, if nobody has said so: a server that dies may leave it unsaid."""
_HOLDS_NOTHING_SECONDS = 60.0
_MOST_WORKERS = 100_000


class Quiet:
    """What one server has seen last. It is asked about claims that wait: these are woken by whatever comes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._nothing: tuple[int, float] | None = None
        self._holds_nothing: dict[ObjectId, tuple[str, float]] = {}

    def heads(
        self, generation: Callable[[], int], read: Callable[[], Sequence[Document]], *, patient: bool
    ) -> Sequence[Document]:
        """What `read` answers; nothing if that was so a moment ago and no wake-up has changed `generation` since.

        Whoever is not `patient` always gets what is there now.
        """
        now, at = generation(), self._clock()
        known = self._nothing
        if patient and known is not None and known[0] == now and at - known[1] < _NOTHING_SECONDS:
            return ()
        heads = read()
        self._nothing = None if heads else (now, at)
        return heads

    def note(self, worker: ObjectId, request: str, *, holds_nothing: bool) -> None:
        """Remember whether a worker holds nothing after its claim `request` was answered."""
        if not holds_nothing:
            self._holds_nothing.pop(worker, None)
            return
        if len(self._holds_nothing) >= _MOST_WORKERS:
            self._holds_nothing.clear()
        self._holds_nothing[worker] = (request, self._clock())

    def holds_nothing(self, worker: ObjectId, before: str | None, request: str) -> bool:
        """Whether a worker is known to hold nothing when it claims by `request`, its claim before being `before`.

        Whatever was granted to it elsewhere meanwhile was granted to another claim.
        """
        known = self._holds_nothing.get(worker)
        recent = known is not None and self._clock() - known[1] < _HOLDS_NOTHING_SECONDS
        return known is not None and recent and known[0] == before != request
