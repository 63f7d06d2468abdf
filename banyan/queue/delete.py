"""Deleting ended tasks with everything that they left: history, memory samples, files, edges."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.queue.context import Context
from banyan.storage.forget import Directory
from banyan.storage.mongo import Session

_BATCH = 1000


def delete(context: Context, tasks: Sequence[ObjectId], *, ended_until: datetime | None = None) -> list[ObjectId]:
    """Delete those of the tasks that have ended; their ids. Workers are told to remove the directories.

    With `ended_until` only those that ended by then, and of which no child needs anything any more.
    Files and samples are too much for the transaction: it notes which are to go, and `remove_remains` sees to it.
    Settled edges to children that still wait stay, so that these know that they have had parents.
    """
    storage = context.storage

    def write(session: Session) -> list[ObjectId]:
        needed = storage.retention.needed(tasks, session) if ended_until is not None else set()
        gone = storage.tasks.delete([task for task in tasks if task not in needed], session, ended_until)
        children = storage.edges.children(gone, session)
        done = {id for id, child in storage.tasks.load(children, session).items() if child.ended}
        waiting = [id for id in children if id not in done]  # also those whose part of a submission is yet to be made
        storage.edges.delete_of(gone, waiting, session)
        storage.memory.doom(gone, session)
        doom_files(context, storage.executions.delete_of(gone, session), {}, session)
        return gone

    gone = storage.transaction(write)
    if gone:
        remove_remains(context)
    return gone


def doom_files(
    context: Context, attempts: Sequence[Mapping[str, Any]], last: Mapping[ObjectId, int], session: Session
) -> None:
    """Note, within a transaction, that the files of these attempts are to go, here and at the workers that had them.

    `last` has the number of the last attempt of each task that stays.
    """
    storage = context.storage
    storage.files.doom([attempt["_id"] for attempt in attempts], session)
    workers = storage.workers.by_id({attempt["worker"] for attempt in attempts})
    directories = [
        Directory(
            worker=attempt["worker"],
            task=attempt["task"],
            place=workers.get(attempt["worker"], {}).get("place"),
            up_to=last.get(attempt["task"]),
        )
        for attempt in attempts
    ]
    storage.forget.note(directories, context.now(), session)


def remove_remains(context: Context) -> None:
    """Remove the files and samples of all that was deleted; repeated by rescue if it was interrupted."""
    for store in (context.storage.files, context.storage.memory):
        while store.remove_doomed(_BATCH):
            continue
