"""How claims are shared between queues: by weight, over time."""

from collections.abc import Iterable, Mapping


class Shares:
    """Stride scheduling: each claim moves its queue on by 1/weight, and the queue least far on comes next.

    Held in memory only: after a restart all queues start level, which changes no result, only an order.
    """

    def __init__(self) -> None:
        self._passed: dict[str, float] = {}

    def next(self, queues: Iterable[str]) -> str:
        """The queue whose turn it is, of those that have something to offer."""
        names = sorted(queues)
        level = min((self._passed[name] for name in names if name in self._passed), default=0.0)
        for name in names:
            self._passed.setdefault(name, level)
        return min(names, key=lambda name: (self._passed[name], name))

    def took(self, queue: str, weights: Mapping[str, float]) -> None:
        """Note that a task of `queue` was claimed."""
        self._passed[queue] = self._passed.get(queue, 0.0) + 1.0 / max(weights.get(queue, 1.0), 1e-6)

    def rest(self, queues: Iterable[str]) -> None:
        """Forget queues that have nothing to offer, so that none saves up turns while it is empty."""
        waiting = set(queues)
        for name in [name for name in self._passed if name not in waiting]:
            del self._passed[name]
