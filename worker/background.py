"""Threads for work that may take long, so that the worker's loop waits for no disk and no driver."""

import queue
import threading
import time
from collections.abc import Callable

from worker import threads
from worker.events import Event

Work = Callable[[], None]

WAKE_SECONDS = 0.005
"""The time for which results are batched while there is more to do."""
LOOK_SECONDS = 0.02
"""The pause between two checks of threads that have waiting work."""
MOST_THREADS = 32
"""The number of threads that may be blocked, each by another piece of work, before further work has to wait."""
REST_SECONDS = 10.0
"""The time without work after which an additional thread ends."""


class Crew:
    """Threads that share a queue of work: one, and more while all of them are blocked, at most `most`.

    With `most` 1 the work is done in the order in which it was added. `wake` is called when a piece is done; the owner
    of the crew calls `relieve` now and then while it is `busy`.
    """

    def __init__(
        self,
        name: str,
        tell: Callable[[Event], None],
        wake: Callable[[], None] = lambda: None,
        most: int = MOST_THREADS,
    ) -> None:
        self._name = name
        self._tell = tell
        self._wake = wake
        self._most = most
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._helpers = 0
        self._taken_at = self._woke_at = time.monotonic()
        self._unseen = False
        self._first = threads.start(name, self._serve, tell)

    @property
    def waiting(self) -> int:
        """Return the number of pieces of work that no thread has begun."""
        return self._work.qsize()

    @property
    def busy(self) -> bool:
        """Return whether work waits, or was done without a wake-up."""
        return self._unseen or not self._work.empty()

    def do(self, work: Work) -> None:
        """Add a piece of work."""
        self._work.put(work)

    def relieve(self) -> None:
        """Add a thread if work waits and no thread takes it. Earlier results count as seen."""
        self._unseen = False
        held_up = not self._work.empty() and time.monotonic() - self._taken_at > LOOK_SECONDS
        with self._lock:
            if not held_up or self._helpers + 1 >= self._most:
                return
            self._helpers += 1
        threads.start(f"{self._name} {self._helpers + 1}", self._help, self._tell)

    def close(self, seconds: float) -> None:
        """Finish the remaining work, within this time; an unfinished rest ends with the program."""
        self._work.put(None)
        self._first.join(timeout=seconds)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            self._perform(work)

    def _help(self) -> None:
        try:
            while (work := self._work.get(timeout=REST_SECONDS)) is not None:
                self._perform(work)
            self._work.put(None)  # the first thread ends, too
        except queue.Empty:
            return
        finally:
            with self._lock:
                self._helpers -= 1

    def _perform(self, work: Work) -> None:
        self._taken_at = time.monotonic()
        work()
        self._unseen = True
        now = time.monotonic()
        if self._work.empty() or now - self._woke_at >= WAKE_SECONDS:
            self._unseen, self._woke_at = False, now
            self._wake()
