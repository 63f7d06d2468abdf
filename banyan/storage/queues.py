"""The collection `queues`: named queues, their limits and their shares."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database

Document = dict[str, Any]
Session = ClientSession | None

DEFAULT_QUEUE = "default"


class QueueStore:
    """Queues by name."""

    def __init__(self, db: Database[Document]) -> None:
        self._queues = db["queues"]

    def prepare(self) -> None:
        """Create the index on names, and the default queue."""
        self._queues.create_index("name", unique=True, name="name")
        now = datetime.now(UTC)
        fresh: Document = {"paused": False, "max_running": None, "weight": 1.0, "_etag": str(ObjectId())}
        fresh |= {"_created": now, "_updated": now}
        self._queues.update_one({"name": DEFAULT_QUEUE}, {"$setOnInsert": fresh}, upsert=True)

    def names(self) -> set[str]:
        """The names of all queues."""
        return {d["name"] for d in self._queues.find({}, {"name": 1})}

    def all(self) -> dict[str, Document]:
        """All queues by name."""
        return {d["name"]: d for d in self._queues.find()}

    def add(self, document: Document) -> None:
        """Store a new queue; raises the driver's duplicate key error when the name is taken."""
        self._queues.insert_one(document)

    def load(self, queue: ObjectId) -> Document | None:
        """The stored queue."""
        return self._queues.find_one({"_id": queue})

    def change(
        self, queue: ObjectId, fields: Mapping[str, Any], now: datetime, revision: str | None = None
    ) -> Document | None:
        """Set fields; return the queue, or None if it is unknown or (with `revision`) was changed meanwhile."""
        where: Document = {"_id": queue}
        if revision is not None:
            where["_etag"] = revision
        return self._queues.find_one_and_update(
            where,
            {"$set": {**fields, "_etag": str(ObjectId()), "_updated": now}},
            return_document=ReturnDocument.AFTER,
        )

    def touch(self, name: str, session: Session) -> Document | None:
        """Make two claims in a queue conflict, or a claim and a change of the queue: the second to commit is run again.

        Returns the queue as it is then; None if there is none.
        """
        return self._queues.find_one_and_update({"name": name}, {"$inc": {"claims": 1}}, session=session)
