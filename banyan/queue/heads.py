"""The best task of every class, read once for claims that come at the same time."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Document = dict[str, Any]

_FRESH_SECONDS = 0.02
_PATIENCE_SECONDS = 0.1
"""So long a claim waits for what another one is reading, before it reads by itself."""


class Heads:
    """What claims that overlap in time have read, for a moment; a claim that is alone always reads anew.

    Tasks that are gone since are harmless, for the guarded write decides. Tasks that have come since are not missed:
    `generation` changes with each wake-up for work, and what was read before is not used then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._claims = 0
        self._kept: tuple[Sequence[Document], int, float] | None = None

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """What is read in the block may be shared with the blocks that overlap it."""
        with self._lock:
            self._claims += 1
        try:
            yield
        finally:
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
