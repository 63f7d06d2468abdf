"""Deleting ended tasks with everything that they left: history, memory samples, files, edges."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.queue.context import Context
from banyan.storage.mongo import Session

_BATCH = 1000


def delete(context: Context, tasks: Sequence[ObjectId]) -> list[ObjectId]:
    """Delete those of the tasks that have ended; their ids. Workers are told to remove the directories.

    Files are too large for the transaction: it notes which are to go, and `remove_files` sees to it.
    """
    storage = context.storage

    def write(session: Session) -> list[ObjectId]:
        gone = storage.tasks.delete(tasks, session)
        storage.edges.delete_of(gone, session)
        storage.memory.delete_of(gone, session)
        attempts = storage.executions.delete_of(gone, session)
        storage.files.doom([attempt["_id"] for attempt in attempts], session)
        by_worker: dict[ObjectId, list[ObjectId]] = {}
        for attempt in attempts:
            by_worker.setdefault(attempt["worker"], []).append(attempt["task"])
        storage.workers.forget(by_worker, session)
        return gone

    gone = storage.transaction(write)
    if gone:
        remove_files(context)
    return gone


def remove_files(context: Context) -> None:
    """Remove the files of all attempts that were deleted; repeated by rescue if it was interrupted."""
    while context.storage.files.remove_doomed(_BATCH):
        continue
