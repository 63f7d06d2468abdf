"""The collection `executions`: one record for each attempt; an ended one never changes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from banyan.storage.by_ids import by_ids
from banyan.storage.in_bulk import Write, change_each
from banyan.storage.reach import only_duplicates
from banyan.storage.references import plain

Document = dict[str, Any]
Session = ClientSession | None


class ExecutionStore:
    """Attempts by id and by task; the guarded write of `end` decides which end of an attempt counts."""

    def __init__(self, db: Database[Document]) -> None:
        self._executions = db["executions"]

    def prepare(self) -> None:
        """Create the indexes for history and deletion."""
        self._executions.create_index([("task", 1), ("attempt", 1)], name="task")
        self._executions.create_index([("worker", 1), ("time_claimed", -1)], name="worker")
        self._executions.create_index([("time_terminated", 1)], name="time_terminated")

    def begin(self, attempts: Sequence[Document], session: Session = None) -> None:
        """Record newly claimed attempts; an attempt that is already recorded stays as it is."""
        if not attempts:
            return
        try:
            self._executions.insert_many(attempts, ordered=False, session=session)
        except BulkWriteError as error:
            if session is not None or not only_duplicates(error):
                raise

    def open(self, skip: int, limit: int) -> list[Document]:
        """A page of the attempts that have not ended."""
        fields = ["task", "time_claimed", "time_started"]
        found = self._executions.find({"time_terminated": None}, fields).hint("time_terminated")
        return list(found.skip(skip).limit(limit))

    def load(self, ids: Iterable[ObjectId], session: Session = None) -> dict[ObjectId, Document]:
        """Attempt records by id; missing ones are left out."""
        return {d["_id"]: d for d in plain(by_ids(self._executions, ids, session=session))}

    def of_task(self, task: ObjectId) -> list[Document]:
        """All attempts of a task in order."""
        return plain(self._executions.find({"task": task}).sort("attempt"))

    def last_of(self, task: ObjectId) -> Document | None:
        """The latest attempt of a task; None when it has had none."""
        found = plain(self._executions.find({"task": task}).sort("attempt", -1).limit(1))
        return found[0] if found else None

    def end(self, ends: Mapping[ObjectId, Document], now: datetime) -> set[ObjectId]:
        """End the given attempts that have not ended; return the ids of the attempts that this call ended.

        `ends` maps each attempt to the fields of its end, `time_terminated` and `exit_status` among them.
        """
        if not ends:
            return set()
        mark = ObjectId()
        writes = [
            Write(id=id, guard=("time_terminated", None), fields={**fields, "last_update": now, "ended_by": mark})
            for id, fields in ends.items()
        ]
        if change_each(self._executions, writes) == len(ends):
            return set(ends)
        found = self._executions.find({"_id": {"$in": list(ends)}, "ended_by": mark}, {"_id": 1})
        return {d["_id"] for d in found}

    def update(self, changes: Mapping[ObjectId, Document], now: datetime) -> None:
        """Write the reports of live attempts (start, progress); ended attempts stay as they are."""
        if changes:
            self._executions.bulk_write(
                [
                    UpdateOne({"_id": execution, "time_terminated": None}, {"$set": {**fields, "last_update": now}})
                    for execution, fields in changes.items()
                ],
                ordered=False,
            )

    def withdraw(self, executions: Iterable[ObjectId]) -> None:
        """Remove attempts that were claimed and never started; those that started or ended stay."""
        never = {"time_started": None, "time_terminated": None}
        if ids := list(executions):
            self._executions.delete_many({"_id": {"$in": ids}, **never})

    def of_tasks(self, tasks: Sequence[ObjectId], session: Session = None) -> list[Document]:
        """The attempts of tasks (id, task, worker)."""
        return list(self._executions.find({"task": {"$in": list(tasks)}}, {"task": 1, "worker": 1}, session=session))

    def delete_of(self, tasks: Sequence[ObjectId], session: Session = None) -> list[Document]:
        """Delete the history of deleted tasks; return the deleted attempts (id, task, worker)."""
        going = self.of_tasks(tasks, session)
        self._executions.delete_many({"task": {"$in": list(tasks)}}, session=session)
        return going
