"""The choice of the queue that starts the next task: shares by weight, over time."""

import threading
from collections.abc import Iterable, Mapping


class Shares:
    """Start-time fair queueing: each start advances its queue by 1/weight, and the least advanced queue is next.

    Virtual time advances with the starts. A queue that had no task to offer, was paused or full, or that no worker
    could serve, continues from the present time: it gains no credit. The state is in memory only: after a restart all
    queues begin level, which changes no result, only an order.
    """

    def __init__(self) -> None:
        self._time = 0.0
        self._passed: dict[str, float] = {}
        self._lock = threading.Lock()

    def next(self, queues: Iterable[str]) -> str:
        """The next queue, of those that could be served now."""
        with self._lock:
            return min(queues, key=lambda name: (self._start(name), name))

    def took(self, queue: str, weights: Mapping[str, float]) -> None:
        """Record that a task of `queue` was started."""
        with self._lock:
            self._time = self._start(queue)
            self._passed[queue] = self._time + 1.0 / max(weights.get(queue, 1.0), 1e-6)
            if len(self._passed) > 10_000:
                self._passed = {name: passed for name, passed in self._passed.items() if passed > self._time}

    def _start(self, queue: str) -> float:
        return max(self._time, self._passed.get(queue, 0.0))
