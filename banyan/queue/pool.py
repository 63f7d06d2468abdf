"""The candidates of one round of claims: each task is chosen once, and the reads of one claim serve the next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer
from banyan.queue.context import Context

Document = dict[str, Any]


@dataclass(slots=True)
class ClassTasks:
    """The tasks of one class that were read, best first; `complete` when there are no others."""

    tasks: list[Document] = field(default_factory=list)
    complete: bool = False


class Pool:
    """The claimable tasks by class, as they were when the round began, without those that were chosen since."""

    def __init__(self, context: Context, heads: Mapping[str, Document], demand: int, crowd: int) -> None:
        """`heads` are the best tasks of all classes; the round wants at most `demand` tasks.

        With a `crowd` of servers that compete for the first tasks, the pool offers tasks of the first 4**crowd times as
        many.
        """
        self._storage = context.storage
        self._heads_changed = context.heads.changed
        self._demand = max(1, demand)
        self.crowd = crowd
        self._chosen: set[ObjectId] = set()
        self._counts: Counter[str] = Counter()
        self._read: dict[str, ClassTasks] = {}
        self._accepted: dict[ObjectId, dict[str, list[Document]]] = {}
        queues: Mapping[str, Document] = self._storage.queues.all() if heads else {}
        waiting = {head["queue"] for head in heads.values()}
        limits = {name: queues[name]["max_running"] for name in waiting & queues.keys()}
        self.limits: dict[str, int] = {name: limit for name, limit in limits.items() if limit is not None}
        """The most running tasks of a queue, for queues with such a limit."""
        self._room: dict[str, int] = {}
        self.nobodys: set[str] = set()
        """Classes whose tasks no idle worker could start, as far as was checked in this round."""
        self.weights = {name: float(queue["weight"]) for name, queue in queues.items()}
        self.classes = {key: context.classes.of(head) for key, head in heads.items()}
        open_queues = {name for name in waiting & queues.keys() if not queues[name]["paused"]}
        self._heads = sorted((head for head in heads.values() if head["queue"] in open_queues), key=rank)
        """The best task of each class, best first, without those of paused queues."""

    def accepted(self, worker: ObjectId, offer: Offer) -> Mapping[str, Sequence[Document]]:
        """The heads of the classes whose tasks a worker could take, best first, by queue."""
        if worker not in self._accepted:
            by_queue: dict[str, list[Document]] = {}
            for head in self._heads:
                if offer.accepts(self.classes[head["class_key"]]):
                    by_queue.setdefault(head["queue"], []).append(head)
            self._accepted[worker] = by_queue
        return self._accepted[worker]

    def full(self, queue: str) -> bool:
        """Return whether no more tasks of a queue may start."""
        if queue not in self.limits:
            return False
        if queue not in self._room:
            self._room[queue] = self.limits[queue] - self._storage.tasks.running_in(queue)
        return self._room[queue] <= 0

    def has(self, task: Document) -> bool:
        """Return whether the task has not been chosen."""
        return task["_id"] not in self._chosen

    def choose(self, task: Document) -> bool:
        """Choose the task; False if it has been chosen already."""
        if not self.has(task):
            return False
        self._chosen.add(task["_id"])
        self._counts[task["class_key"]] += 1
        if task["queue"] in self._room:
            self._room[task["queue"]] -= 1
        return True

    def known(self, key: str) -> ClassTasks | None:
        """The tasks of a class that were read; None if none were."""
        return self._read.get(key)

    def read(self, keys: Sequence[str]) -> None:
        """Read the best tasks of several classes with one query, which returns the best of them all."""
        found, complete = self._claimable(keys, self._demand)
        by_class: dict[str, list[Document]] = {key: [] for key in keys}
        for task in found:
            by_class[task["class_key"]].append(task)
        for key, tasks in by_class.items():
            if tasks or complete:
                self._read[key] = ClassTasks(tasks, complete)
        if keys[0] not in self._read:  # the best tasks of other classes filled the limit
            self._read[keys[0]] = ClassTasks(*self._claimable(keys[:1], self._demand))
        if gone := [key for key in keys if key in self._read and not self._read[key].tasks]:
            self._heads_changed(gone)

    def read_on(self, key: str) -> None:
        """Read more tasks of a class."""
        there = len(self._read[key].tasks)
        self._read[key] = ClassTasks(*self._claimable([key], 2 * there + self._demand))

    def _claimable(self, keys: Sequence[str], count: int) -> tuple[list[Document], bool]:
        """The first tasks of these classes, and whether there are no more."""
        limit = count * 4**self.crowd + 1
        found = self._storage.tasks.claimable(keys, limit)
        return found, len(found) < limit

    def fitting(self, key: str, fit: Mapping[str, Any]) -> list[Document]:
        """The best tasks of a class that match a filter and have not been chosen."""
        limit = self._demand + self._counts[key] + 1
        return [task for task in self._storage.tasks.claimable([key], limit, fit) if self.has(task)]


def rank(task: Document) -> tuple[float, bytes]:
    """The rank within its queue: higher priority first, then older."""
    return -task["priority"], task["order"].binary
