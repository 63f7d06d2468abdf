"""Which queue starts the next task: shares by weight, over time."""

import threading
from collections.abc import Iterable, Mapping


class Shares:
    """Start-time fair queueing: each start moves its queue on by 1/weight, and the queue that is least far on is next.

    Time goes on with the starts. A queue that had nothing to offer, was paused or was full, or that no worker could
    serve, goes on from the present time: it gains no credit. Held in memory only: after a restart all queues begin
    level, which changes no result, only an order.
    """

    def __init__(self) -> None:
        self._time = 0.0
        self._passed: dict[str, float] = {}
        self._lock = threading.Lock()

    def next(self, queues: Iterable[str]) -> str:
        """The queue whose turn it is, of those that could be served now."""
        with self._lock:
            return min(queues, key=lambda name: (self._start(name), name))

    def took(self, queue: str, weights: Mapping[str, float]) -> None:
        """Note that a task of `queue` was started."""
        with self._lock:
            self._time = self._start(queue)
            self._passed[queue] = self._time + 1.0 / max(weights.get(queue, 1.0), 1e-6)
            if len(self._passed) > 10_000:
                self._passed = {name: passed for name, passed in self._passed.items() if passed > self._time}

    def _start(self, queue: str) -> float:
        return max(self._time, self._passed.get(queue, 0.0))
