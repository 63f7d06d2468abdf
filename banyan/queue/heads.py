"""The best task of every class, read once for claims that come at the same time, and not too many at once."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Document = dict[str, Any]

_FRESH_SECONDS = 0.02
_PATIENCE_SECONDS = 0.1
"""So long a claim waits for what another one is reading, before it reads by itself."""
_AT_ONCE = 6
"""More claims than that only make each other slow: they wait for the same processor, and for the same tasks."""
_LONGEST_SECONDS = 1.0
"""No claim waits longer for its turn, for those before it may wait for a MongoDB that is away."""


class Heads:
    """What claims that overlap in time have read, for a moment; a claim that is alone always reads anew.

    Tasks that are gone since are harmless, for the guarded write decides. Tasks that have come since are not missed:
    `generation` changes with each wake-up for work, and what was read before is not used then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, longest_seconds: float = _LONGEST_SECONDS) -> None:
        self._clock = clock
        self._longest_seconds = longest_seconds
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._claims = 0
        self._turns = threading.Semaphore(_AT_ONCE)
        self._kept: tuple[Sequence[Document], int, float] | None = None

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Wait for a turn; what is read in the block may be shared with the blocks that overlap it."""
        with self._lock:
            self._claims += 1
        in_turn = self._turns.acquire(timeout=self._longest_seconds)
        try:
            yield
        finally:
            if in_turn:
                self._turns.release()
            with self._lock:
                self._claims -= 1
                if not self._claims:
                    self._kept = None

    def get(self, generation: Callable[[], int], read: Callable[[], Sequence[Document]]) -> Sequence[Document]:
        """What `read` answers, or has answered a moment ago, when `generation` was what it is now."""
        alone = not self._reading.acquire(timeout=_PATIENCE_SECONDS)
        try:
            now, at = generation(), self._clock()
            kept = self._kept
            if kept is not None and kept[1] == now and at - kept[2] < _FRESH_SECONDS:
                return kept[0]
            heads = read()
            with self._lock:
                self._kept = (heads, now, at) if self._claims > 1 else None
            return heads
        finally:
            if not alone:
                self._reading.release()
