"""Deleting ended tasks with everything that they left: history, memory samples, files, edges."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.queue.context import Context
from banyan.storage.mongo import Session


def delete(context: Context, tasks: Sequence[ObjectId]) -> list[ObjectId]:
    """Delete those of the tasks that have ended; their ids. Workers are told to remove the directories."""
    storage = context.storage

    def write(session: Session) -> tuple[list[ObjectId], list[dict[str, ObjectId]]]:
        gone = storage.tasks.delete(tasks, session)
        storage.edges.delete_of(gone, session)
        return gone, storage.executions.delete_of(gone, session)

    gone, attempts = storage.transaction(write)
    storage.memory.delete_of(gone)
    storage.files.delete_of([attempt["_id"] for attempt in attempts])
    by_worker: dict[ObjectId, list[ObjectId]] = {}
    for attempt in attempts:
        by_worker.setdefault(attempt["worker"], []).append(attempt["task"])
    storage.workers.forget(by_worker)
    return gone
