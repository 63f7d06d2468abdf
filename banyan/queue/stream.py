"""The tasks of one queue that a claim could get, best first; read from MongoDB only as far as needed."""

import heapq
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from bson import ObjectId

from banyan.domain.resources import Resources
from banyan.queue.pool import Pool, rank
from banyan.storage.tasks import MERGED_KEYS

Document = dict[str, Any]

_Entry = tuple[float, bytes, str, int, Document | None]
"""The next task of a class: its rank, the key of the class, its index in the tasks that were read; None: to be read."""


class Suitability:
    """The test of whether a worker may get a task, whatever is free: it fits, ends in time, is not avoided."""

    def __init__(
        self,
        worker: ObjectId,
        total: Resources,
        timeout_seconds: float | None,
        closed: Callable[[str], Collection[str]],
    ) -> None:
        """`closed` returns the directories in which it is offered no tasks of a class (`closed_directories`)."""
        self._worker = worker
        self._total = total
        self._timeout_seconds = timeout_seconds
        self._closed = closed

    def __call__(self, task: Document) -> bool:
        """Return whether the worker may get this very task: tasks of a class are only similar."""
        left = self._timeout_seconds
        in_time = left is None or task.get("timeout", float("inf")) <= left
        avoided = self._worker in task.get("avoid", ()) or task.get("directory") in self._closed(task["task_class"])
        return in_time and not avoided and resources_of(task).fits(self._total)

    def filter(self, key: str) -> Mapping[str, Any]:
        """The same test as a MongoDB filter for one class, except for custom resources."""
        amounts = {
            "cores": self._total.millicores / 1000,
            "memory": self._total.memory_bytes,
            "scratch": self._total.scratch_bytes,
            "gpu_memory": self._total.gpu_memory_bytes,
        }
        fit: Document = {f"requested_resources.{name}": {"$not": {"$gt": most}} for name, most in amounts.items()}
        fit["avoid"] = {"$ne": self._worker}
        if closed := self._closed(key):
            fit["directory"] = {"$nin": list(closed)}
        if self._timeout_seconds is not None:
            fit["timeout"] = {"$lte": self._timeout_seconds}
        return fit


def resources_of(task: Mapping[str, Any]) -> Resources:
    """The exact request of a candidate."""
    return Resources.from_document(task.get("requested_resources") or {"cores": 1})


class Candidates(Protocol):
    """Tasks of a queue, best first."""

    def peek(self) -> Document | None:
        """The next task; None when there are no more."""

    def advance(self) -> None:
        """Skip the next task."""

    def drop(self) -> None:
        """Skip the whole class of the next task."""


class Stream:
    """Candidates in the order of their ranks."""

    def __init__(self, pool: Pool, heads: Sequence[Document], suits: Suitability) -> None:
        """`heads` are those of the classes whose tasks the worker could take, best first."""
        self.missed = False
        """True if other claims of the round took tasks that would have been chosen."""
        self._pool = pool
        self._suits = suits
        self._heap: list[_Entry] = [(*rank(head), head["class_key"], 0, head) for head in heads]
        self._own: dict[str, list[Document]] = {}
        """The tasks that suit the worker, for classes whose first tasks do not."""

    def peek(self) -> Document | None:
        """The next task."""
        while self._heap:
            key, index, task = self._heap[0][2:]
            actual = self._actual(key, index, task)
            if actual is None:
                continue
            if actual is not task:
                heapq.heapreplace(self._heap, (*rank(actual), key, index, actual))
            elif not self._pool.has(actual):
                self.missed = True
                self.advance()
            elif self._suits(actual):
                return actual
            elif key in self._own:
                self.advance()
            else:
                self._own[key] = self._pool.fitting(key, self._suits.filter(key))
                self._go_to(key, 0)
        return None

    def _actual(self, key: str, index: int, task: Document | None) -> Document | None:
        """The task at this index of its class; None if it had to be read first, or the class has no more."""
        if key in self._own:
            tasks, complete = self._own[key], True
        elif (known := self._pool.known(key)) is not None:
            tasks, complete = known.tasks, known.complete
        elif task is not None:
            return task
        else:
            self._read(key)
            return None
        if index < len(tasks):
            return tasks[index]
        if complete:
            heapq.heappop(self._heap)
        else:
            self._pool.read_on(key)
        return None

    def _read(self, key: str) -> None:
        """Read this class, with others that may come next."""
        others = [entry[2] for entry in heapq.nsmallest(MERGED_KEYS, self._heap) if self._pool.known(entry[2]) is None]
        self._pool.read([key, *(other for other in others if other != key)][:MERGED_KEYS])

    def advance(self) -> None:
        """Skip the next task; its successor in its class is read when it is needed."""
        self._go_to(self._heap[0][2], self._heap[0][3] + 1)

    def _go_to(self, key: str, index: int) -> None:
        heapq.heapreplace(self._heap, (*self._heap[0][:2], key, index, None))

    def drop(self) -> None:
        """Skip the class of the next task."""
        heapq.heappop(self._heap)


class Scattered:
    """The first candidates in random order: servers that compete do not all want the best ones."""

    def __init__(self, stream: Stream, count: int) -> None:
        found: list[Document] = []
        while len(found) < count and (task := stream.peek()) is not None:
            found.append(task)
            stream.advance()
        self._tasks = random.sample(found, len(found))

    def peek(self) -> Document | None:
        """The next task."""
        return self._tasks[-1] if self._tasks else None

    def advance(self) -> None:
        """Skip the next task."""
        self._tasks.pop()

    def drop(self) -> None:
        """Skip the class of the next task."""
        key = self._tasks[-1]["class_key"]
        self._tasks = [task for task in self._tasks if task["class_key"] != key]
