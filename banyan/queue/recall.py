"""Recall of tasks that a worker has not begun: for an edit, a paused queue, or a worker without work.

The task is marked, its worker receives the recall, and responds by giving the task back or by reporting its start. No
task is taken from a worker without that: a worker that does not respond keeps its tasks.
"""

import time
from collections.abc import Mapping
from typing import Any

from bson import ObjectId

from banyan.domain.line import WORTH_SECONDS
from banyan.domain.matching import Offer
from banyan.domain.resources import MILLI, Resources
from banyan.domain.task import FOR_WORK
from banyan.queue.context import Context
from banyan.queue.directories import closed_directories
from banyan.queue.pool import rank
from banyan.queue.stream import Suitability, resources_of

Document = dict[str, Any]

WAIT_SECONDS = 2.0
"""The longest wait for a worker."""
_FIRST_LOOK_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.1


def take_back(
    context: Context, where: Mapping[str, Any], purpose: str, seconds: float = WAIT_SECONDS
) -> list[ObjectId]:
    """Recall the matching tasks that have not begun, and wait; return the tasks whose workers did not respond.

    All others are no longer with their workers, or have begun.
    """
    asked = _recall(context, where, purpose)
    deadline, pause = time.monotonic() + seconds, _FIRST_LOOK_SECONDS
    while asked and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        asked = context.storage.tasks.still_recalled(asked)
    if asked:
        context.storage.tasks.end_recall(asked)
    return asked


def _recall(context: Context, where: Mapping[str, Any], purpose: str) -> list[ObjectId]:
    by_worker = context.storage.tasks.recall(where, purpose)
    for worker in by_worker:
        context.hub.worker(worker)
    return [task for tasks in by_worker.values() for task in tasks]


def take_over(context: Context, worker: Document, free: Resources, max_tasks: int) -> bool:
    """Recall work that waits at another worker, for one that is idle and could start it.

    Returns whether a worker received a recall. Tasks that are given back are claimed as any other task.
    """
    others = context.storage.workers.with_waiting(WORTH_SECONDS, but=worker["_id"])
    if not others:
        context.quiet.nothing_waits()
        return False
    offer = Offer.of(worker)
    suits = Suitability(worker["_id"], offer.total, None, closed_directories(context, worker))
    for other in sorted(others, key=lambda other: -float(other["waiting_seconds"])):
        tasks = _fitting(context, offer, suits, other, free, max_tasks)
        if tasks:
            _recall(context, {"_id": {"$in": tasks}}, FOR_WORK)
            return True
    return False


def _fitting(
    context: Context, offer: Offer, suits: Suitability, other: Document, free: Resources, max_tasks: int
) -> list[ObjectId]:
    """The best tasks of the other worker that one with this offer could start, and as many more as run there.

    Their starts may not have been reported yet, and they come first.
    """
    running = Offer.of(other).total
    left, chosen = free.plus(running), []
    most = max_tasks + max(1, running.millicores // MILLI)
    for task in sorted(context.storage.tasks.unbegun(other["_id"]), key=rank):
        wants = resources_of(task)
        if wants.fits(free) and wants.fits(left) and suits(task) and offer.accepts(context.classes.of(task)):
            chosen.append(task["_id"])
            left = left.minus(wants)
            if len(chosen) == most:
                break
    return chosen
