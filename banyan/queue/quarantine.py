"""Quarantine of bad machines: a worker that fails several tasks in a row by its own fault gets no more for a while."""

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.task import CANCELLED, DISK_FILLED, HOST_DIED, is_abandoned, is_no_directory, is_worker_failure
from banyan.queue.context import Context

Document = dict[str, Any]

log = logging.getLogger(__name__)


def judge(context: Context, ended: Iterable[Document]) -> None:
    """Judge the machines of workers by ended attempts (their records, in the order in which they ended).

    Several tasks in a row that a worker failed by its own fault put it into quarantine. Any end that is not the
    machine's fault shows that it works; an end without information about the machine changes nothing. A repetition
    counts no task twice.
    """
    if not context.settings.quarantine.after:
        return
    well: set[ObjectId] = set()
    failed: dict[ObjectId, dict[ObjectId, str]] = {}
    for record in ended:
        worker, exit_status = record["worker"], record["exit_status"]
        if exit_status == DISK_FILLED:
            continue  # the task took the room, and the worker has it back
        if is_worker_failure(exit_status):
            failed.setdefault(worker, {})[record["task"]] = exit_status
        elif exit_status != CANCELLED and not is_abandoned(exit_status) and not is_no_directory(exit_status):
            failed.pop(worker, None)
            well.add(worker)
    if well and (better := context.storage.workers.failing(well)):
        context.storage.workers.did_well(better)
    for worker, statuses in failed.items():
        _note(context, worker, statuses)


def _note(context: Context, worker: ObjectId, statuses: Mapping[ObjectId, str]) -> None:
    settings, now = context.settings.quarantine, context.now()
    known = context.storage.workers.failed(worker, _subjects(context, statuses))
    count = len(known["failing"]) if known else 0
    if count < settings.after:
        return
    until = now + timedelta(seconds=settings.seconds) if settings.seconds else None
    last = list(statuses.values())[-1]
    reason = f"it failed {count} tasks in a row by its own fault, the last one with: {last}"
    if context.storage.workers.quarantine(worker, reason, now, until):
        log.warning("worker %s is quarantined: %s", worker, reason)
        context.hub.worker(worker)


def _subjects(context: Context, statuses: Mapping[ObjectId, str]) -> list[str]:
    """The failed subjects: different tasks; but hosts that died count once for each model, a possible cause."""
    died = [task for task, status in statuses.items() if status == HOST_DIED]
    models = {id: task.get("model") for id, task in context.storage.tasks.documents(died, ["model"]).items()}
    return [f"model {models[task]}" if task in models else str(task) for task in statuses]


def release_quarantined(context: Context) -> None:
    """Release workers whose quarantine has expired; the next failure sends them back."""
    now = context.now()
    for worker in context.storage.workers.quarantined_until(now):
        context.storage.tasks.stop_avoiding(worker)
        if context.storage.workers.release(worker, now):
            log.warning("worker %s leaves quarantine", worker)
            context.hub.worker(worker)
