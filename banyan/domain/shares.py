"""How claims are shared between queues: by weight, over time."""

import threading
from collections.abc import Iterable, Mapping


class Shares:
    """Stride scheduling: each claim moves its queue on by 1/weight, and the queue least far on comes next.

    Held in memory only: after a restart all queues start level, which changes no result, only an order.
    """

    def __init__(self) -> None:
        self._passed: dict[str, float] = {}
        self._lock = threading.Lock()

    def next(self, queues: Iterable[str]) -> str:
        """The queue whose turn it is, of those that have something to offer."""
        names = sorted(queues)
        with self._lock:
            level = min((self._passed[name] for name in names if name in self._passed), default=0.0)
            for name in names:
                self._passed.setdefault(name, level)
            return min(names, key=lambda name: (self._passed[name], name))

    def took(self, queue: str, weights: Mapping[str, float]) -> None:
        """Note that a task of `queue` was claimed."""
        with self._lock:
            self._passed[queue] = self._passed.get(queue, 0.0) + 1.0 / max(weights.get(queue, 1.0), 1e-6)

    def rest(self, queues: Iterable[str]) -> None:
        """Forget queues that have nothing to offer, so that none saves up turns while it is empty."""
        waiting = set(queues)
        with self._lock:
            self._passed = {name: passed for name, passed in self._passed.items() if name in waiting}
