"""The collection `signals`: small messages from one server to the others."""

from collections.abc import Iterator
from typing import Any

from bson import ObjectId
from pymongo import WriteConcern
from pymongo.database import Database

Document = dict[str, Any]

KEPT_SECONDS = 60


class SignalStore:
    """Signals to all servers, through a change stream; a lost signal costs a wait, never a task."""

    def __init__(self, db: Database[Document]) -> None:
        self._signals = db["signals"]
        self._fast = self._signals.with_options(write_concern=WriteConcern(w=1, j=False))

    def prepare(self) -> None:
        """Create the collection, and the index that removes old signals."""
        self._signals.create_index("at", expireAfterSeconds=KEPT_SECONDS, name="expiry")

    def send(self, signal: Document) -> None:
        """Send a signal."""
        self._fast.insert_one({"_id": ObjectId(), **signal})

    def follow(self, stop: Any) -> Iterator[Document]:
        """New signals as they arrive, until `stop` (an event) is set; raises the driver's error if it fails."""
        pipeline = [{"$match": {"operationType": "insert"}}]
        with self._signals.watch(pipeline, max_await_time_ms=1000) as stream:
            while not stop.is_set() and stream.alive:
                change = stream.try_next()
                if change is not None:
                    yield change["fullDocument"]
