"""The positions of the walks through ended tasks that remove old data, and the tasks that they postponed.

There is a walk for each kind of data, in the order in which the tasks ended; its position is in `meta`. A task whose
data cannot be removed when the walk passes is checked again later: it is in the collection `postponed`. So the cost of
a step does not depend on the amount of data.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from banyan.domain.task import ENDED

Document = dict[str, Any]
Session = ClientSession | None

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST = ObjectId(bytes(12))
_ENDED = {"$in": sorted(ENDED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A position in the order in which tasks ended; `when` is the time at which a server wrote that end."""

    when: datetime = _FIRST
    task: ObjectId = _LEAST


class RetentionStore:
    """Walks by kind, and the tasks that they postponed."""

    def __init__(self, db: Database[Document]) -> None:
        self._tasks = db["tasks"]
        self._edges = db["continuations"]
        self._sweeps = db["sweeps"]
        self._meta = db["meta"]
        self._postponed = db["postponed"]

    def prepare(self) -> None:
        """Create the indexes that the walks follow, and the document with their positions."""
        self._tasks.create_index(
            [("_updated", 1), ("_id", 1)], name="ended", partialFilterExpression={"time_terminated": {"$exists": True}}
        )
        self._postponed.create_index([("_id.kind", 1), ("due", 1)], name="due")
        self._meta.update_one({"_id": "retention"}, {"$setOnInsert": {"turn": _FIRST}}, upsert=True)

    def take_turn(self, now: datetime, pause: timedelta) -> bool:
        """Return whether this server may do the next step; the next step is due after `pause`, on any server."""
        mine = {"_id": "retention", "turn": {"$lte": now}}
        return self._meta.update_one(mine, {"$set": {"turn": now + pause}}).matched_count == 1

    def place(self, kind: str) -> Place:
        """The position of the walk."""
        found = (self._meta.find_one({"_id": "retention"}) or {}).get(kind)
        return Place() if found is None else Place(when=found["when"], task=found["task"])

    def advance(self, kind: str, before: Place, to: Place) -> None:
        """Advance the walk, unless another server advanced it from `before` meanwhile."""
        as_before = [{kind: _stored(before)}, {kind: {"$exists": False}}]
        self._meta.update_one({"_id": "retention", "$or": as_before}, {"$set": {kind: _stored(to)}})

    def ended_after(self, place: Place, until: datetime, limit: int) -> list[Place]:
        """The next tasks of a walk: those that ended at `until` at the latest."""
        further = [{"_updated": {"$gt": place.when}}, {"_updated": place.when, "_id": {"$gt": place.task}}]
        where = {"time_terminated": {"$exists": True}, "$or": further, "_updated": {"$lte": until}}
        found = self._tasks.find(where, {"_updated": 1}).hint("ended").sort([("_updated", 1), ("_id", 1)]).limit(limit)
        return [Place(when=task["_updated"], task=task["_id"]) for task in found]

    def ended(self, tasks: Iterable[ObjectId]) -> dict[ObjectId, datetime]:
        """The times at which tasks ended; tasks that have not ended are left out."""
        found = self._tasks.find({"_id": {"$in": list(tasks)}, "state": _ENDED}, {"_updated": 1})
        return {task["_id"]: task["_updated"] for task in found}

    def hold(
        self, tasks: Iterable[ObjectId], until: datetime, session: Session, *, records: bool
    ) -> dict[ObjectId, int]:
        """The given tasks that ended at `until` at the latest, each with the number of its last attempt.

        Within the transaction a retry of one of them has to wait, and then reads the task again. With `records` the
        task's `history_until` is set to the last attempt whose record is removed.
        """
        where = {"_id": {"$in": list(tasks)}, "state": _ENDED, "_updated": {"$lte": until}}
        ended = self._tasks.find(where, {"attempt_count": 1}, session=session)
        found = {task["_id"]: task.get("attempt_count", 0) for task in ended}
        changed = {"_etag": str(ObjectId())} | ({"history_until": "$attempt_count"} if records else {})
        self._tasks.update_many({"_id": {"$in": list(found)}}, [{"$set": changed}], session=session)
        return found

    def needed(self, tasks: Sequence[ObjectId], session: Session = None) -> set[ObjectId]:
        """The given tasks that have a child which has not ended, or does not exist yet."""
        ended = [{"$match": {"state": _ENDED}}, {"$project": {"_id": 1}}]
        child = {"from": "tasks", "localField": "child", "foreignField": "_id", "pipeline": ended, "as": "ended"}
        pipeline: list[Document] = [
            {"$match": {"parent": {"$in": list(tasks)}}},
            {"$lookup": child},
            {"$match": {"ended": []}},
            {"$group": {"_id": "$parent"}},
        ]
        return {edge["_id"] for edge in self._edges.aggregate(pipeline, session=session)}

    def postpone(self, kind: str, tasks: Iterable[ObjectId], due: datetime) -> None:
        """Check these tasks again at `due`."""
        writes = [
            UpdateOne({"_id": {"kind": kind, "task": task}}, {"$set": {"due": due}}, upsert=True) for task in tasks
        ]
        if writes:
            self._postponed.bulk_write(writes, ordered=False)

    def due(self, kind: str, now: datetime, limit: int) -> list[ObjectId]:
        """Postponed tasks that are due."""
        found = self._postponed.find({"_id.kind": kind, "due": {"$lte": now}}).sort("due").limit(limit)
        return [each["_id"]["task"] for each in found]

    def done(self, kind: str, tasks: Iterable[ObjectId]) -> None:
        """Remove these tasks from the postponed ones."""
        ids = [{"kind": kind, "task": task} for task in tasks]
        if ids:
            self._postponed.delete_many({"_id": {"$in": ids}})

    def sweeps_after(self, sweep: ObjectId, until: datetime, limit: int) -> list[Document]:
        """The next sweeps in the order of their creation, `until` at the latest, with their barriers."""
        where = {"_id": {"$gt": sweep}, "_created": {"$lte": until}}
        return list(self._sweeps.find(where, {"barrier": 1}).sort("_id").limit(limit))

    def is_empty(self, sweep: Document) -> bool:
        """Return whether no task of a sweep is left."""
        left = [{"sweep": sweep["_id"], "index": {"$gte": 0}}, {"_id": sweep.get("barrier")}]
        return self._tasks.find_one({"$or": left}, {"_id": 1}) is None


def _stored(place: Place) -> Document:
    return {"when": place.when, "task": place.task}
