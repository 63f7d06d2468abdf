"""The collection `memory_usage`: samples of what tasks use while they run."""

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
    """The same id for the same sample of an attempt, so that a repeated report stores it once; in order of time."""
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
        """Create the index by which a task's curve is read."""
        self._samples.create_index([("task", 1), ("time", 1)], name="task")

    def add(self, samples: Sequence[Document], now: datetime) -> list[Document]:
        """Store samples (`task`, `owner`, `time`, `resident_memory_bytes`, ..); the stored documents, in order."""
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
        """Note, within the transaction that deletes tasks, that their samples are to go."""
        ids = list(tasks)
        noted = {note["_id"] for note in self._doomed.find({"_id": {"$in": ids}}, session=session)}
        if fresh := [{"_id": task} for task in ids if task not in noted]:
            self._doomed.insert_many(fresh, session=session)

    def delete_of(self, tasks: Iterable[ObjectId], until: datetime) -> None:
        """Remove the samples of these tasks that came here before `until`."""
        self._samples.delete_many({"task": {"$in": list(tasks)}, "_created": {"$lte": until}})

    def remove_doomed(self, limit: int) -> int:
        """Remove the samples of tasks that were deleted; how many tasks those were."""
        doomed = [note["_id"] for note in self._doomed.find().limit(limit)]
        if doomed:
            self._samples.delete_many({"task": {"$in": doomed}})
            self._doomed.delete_many({"_id": {"$in": doomed}})
        return len(doomed)
