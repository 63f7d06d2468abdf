"""Deletion of ended tasks with all their data: history, memory samples, files, edges."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import CONDITIONS, satisfied
from banyan.queue.context import Context
from banyan.storage.forget import Directory
from banyan.storage.mongo import Session

_BATCH = 1000
MANY_EDGES = 5000
"""The most edges in one transaction, which MongoDB keeps in its cache until the commit."""


def delete(
    context: Context, tasks: Sequence[ObjectId], *, ended_until: datetime | None = None, many: int = MANY_EDGES
) -> list[ObjectId]:
    """Delete the given tasks that have ended; return their ids. Workers are sent the directories to remove.

    With `ended_until` only tasks are deleted that ended by then, and whose children need nothing from them any more.
    `many` is the most edges in one transaction.

    Files and samples are too large for the transaction: it marks them for deletion, and `remove_remains` deletes them.
    Edges to children stay: they record how the parents ended, until the children are deleted.
    """
    gone: list[ObjectId] = []
    for batch in _batches(context, tasks, ended_until, many):
        gone += context.storage.transaction(partial(_delete, context, batch, ended_until))
    if gone:
        remove_remains(context)
    return gone


def _batches(
    context: Context, tasks: Sequence[ObjectId], ended_until: datetime | None, many: int
) -> Iterator[list[ObjectId]]:
    """The tasks in groups with few enough edges for a transaction; a task with more edges loses them first."""
    weights = context.storage.edges.weights(tasks)
    batch: list[ObjectId] = []
    edges = 0
    for task in tasks:
        own = weights.get(task, 0)
        if own > many:
            _strip(context, task, ended_until)
            own = 0
        if batch and edges + own > many:
            yield batch
            batch, edges = [], 0
        batch.append(task)
        edges += own
    if batch:
        yield batch


def _strip(context: Context, task: ObjectId, ended_until: datetime | None) -> None:
    """Delete the edges to a task that is marked for deletion."""
    if context.storage.tasks.begin_leaving(task, ended_until):
        context.storage.edges.delete_to([task])
        _renew_edges(context, [task], None)


def _renew_edges(context: Context, tasks: Sequence[ObjectId], session: Session | None) -> None:
    """Update all edges from tasks that are deleted to the last ends of the tasks."""
    parents = context.storage.edges.outdated_from(tasks, session)
    for parent in context.storage.tasks.load(parents, session).values():
        for on in CONDITIONS if parent.ended else ():
            context.storage.edges.renew(parent.id, on, bool(satisfied(on, parent)), session)


def _delete(
    context: Context, tasks: Sequence[ObjectId], ended_until: datetime | None, session: Session
) -> list[ObjectId]:
    storage = context.storage
    needed = storage.retention.needed(tasks, session) if ended_until is not None else set()
    going = [task for task in tasks if task not in needed]
    _renew_edges(context, going, session)
    gone = storage.tasks.delete(going, session, ended_until)
    storage.edges.delete_to(gone, session)
    storage.memory.doom(gone, session)
    doom_files(context, storage.executions.delete_of(gone, session), {}, session)
    return gone


def finish_deletions(context: Context) -> None:
    """Delete tasks whose deletion was interrupted after the deletion of their edges had begun."""
    while leaving := context.storage.tasks.leaving(_BATCH):
        if not delete(context, leaving):
            return


def doom_files(
    context: Context, attempts: Sequence[Mapping[str, Any]], last: Mapping[ObjectId, int], session: Session
) -> None:
    """Mark the files of these attempts for deletion, here and at their workers, within a transaction.

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
    """Delete the files and samples of deleted tasks; repeated by rescue if it was interrupted."""
    for store in (context.storage.files, context.storage.memory):
        while store.remove_doomed(_BATCH):
            continue
