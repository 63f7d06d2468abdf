"""What claims in this server process are about to take: nobody beside them tries the same task, only to lose."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bson import ObjectId

Document = dict[str, Any]

_STALE_SECONDS = 1.0
"""For so long a task that was granted may still be in what another claim has read."""

_Key = tuple[ObjectId, str]
"""A task and its revision: when it comes back it has another one."""


class Taken:
    """Tasks that are being taken, and those that were just now. Nothing rests on it: the guarded write decides."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._taking: dict[_Key, str] = {}
        self._counts: Counter[str] = Counter()
        self._granted: dict[_Key, float] = {}

    @contextmanager
    def taking(self) -> Iterator["Taking"]:
        """Take tasks in the block; those that are not `granted` by its end are free again."""
        mine = Taking(self)
        try:
            yield mine
        finally:
            self._end(mine)

    def take(self, task: Document) -> bool:
        """Whether the task (a stored document) is the caller's to take."""
        key = _key(task)
        with self._lock:
            self._forget()
            if key in self._taking or key in self._granted:
                return False
            self._taking[key] = task["class_key"]
            self._counts[task["class_key"]] += 1
            return True

    def has(self, task: Document) -> bool:
        """Whether somebody takes the task, or has taken it."""
        with self._lock:
            return _key(task) in self._taking or _key(task) in self._granted

    def count(self, class_key: str) -> int:
        """How many tasks of a class are being taken."""
        with self._lock:
            return self._counts[class_key]

    def _end(self, taking: "Taking") -> None:
        now = self._clock()
        with self._lock:
            for key in taking.keys:
                self._counts[self._taking.pop(key)] -= 1
                if key[0] in taking.granted:
                    self._granted[key] = now
            self._counts = +self._counts

    def _forget(self) -> None:
        before = self._clock() - _STALE_SECONDS
        while self._granted and next(iter(self._granted.values())) < before:
            del self._granted[next(iter(self._granted))]


class Taking:
    """What one claim takes."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self.keys: list[_Key] = []
        self.granted: set[ObjectId] = set()

    def take(self, task: Document) -> bool:
        """Whether the task is ours to take."""
        if not self._taken.take(task):
            return False
        self.keys.append(_key(task))
        return True

    def grant(self, tasks: Iterable[ObjectId]) -> None:
        """These were written: who has read them before has read what is no longer so."""
        self.granted.update(tasks)


def _key(task: Document) -> _Key:
    return task["_id"], task["_etag"]
