"""The collection `memory_usage`: samples of what tasks use while they run."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database

Document = dict[str, Any]
Session = ClientSession | None


class MemoryStore:
    """Samples by task and time."""

    def __init__(self, db: Database[Document]) -> None:
        self._samples = db["memory_usage"]

    def prepare(self) -> None:
        """Create the index by which a task's curve is read."""
        self._samples.create_index([("task", 1), ("time", 1)], name="task")

    def add(self, samples: Sequence[Document], now: datetime) -> list[Document]:
        """Store samples (`task`, `owner`, `time`, `resident_memory_bytes`, ..); the stored documents, in order."""
        if not samples:
            return []
        stored = [
            {"_id": ObjectId(), "_etag": str(ObjectId()), "_created": now, "_updated": now, **sample}
            for sample in samples
        ]
        self._samples.insert_many(stored, ordered=False)
        return stored

    def delete_of(self, tasks: Iterable[ObjectId], session: Session = None) -> None:
        """Remove the samples of tasks that are deleted."""
        self._samples.delete_many({"task": {"$in": list(tasks)}}, session=session)
