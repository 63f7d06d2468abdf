"""The collection `memory_usage`: samples of the memory and CPU that running tasks use."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from banyan.storage.reach import only_duplicates

Document = dict[str, Any]
Session = ClientSession | None


def _id_of(sample: Document) -> ObjectId:
    """An id in order of time, equal for equal samples of an attempt: a repeated report stores a sample once."""
    if sample.get("execution") is None:
        return ObjectId()
    milliseconds = int(sample["time"].timestamp() * 1000) % 2**48  # negative before 1970
    return ObjectId(milliseconds.to_bytes(6, "big") + hashlib.sha256(sample["execution"].binary).digest()[:6])


class MemoryStore:
    """Samples by task and time."""

    def __init__(self, db: Database[Document]) -> None:
        self._samples = db["memory_usage"]
        self._doomed = db["doomed_samples"]

    def prepare(self) -> None:
        """Create the index for a task's curve."""
        self._samples.create_index([("task", 1), ("time", 1)], name="task")

    def add(self, samples: Sequence[Document], now: datetime) -> list[Document]:
        """Store samples (`task`, `owner`, `time`, `resident_memory_bytes`, ..); return them as stored, in order."""
        if not samples:
            return []
        stored = [
            {"_id": _id_of(sample), "_etag": str(ObjectId()), "_created": now, "_updated": now, **sample}
            for sample in samples
        ]
        try:
            self._samples.insert_many(stored, ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
        return stored

    def doom(self, tasks: Iterable[ObjectId], session: Session = None) -> None:
        """Mark the samples of tasks for deletion, within the transaction that deletes the tasks."""
        ids = list(tasks)
        noted = {note["_id"] for note in self._doomed.find({"_id": {"$in": ids}}, session=session)}
        if fresh := [{"_id": task} for task in ids if task not in noted]:
            self._doomed.insert_many(fresh, session=session)

    def delete_of(self, tasks: Iterable[ObjectId], until: datetime) -> None:
        """Delete the samples of these tasks that were received before `until`."""
        self._samples.delete_many({"task": {"$in": list(tasks)}, "_created": {"$lte": until}})

    def remove_doomed(self, limit: int) -> int:
        """Delete the samples of deleted tasks; return the number of those tasks."""
        doomed = [note["_id"] for note in self._doomed.find().limit(limit)]
        if doomed:
            self._samples.delete_many({"task": {"$in": doomed}})
            self._doomed.delete_many({"_id": {"$in": doomed}})
        return len(doomed)
