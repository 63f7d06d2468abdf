"""The collection `forget`: which directories workers may remove, until they say that they have done it.

A note is for the worker that had the directory and for those that replaced it, and for whoever works at the same place:
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
"""A note for a worker that does not come back goes after that."""
_AGAIN = timedelta(seconds=30)
"""An answer may be lost: what was told is told again after that."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """What a worker had of a task: all of it, or with `up_to` what its attempts up to that one left."""

    worker: ObjectId
    task: ObjectId
    place: str | None = None
    up_to: int | None = None

    @property
    def name(self) -> str:
        """How the worker is told: `TASK`, or `TASK/ATTEMPT`."""
        return str(self.task) if self.up_to is None else f"{self.task}/{self.up_to}"


_KNOWN_SECONDS = 5.0
"""So late a worker may hear of what another server process has noted."""


class ForgetStore:
    """Notes by worker and by place. `clock` is a monotonic clock in seconds, for what is known of who has any."""

    def __init__(self, db: Database[Document], clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = db["forget"]
        self._tasks = db["tasks"]
        self._clock = clock
        self._concerned: tuple[float, frozenset[object]] | None = None

    def prepare(self) -> None:
        """Create the indexes by which notes are found, and the one by which old ones go."""
        self._notes.create_index([("worker", 1), ("told", 1)], name="worker_told")
        self._notes.create_index(
            [("place", 1), ("told", 1)], name="place_told", partialFilterExpression={"place": {"$exists": True}}
        )
        self._notes.create_index("task", name="task")
        self._notes.create_index("at", name="expiry", expireAfterSeconds=int(KEPT.total_seconds()))

    def note(self, directories: Iterable[Directory], now: datetime, session: Session = None) -> None:
        """Note what may go; what is noted already stays so."""
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
        """What a worker (as it is stored) may remove and was not told lately.

        The directories of a task that is there again, under the id of a deleted one, stay.
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
        """Whether there is no note for a worker, as for nearly all that ask, which they do with each claim."""
        concerned = self._concerned
        if concerned is None or self._clock() - concerned[0] > _KNOWN_SECONDS:
            at = self._clock()
            places = self._notes.distinct("place", {"place": {"$exists": True}})
            self._concerned = concerned = (at, frozenset([*self._notes.distinct("worker"), *places]))
        return concerned[1].isdisjoint([worker["_id"], *worker.get("replaced", ()), worker.get("place")])

    def done(self, worker: Mapping[str, Any], names: Iterable[str]) -> None:
        """The worker has removed these."""
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
