"""Cancellation: tasks that have not begun are cancelled at once, running ones receive a request to stop."""

from collections.abc import Iterable
from typing import Any

from bson import ObjectId

from banyan.domain.task import State
from banyan.domain.transitions import Cancel
from banyan.queue.apply import Applied, apply
from banyan.queue.context import Context
from banyan.queue.settle import settle


def cancel(context: Context, tasks: Iterable[ObjectId], cause: dict[str, Any]) -> Applied:
    """Cancel tasks with all tasks that wait for them; ended tasks stay as they are.

    `cause` is stored as `cancelled_by`. Workers that hold one of them are notified at once.
    """
    event = Cancel(cause)
    applied = apply(context, context.storage.tasks.load(tasks), lambda task: event)
    for task, change in applied.changed.values():
        if change.state == State.PENDING_CANCELLATION and task.worker is not None:
            context.hub.worker(task.worker)
    settle(context, applied.parents_to_settle())
    return applied
