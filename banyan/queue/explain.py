"""The reasons why a task is not running, the most informative first."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.domain.task import ENDED, LIVE, State
from banyan.errors import NotFound
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.explain_ends import ended
from banyan.queue.explain_order import tasks_before
from banyan.queue.explain_parents import waits_for
from banyan.queue.explain_workers import Workers, avoided, silent, takers, unfit, without_directory
from banyan.queue.reasons import full, last_heard, reason, worker_name
from banyan.wire import format_date

Document = dict[str, Any]


def explain(context: Context, task_id: ObjectId, asking: Actor | None = None) -> Document:
    """`state`, `reasons` (each with a short code, a sentence and details) and a one-line `summary`.

    Tasks that the requesting user may not read are named by their ids alone.
    """
    task = context.storage.tasks.document(task_id)
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    reasons = list(_reasons(context, Workers.of(context), task, asking)) or [_changing()]
    return {"_id": task_id, "state": task["state"], "reasons": reasons, "summary": reasons[0]["message"]}


def _reasons(context: Context, workers: Workers, task: Document, asking: Actor | None) -> Iterable[Document]:
    state = State(task["state"])
    if state in ENDED:
        yield from ended(context, task, asking)
    elif state in LIVE:
        yield _running(context, workers, task)
    else:
        yield from waits_for(context, task, asking, partial(_first, context, workers, asking))
        yield from _waiting(context, workers, task)


def _first(context: Context, workers: Workers, asking: Actor | None, task: Document) -> Document:
    """The most informative reason of a task that waits for no other."""
    state = State(task["state"])
    if state in ENDED:
        return next(iter(ended(context, task, asking)))
    if state in LIVE:
        return _running(context, workers, task)
    return next(iter(_waiting(context, workers, task)), _changing())


def _changing() -> Document:
    """The reason for a task without any obstacle that is not claimable yet, because its time has just come."""
    return reason("changing", "nothing keeps it any more; it goes on in a moment")


def _running(context: Context, workers: Workers, task: Document) -> Document:
    worker = context.storage.workers.load(task["worker"]) if task.get("worker") else None
    where = f"worker {worker_name(worker)}" if worker else "a worker"
    quiet = f", which {last_heard(worker)}" if worker and workers.silent(worker) else ""
    details = {"worker": worker["_id"], "last_seen": worker["last_seen"]} if worker else {}
    if task["state"] == State.PENDING_CANCELLATION:
        return reason("cancelling", f"{where} is stopping it{quiet}", **details)
    if task.get("time_started") is not None:
        text = f"it runs on {where} since {format_date(task['time_started'])}{quiet and f'; the worker {quiet[8:]}'}"
        return reason("running", text, **details)
    text = f"it is assigned to {where}"
    if worker and quiet:
        lost = format_date(worker["last_seen"] + timedelta(seconds=context.settings.leases.lost_after))
        text += f"{quiet}; if it stays silent, it is lost at {lost} and the task goes back to the queue"
    elif worker:
        text += f", which has not begun it (last sign of life at {format_date(worker['last_seen'])})"
    return reason("assigned", text, **details)


def _waiting(context: Context, workers: Workers, task: Document) -> Iterable[Document]:
    pending = bool(context.storage.edges.waiting([task["_id"]]))
    if task.get("hold"):
        yield held(task)
    if task["state"] == State.INACTIVE and not pending and not task.get("hold"):
        yield inactive()
    yield from dates(task, workers.now)
    blocked = list(in_queue(context, task))
    yield from blocked
    yield from _workers(context, workers, task, bool(blocked))


def held(task: Document) -> Document:
    """The reason for a task that is held."""
    return reason("held", f"it is held; `banyan release {task['_id']}` lets it go on")


def inactive() -> Document:
    """The reason for a task that was not made available."""
    return reason("inactive", "it is inactive; set its state to available when it is complete")


def dates(task: Document, now: datetime) -> Iterable[Document]:
    """The times before which a task does not run."""
    if task.get("not_before") is not None and task["not_before"] > now:
        until = format_date(task["not_before"])
        text = f"its not_before is {until}; it does not run earlier"
        yield reason("not_before", text, not_before=task["not_before"])
    if task.get("retry_at") is not None and task["retry_at"] > now:
        text = f"it has failed, and its retry_delay lasts until {format_date(task['retry_at'])} (it doubles each time)"
        yield reason("retry_delay", text, retry_at=task["retry_at"])


def in_queue(context: Context, task: Document) -> Iterable[Document]:
    """The reasons that keep back all tasks of its queue."""
    name = task["queue"]
    queue = context.storage.queues.all().get(name)
    if queue is None:
        yield reason("no_queue", f"its queue {name!r} does not exist any more")
        return
    if queue["paused"]:
        yield reason("queue_paused", f"queue {name!r} is paused; 'banyan queues resume {name}' lets it go on")
    limit = queue.get("max_running")
    if limit is not None and context.storage.tasks.running_in(name) >= limit:
        yield reason("queue_full", full(name, limit), limit=limit)


def _workers(context: Context, workers: Workers, task: Document, blocked: bool) -> Iterable[Document]:
    if task.get("command") is None and task.get("model") is None:
        return
    unable = list(unfit(context, workers, task))
    yield from unable
    if unable:
        return
    able, heard, room = takers(workers, task)
    if not able:
        yield avoided(context, workers, task)
    elif not heard:
        yield silent(workers, able, context.settings.leases.lost_after)
    elif not blocked and task["state"] == State.AVAILABLE and "class_key" in task:
        yield _before(context, task, able, heard, room)
    yield from without_directory(workers, task)


def _before(
    context: Context, task: Document, able: list[Document], heard: list[Document], room: list[Document]
) -> Document:
    count, more = tasks_before(context, task, able)
    tasks = {0: "no task comes", 1: "1 task comes"}.get(count, f"{'more than ' if more else ''}{count} tasks come")
    text = f"{tasks} before it in queue {task['queue']!r}, and "
    if room:
        asked = format_date(room[0]["last_seen"])
        text += f"worker {worker_name(room[0])} had room for it at its last claim, at {asked}"
    else:
        text += "the worker that fits is busy" if len(heard) == 1 else f"the {len(heard)} workers that fit are busy"
    if len(able) > len(heard):
        text += f"; {len(able) - len(heard)} more that fit are silent"
    return reason("waiting", text, before=count, workers=[worker["_id"] for worker in able[:100]])
