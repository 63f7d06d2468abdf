"""The collection `sweeps`, and the tasks of a sweep in the order of their index."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database

Document = dict[str, Any]
Session = ClientSession | None

_BATCH = 1000


def points_of(sweep: ObjectId) -> Document:
    """The filter for the tasks that a sweep created, without its barrier; the index `sweep` serves it."""
    return {"sweep": sweep, "index": {"$gte": 0}}


class SweepStore:
    """Sweeps by id; the state of a sweep is that of its tasks and is stored nowhere else."""

    def __init__(self, db: Database[Document]) -> None:
        self._sweeps = db["sweeps"]
        self._tasks = db["tasks"]

    def prepare(self) -> None:
        """Create the indexes on sweeps and their tasks."""
        self._sweeps.create_index([("owner", 1), ("_id", -1)], name="owner")
        self._sweeps.create_index("name", name="name")
        self._sweeps.create_index("doing.since", name="doing", partialFilterExpression={"doing": {"$exists": True}})
        self._sweeps.create_index("retrying", name="retrying", partialFilterExpression={"retrying": {"$exists": True}})
        self._tasks.create_index(
            [("sweep", 1), ("index", 1), ("state", 1), ("exit_status", 1)],
            name="sweep",
            partialFilterExpression={"sweep": {"$exists": True}},
        )

    def insert(self, document: Document, session: Session = None) -> None:
        """Store a new sweep."""
        self._sweeps.insert_one(document, session=session)

    def load(self, sweep: ObjectId) -> Document | None:
        """The stored sweep."""
        return self._sweeps.find_one({"_id": sweep})

    def delete(self, sweep: ObjectId) -> None:
        """Delete the document; its tasks must be deleted separately."""
        self._sweeps.delete_one({"_id": sweep})

    def batches(self, sweep: ObjectId, where: Mapping[str, Any]) -> Iterator[list[ObjectId]]:
        """The ids of a sweep's tasks that match a filter, in batches, in the order of their index."""
        after = -1
        while True:
            condition = {"sweep": sweep, "index": {"$gt": after}, **where}
            found = list(self._tasks.find(condition, {"index": 1}).sort("index").limit(_BATCH))
            if not found:
                return
            yield [task["_id"] for task in found]
            after = found[-1]["index"]

    def count(self, sweep: ObjectId, where: Mapping[str, Any]) -> int:
        """The number of tasks of a sweep that match a filter."""
        return self._tasks.count_documents({**points_of(sweep), **where})

    def indexes(self, tasks: Iterable[ObjectId]) -> dict[ObjectId, int]:
        """The index of each of some tasks."""
        return {d["_id"]: d["index"] for d in self._tasks.find({"_id": {"$in": list(tasks)}}, {"index": 1})}

    def begin_work(self, sweep: ObjectId, what: Mapping[str, Any], now: datetime) -> None:
        """Record an operation on all tasks of a sweep, so that it is completed even if this server dies."""
        self._sweeps.update_one({"_id": sweep}, {"$set": {"doing": {**what, "since": now}}})

    def end_work(self, sweep: ObjectId) -> None:
        """Remove the record of an operation that is complete or was given up."""
        self._sweeps.update_one({"_id": sweep}, {"$unset": {"doing": 1}})

    def interrupted_work(self, before: datetime) -> list[Document]:
        """Sweeps with an operation that was recorded before `before`."""
        return list(self._sweeps.find({"doing.since": {"$lt": before}}))

    def begin_retry(self, sweep: ObjectId, now: datetime, session: Session = None) -> bool:
        """Record that the sweep is being retried; False if it is already."""
        idle = {"_id": sweep, "retrying": {"$exists": False}}
        return self._sweeps.update_one(idle, {"$set": {"retrying": now}}, session=session).matched_count == 1

    def go_on_retrying(self, sweep: ObjectId, now: datetime) -> None:
        """Record that the retry is still in progress."""
        self._sweeps.update_one({"_id": sweep, "retrying": {"$exists": True}}, {"$set": {"retrying": now}})

    def retrying(self, sweeps: Iterable[ObjectId]) -> set[ObjectId]:
        """The given sweeps that are being retried."""
        where = {"_id": {"$in": list(sweeps)}, "retrying": {"$exists": True}}
        return {d["_id"] for d in self._sweeps.find(where, {"_id": 1})}

    def end_retry(self, sweep: ObjectId, session: Session = None) -> None:
        """Remove the record of the retry."""
        self._sweeps.update_one({"_id": sweep}, {"$unset": {"retrying": 1}}, session=session)

    def interrupted_retries(self, before: datetime) -> list[Document]:
        """Sweeps whose retry was last in progress before `before`."""
        return list(self._sweeps.find({"retrying": {"$lt": before}}, {"barrier": 1}))
