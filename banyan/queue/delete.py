"""Deleting ended tasks with everything that they left: history, memory samples, files, edges."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.queue.context import Context
from banyan.storage.mongo import Session

_BATCH = 1000


def delete(context: Context, tasks: Sequence[ObjectId]) -> list[ObjectId]:
    """Delete those of the tasks that have ended; their ids. Workers are told to remove the directories.

    Files and samples are too much for the transaction: it notes which are to go, and `remove_remains` sees to it.
    Settled edges to children that still wait stay, so that these know that they have had parents.
    """
    storage = context.storage

    def write(session: Session) -> list[ObjectId]:
        gone = storage.tasks.delete(tasks, session)
        children = storage.edges.children(gone, session)
        done = {id for id, child in storage.tasks.load(children, session).items() if child.ended}
        waiting = [id for id in children if id not in done]  # also those whose part of a submission is yet to be made
        storage.edges.delete_of(gone, waiting, session)
        storage.memory.doom(gone, session)
        attempts = storage.executions.delete_of(gone, session)
        storage.files.doom([attempt["_id"] for attempt in attempts], session)
        by_worker: dict[ObjectId, list[ObjectId]] = {}
        for attempt in attempts:
            by_worker.setdefault(attempt["worker"], []).append(attempt["task"])
        storage.workers.forget(by_worker, session)
        return gone

    gone = storage.transaction(write)
    if gone:
        remove_remains(context)
    return gone


def remove_remains(context: Context) -> None:
    """Remove the files and samples of all that was deleted; repeated by rescue if it was interrupted."""
    for store in (context.storage.files, context.storage.memory):
        while store.remove_doomed(_BATCH):
            continue
