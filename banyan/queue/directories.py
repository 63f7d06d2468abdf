"""Directories that workers lack: tasks avoid these workers for a while, and end if no other worker is left.

A worker keeps in `lacking_directories` the paths that it lacked, each with `since` and `until`. While a worker that is
not known to lack the directory could take a task, the others are not offered it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from bson import ObjectId

from banyan.domain.matching import CLASS_FIELDS, Offer, TaskClass
from banyan.domain.task import is_no_directory
from banyan.queue.avoided import lacking_directories, lacks
from banyan.queue.context import Context
from banyan.storage.workers import ACTIVE

Document = dict[str, Any]


def note_lacking(context: Context, ended: Mapping[ObjectId, Document]) -> Collection[ObjectId]:
    """Record the directories that workers lack; return the attempts (records by id) whose tasks may run elsewhere.

    The lack of another worker counts if it has been known since the task became available.
    """
    refused = {id: record for id, record in ended.items() if is_no_directory(record["exit_status"])}
    if not refused:
        return ()
    fields = [*CLASS_FIELDS, "directory", "timeout", "time_available", "execution", "worker"]
    tasks = context.storage.tasks.documents([record["task"] for record in refused.values()], fields)
    refused = {id: record for id, record in refused.items() if _held_by(tasks.get(record["task"], {}), id)}
    paths: dict[ObjectId, set[str]] = {}
    for record in refused.values():
        if directory := tasks[record["task"]].get("directory"):
            paths.setdefault(record["worker"], set()).add(directory)
    now = context.now()
    until = now + timedelta(seconds=context.settings.queue.avoid_directory_seconds)
    for worker, missing in paths.items():
        context.storage.workers.lack(worker, sorted(missing), now, until)
    active = context.storage.workers.in_states([ACTIVE])
    return [
        id for id, record in refused.items() if _has_another(context, active, record["worker"], tasks[record["task"]])
    ]


def _held_by(task: Mapping[str, Any], execution: ObjectId) -> bool:
    """Return whether this attempt holds the task still: not after a report that is repeated."""
    return task.get("execution") == execution and task.get("worker") is not None


def _has_another(context: Context, active: Sequence[Document], worker: ObjectId, task: Document) -> bool:
    """Return whether another active worker that could take the task may have its directory."""
    now, task_class, available = context.now(), TaskClass.of(task), task.get("time_available")
    for other in active:
        if other["_id"] != worker and not lacks(other, task, task_class, now):
            since = lacking_directories(other, now).get(task.get("directory", ""))
            if since is None or (available is not None and since < available):
                return True
    return False


def closed_directories(context: Context, worker: Document) -> Callable[[str], Collection[str]]:
    """The directories in which a worker is offered no tasks of a class, by the key of the class.

    These are the directories that it lacks and that another active worker that could take such tasks is not known to
    lack.
    """
    now = context.now()
    lacking = lacking_directories(worker, now)
    if not lacking:
        return _none
    others = [
        (Offer.of(each), lacking_directories(each, now))
        for each in context.storage.workers.in_states([ACTIVE])
        if each["_id"] != worker["_id"] and each.get("available_until") is None
    ]

    @cache
    def closed(key: str) -> Collection[str]:
        known = context.classes.known(key)
        able = [missing for offer, missing in others if known is not None and not offer.missing(known)]
        return frozenset(path for path in lacking if any(path not in missing for missing in able))

    return closed


def _none(key: str) -> Collection[str]:
    return ()
