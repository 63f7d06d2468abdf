"""Workers that a task avoids while another could take it: they failed it by their own fault, or lack its directory."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass
from banyan.domain.transitions import Change, avoid_seconds
from banyan.queue.context import Context
from banyan.storage.tasks import view
from banyan.storage.workers import ACTIVE

Document = dict[str, Any]

log = logging.getLogger(__name__)

_BATCH = 1000


def paused(context: Context, change: Change) -> Change:
    """The change with the time from which its avoided worker may be tried again."""
    pause = avoid_seconds(context.settings.quarantine.avoid_seconds, change.fields.get("abandoned_count", 1))
    return replace(change, fields={**change.fields, "avoid_until": context.now() + timedelta(seconds=pause)})


def lacks(
    worker: Mapping[str, Any],
    task: Mapping[str, Any],
    task_class: TaskClass,
    now: datetime,
    offer: Offer | None = None,
) -> dict[str, Any]:
    """The reasons why a worker can never take the task, (wanted, there) by name: its offer, and its remaining time."""
    missing = (offer or Offer.of(worker)).missing(task_class)
    if worker.get("available_until") is not None:
        left = (worker["available_until"] - now).total_seconds()
        if task.get("timeout") is None or task["timeout"] > left:
            wanted = f"of {task['timeout']:g} s" if task.get("timeout") else "(it has none)"
            missing["timeout"] = (wanted, f"{left:.0f} s left")
    return missing


def lacking_directories(worker: Mapping[str, Any], now: datetime) -> dict[str, datetime]:
    """The directories that a worker is known to lack, each with the time since which that is known."""
    notes = worker.get("lacking_directories") or ()
    return {note["path"]: note["since"] for note in notes if note["until"] > now}


def try_avoided_again(context: Context) -> None:
    """Let a worker retry a task that it failed, if its pause is over and no other active worker could take it."""
    now = context.now()
    due = context.storage.tasks.avoiding(now, _BATCH)
    if not due:
        return
    active = context.storage.workers.in_states([ACTIVE])
    waiting: list[ObjectId] = []
    for task in due:
        avoid = task.get("avoid") or []
        again = next(iter(avoided_only(active, task, now)), None)
        if avoid and again is None:
            waiting.append(task["_id"])
        else:
            _let_try(context, task, [worker for worker in avoid if worker != again], again)
    if waiting:
        context.storage.tasks.keep_avoiding(waiting, now, now + _pause(context, 1))


def avoided_only(active: Sequence[Document], task: Mapping[str, Any], now: datetime) -> Collection[ObjectId]:
    """The workers to try again, the earliest failure first; none while another worker could take the task.

    A worker that is known to lack the task's directory cannot take it.
    """
    task_class, directory = TaskClass.of(task), task.get("directory")
    able = {each["_id"]: each for each in active if not lacks(each, task, task_class, now)}
    avoided = [worker for worker in task.get("avoid") or () if worker in able]
    others = [each for id, each in able.items() if id not in avoided]
    return () if any(directory not in lacking_directories(each, now) for each in others) else avoided


def _let_try(context: Context, task: Document, avoid: Sequence[ObjectId], worker: ObjectId | None) -> None:
    now = context.now()
    until = now + _pause(context, task.get("abandoned_count", 1)) if avoid else None
    fields = {"avoid": list(avoid) or None, "avoid_until": until}
    if context.storage.tasks.edit(view(task), fields, now) is None or worker is None:
        return
    log.info("task %s: worker %s has failed it, and tries again, for no other could", task["_id"], worker)
    context.hub.work({task["task_class"]: 1})
    context.hub.worker(worker)


def _pause(context: Context, losses: int) -> timedelta:
    return timedelta(seconds=avoid_seconds(context.settings.quarantine.avoid_seconds, max(losses, 1)))
