"""The collection `forget`: directories that workers may remove, until they report that they have removed them.

A note is for the worker that had the directory, for the workers that replaced it, and for any worker at the same place:
a work directory outlives the worker that was started in it.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo.client_session import ClientSession
from pymongo.database import Database

Document = dict[str, Any]
Session = ClientSession | None

KEPT = timedelta(days=90)
"""The time after which a note for a worker that does not return expires."""
_AGAIN = timedelta(seconds=30)
"""The time after which a note is sent again, because the response to the first one may be lost."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory of a task at a worker: all of it, or with `up_to` the files of its attempts up to that one."""

    worker: ObjectId
    task: ObjectId
    place: str | None = None
    up_to: int | None = None

    @property
    def name(self) -> str:
        """The name that is sent to the worker: `TASK`, or `TASK/ATTEMPT`."""
        return str(self.task) if self.up_to is None else f"{self.task}/{self.up_to}"


_KNOWN_SECONDS = 5.0
"""The longest delay before a worker receives a note of another server process."""


class ForgetStore:
    """Notes by worker and by place. `clock` is a monotonic clock in seconds, for the cache of workers with notes."""

    def __init__(self, db: Database[Document], clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = db["forget"]
        self._tasks = db["tasks"]
        self._clock = clock
        self._concerned: tuple[float, frozenset[object]] | None = None

    def prepare(self) -> None:
        """Create the indexes on notes, and the one that removes old ones."""
        self._notes.create_index([("worker", 1), ("told", 1)], name="worker_told")
        self._notes.create_index(
            [("place", 1), ("told", 1)], name="place_told", partialFilterExpression={"place": {"$exists": True}}
        )
        self._notes.create_index("task", name="task")
        self._notes.create_index("at", name="expiry", expireAfterSeconds=int(KEPT.total_seconds()))

    def note(self, directories: Iterable[Directory], now: datetime, session: Session = None) -> None:
        """Store notes; an existing note stays as it is."""
        wanted = {(each.worker, each.name): each for each in directories}
        tasks = list({each.task for each in wanted.values()})
        noted = {(note["worker"], _name(note)) for note in self._notes.find({"task": {"$in": tasks}}, session=session)}
        fresh = [
            {"worker": each.worker, "task": each.task, "up_to": each.up_to, "at": now, "told": NEVER}
            | ({} if each.place is None else {"place": each.place})
            for key, each in wanted.items()
            if key not in noted
        ]
        if fresh:
            self._notes.insert_many(fresh, session=session)
        self._concerned = None

    def tell(self, worker: Mapping[str, Any], now: datetime, limit: int = 1000) -> list[str]:
        """The directories that a worker (as it is stored) may remove and that were not sent to it lately.

        The directories of a task that exists again, under the id of a deleted one, stay.
        """
        if self._knows_nothing_for(worker):
            return []
        waiting = {"told": {"$lt": now - _AGAIN}}
        found = list(self._notes.find({"$or": [{**each, **waiting} for each in _mine(worker)]}).limit(limit))
        if not found:
            return []
        whole = [note["task"] for note in found if note.get("up_to") is None]
        there = {task["_id"] for task in self._tasks.find({"_id": {"$in": whole}}, {"_id": 1})}
        stale = [note["_id"] for note in found if note.get("up_to") is None and note["task"] in there]
        if stale:
            self._notes.delete_many({"_id": {"$in": stale}})
        told = [note for note in found if note["_id"] not in stale]
        self._notes.update_many({"_id": {"$in": [note["_id"] for note in told]}}, {"$set": {"told": now}})
        return list(dict.fromkeys(_name(note) for note in told))

    def _knows_nothing_for(self, worker: Mapping[str, Any]) -> bool:
        """Return whether there is no note for a worker, as for nearly all claims; the result is cached."""
        concerned = self._concerned
        if concerned is None or self._clock() - concerned[0] > _KNOWN_SECONDS:
            at = self._clock()
            places = self._notes.distinct("place", {"place": {"$exists": True}})
            self._concerned = concerned = (at, frozenset([*self._notes.distinct("worker"), *places]))
        return concerned[1].isdisjoint([worker["_id"], *worker.get("replaced", ()), worker.get("place")])

    def done(self, worker: Mapping[str, Any], names: Iterable[str]) -> None:
        """Delete the notes of directories that the worker has removed."""
        wanted = set(names)
        tasks = [task for task in map(_task_of, wanted) if task is not None]
        if not tasks:
            return
        ids = {worker["_id"], *worker.get("replaced", ())}
        notes = [
            note["_id"]
            for note in self._notes.find({"task": {"$in": tasks}})
            if _name(note) in wanted and (note["worker"] in ids or note.get("place", "") == worker.get("place"))
        ]
        self._notes.delete_many({"_id": {"$in": notes}})


def _mine(worker: Mapping[str, Any]) -> list[Document]:
    mine: list[Document] = [{"worker": {"$in": [worker["_id"], *worker.get("replaced", ())]}}]
    return mine if worker.get("place") is None else [*mine, {"place": worker["place"]}]


def _name(note: Mapping[str, Any]) -> str:
    return Directory(worker=note["worker"], task=note["task"], up_to=note.get("up_to")).name


def _task_of(name: str) -> ObjectId | None:
    try:
        return ObjectId(name.partition("/")[0])
    except InvalidId:
        return None
