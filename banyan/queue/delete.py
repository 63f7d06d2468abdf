"""Deleting ended tasks with everything that they left: history, memory samples, files, edges."""

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
"""So many edges may go in one transaction, which MongoDB keeps in its cache until the commit."""


def delete(
    context: Context, tasks: Sequence[ObjectId], *, ended_until: datetime | None = None, many: int = MANY_EDGES
) -> list[ObjectId]:
    """Delete those of the tasks that have ended; their ids. Workers are told to remove the directories.

    With `ended_until` only those that ended by then, and of which no child needs anything any more. `many` is how many
    edges go in one transaction.
    Files and samples are too much for the transaction: it notes which are to go, and `remove_remains` sees to it.
    Edges to children stay: what these need to know of how their parents ended is not forgotten before they are.
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
    """The tasks in groups with so few edges that each can go in a transaction; one with more loses them before."""
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
    """Remove the edges to a task of which nothing can become any more but that it is deleted."""
    if context.storage.tasks.begin_leaving(task, ended_until):
        context.storage.edges.delete_to([task])
        _renew_edges(context, [task], None)


def _renew_edges(context: Context, tasks: Sequence[ObjectId], session: Session | None) -> None:
    """Let all edges from tasks that are deleted tell of their last ends."""
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
    """Delete those tasks whose deletion was interrupted when their edges had begun to go."""
    while leaving := context.storage.tasks.leaving(_BATCH):
        if not delete(context, leaving):
            return


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
