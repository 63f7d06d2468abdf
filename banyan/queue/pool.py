"""What the claims of one round choose from: each task is chosen once, and what one claim has read serves the next."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bson import ObjectId

from banyan.domain.matching import TaskClass
from banyan.queue.context import Context

Document = dict[str, Any]

_MOST = 5000
"""So many tasks of a class are read at once."""


class Pool:
    """The claimable tasks by class, as they were when the round began, without those that were chosen since."""

    def __init__(self, context: Context, heads: Sequence[Document], demand: int, crowd: int) -> None:
        """`heads` are the best tasks of all classes; the round wants at most `demand` tasks.

        In a `crowd` of servers, which all want the first tasks, others of the first 4**crowd times as many are offered.
        """
        self._storage = context.storage
        self._demand = demand
        self.crowd = crowd
        self._chosen: set[ObjectId] = set()
        self._counts: Counter[str] = Counter()
        self._read: dict[str, tuple[Sequence[Document], bool]] = {}
        queues: Mapping[str, Document] = self._storage.queues.all() if heads else {}
        waiting = {head["queue"] for head in heads}
        context.shares.rest(waiting)
        limits = {name: queues[name]["max_running"] for name in waiting & queues.keys()}
        self.limits: dict[str, int] = {name: limit for name, limit in limits.items() if limit is not None}
        """How many tasks of a queue may run at once, for queues that have such a limit."""
        self._room = {name: limit - self._storage.tasks.running_in(name) for name, limit in self.limits.items()}
        self.weights = {name: float(queue["weight"]) for name, queue in queues.items()}
        self.classes = {head["class_key"]: context.classes.of(head) for head in heads}
        self.heads: dict[str, list[Document]] = {
            name: [] for name in waiting & queues.keys() if not queues[name]["paused"]
        }
        """The best task of each class by queue, best first; those of queues that are paused are left out."""
        for head in sorted(heads, key=rank):
            if head["queue"] in self.heads:
                self.heads[head["queue"]].append(head)

    def class_of(self, task: Document) -> TaskClass:
        """The class of a claimable task."""
        return self.classes[task["class_key"]]

    def full(self, queue: str) -> bool:
        """Whether no more tasks of a queue may start."""
        return self._room.get(queue, 1) <= 0

    def has(self, task: Document) -> bool:
        """Whether nobody has chosen the task."""
        return task["_id"] not in self._chosen

    def chosen(self, class_key: str) -> int:
        """How many tasks of a class were chosen."""
        return self._counts[class_key]

    def choose(self, task: Document) -> bool:
        """Take the task out; False if somebody has."""
        if not self.has(task):
            return False
        self._chosen.add(task["_id"])
        self._counts[task["class_key"]] += 1
        if task["queue"] in self._room:
            self._room[task["queue"]] -= 1
        return True

    def best(
        self,
        class_key: str,
        count: int,
        suits: Callable[[Document], bool],
        worker: ObjectId,
        max_timeout: float | None,
    ) -> list[Document]:
        """So many tasks of a class that nobody has chosen and that suit a worker, and one more, if there are."""
        needed = count + self._counts[class_key]
        known, all_known = self._read.get(class_key, ((), False))
        if len(known) < needed and not all_known:
            known, all_known = self._read[class_key] = self._find(class_key, needed, None, None)
        found = [task for task in known if self.has(task) and suits(task)]
        if len(found) < count and not all_known:
            others, _ = self._find(class_key, needed, worker, max_timeout)
            found = [task for task in others if self.has(task)]
        return random.sample(found, min(count, len(found))) if self.crowd else found[: count + 1]

    def _find(
        self, class_key: str, needed: int, worker: ObjectId | None, max_timeout: float | None
    ) -> tuple[Sequence[Document], bool]:
        """The first tasks of a class, and whether there are no more."""
        limit = min(max(needed, self._demand) * 4**self.crowd + 1, _MOST)
        found = self._storage.tasks.claimable(class_key, worker, limit, max_timeout)
        return found, len(found) < limit


def rank(task: Document) -> tuple[float, bytes]:
    """Within its queue: higher priority first, then older."""
    return -task["priority"], task["order"].binary
