"""Why a task is not running: the reasons, the most telling first."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass
from banyan.domain.task import ENDED, LIVE, State
from banyan.domain.transitions import MAX_LOSSES
from banyan.errors import NotFound
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.storage.workers import ACTIVE, DRAINING, QUARANTINED
from banyan.wire import format_date, format_size

Document = dict[str, Any]

_NAMED_PARENTS = 10


def explain(context: Context, task_id: ObjectId, asking: Actor | None = None) -> Document:
    """`state`, `reasons` (each with a short code, a sentence and details) and a one-line `summary`.

    Parents that the asking user may not read are named by their ids alone.
    """
    task = context.storage.tasks.document(task_id)
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    reasons = list(_reasons(context, task, asking))
    return {"_id": task_id, "state": task["state"], "reasons": reasons, "summary": reasons[0]["message"]}


def _reasons(context: Context, task: Document, asking: Actor | None) -> Iterable[Document]:
    state = State(task["state"])
    if state in ENDED:
        yield _reason("ended", _ended(task))
    elif state in LIVE:
        yield _running(context, task)
    else:
        yield from _waiting(context, task, asking)


def _reason(code: str, message: str, **details: Any) -> Document:
    return {"reason": code, "message": message, **details}


def _ended(task: Document) -> str:
    cause = task.get("cancelled_by") or {}
    if task["state"] == State.CANCELLED and "task" in cause:
        return f"it was cancelled because its parent {cause['task']} did not end as it needs"
    if task["state"] == State.CANCELLED:
        return f"it was cancelled by {cause.get('user', 'its provider')}"
    if task.get("abandoned_count", 0) >= MAX_LOSSES:
        return (
            f"it has ended: {task.get('exit_status')}; it was lost {MAX_LOSSES} times, and is not tried again by itself"
        )
    return f"it has ended: {task.get('exit_status')}"


def _running(context: Context, task: Document) -> Document:
    worker = context.storage.workers.load(task["worker"]) if task.get("worker") else None
    where = f"worker {worker['name']} on {worker['host']}" if worker else "a worker"
    if task["state"] == State.PENDING_CANCELLATION:
        return _reason("cancelling", f"{where} is stopping it")
    if task.get("time_started") is None:
        return _reason("claimed", f"{where} has claimed it and is about to start it")
    return _reason("running", f"it runs on {where} since {format_date(task['time_started'])}")


def _waiting(context: Context, task: Document, asking: Actor | None) -> Iterable[Document]:
    parents = [edge.parent for edge in context.storage.edges.of_children([task["_id"]]) if not edge.settled]
    if parents:
        text = _parents(context, parents, asking)
        yield _reason("dependencies", text, parents=parents[:_NAMED_PARENTS], count=len(parents))
    if task.get("hold"):
        yield _reason("held", "it is held; set hold to false to let it go on")
    if task["state"] == State.INACTIVE and not parents and not task.get("hold"):
        yield _reason("inactive", "it is inactive; set its state to available when it is complete")
    yield from _dates(task, context.now())
    blocked = list(_queue(context, task))
    yield from blocked
    yield from _workers(context, task, bool(blocked))


def _dates(task: Document, now: datetime) -> Iterable[Document]:
    if task.get("not_before") is not None and task["not_before"] > now:
        until = format_date(task["not_before"])
        yield _reason(
            "not_before", f"its not_before is {until}; it does not run earlier", not_before=task["not_before"]
        )
    if task.get("retry_at") is not None and task["retry_at"] > now:
        text = f"it has failed, and its retry_delay lasts until {format_date(task['retry_at'])} (it doubles each time)"
        yield _reason("retry_delay", text, retry_at=task["retry_at"])


def _parents(context: Context, parents: list[ObjectId], asking: Actor | None) -> str:
    known = context.storage.tasks.documents(parents[:_NAMED_PARENTS], ["name", "state", "owner"])
    named = [_named(known[id], asking) for id in parents[:_NAMED_PARENTS] if id in known]
    more = f" and {len(parents) - len(named)} more" if len(parents) > len(named) else ""
    return f"it waits for {', '.join(named)}{more}"


def _named(task: Document, asking: Actor | None) -> str:
    if asking is not None and not asking.may_read(task["owner"]):
        return f"task {task['_id']}"
    return f"{task.get('name') or 'task'} {task['_id']} ({task['state']})"


def _queue(context: Context, task: Document) -> Iterable[Document]:
    queue = context.storage.queues.all().get(task["queue"])
    if queue is None:
        yield _reason("no_queue", f"its queue {task['queue']!r} does not exist any more")
        return
    if queue["paused"]:
        yield _reason("queue_paused", f"queue {task['queue']!r} is paused")
    limit = queue.get("max_running")
    if limit == 0:
        yield _reason("queue_full", f"queue {task['queue']!r} is to run no tasks (max_running is 0)", limit=limit)
    elif limit is not None and context.storage.tasks.running_in(task["queue"]) >= limit:
        yield _reason("queue_full", f"queue {task['queue']!r} runs its {limit} tasks at once already", limit=limit)


def _workers(context: Context, task: Document, blocked: bool) -> Iterable[Document]:
    if task.get("command") is None and task.get("model") is None:
        return
    active = context.storage.workers.in_states([ACTIVE])
    if not active:
        yield from _closed(context, TaskClass.of(task))
        yield _reason("no_worker", "no worker is active; start one with 'banyan worker'")
        return
    task_class = TaskClass.of(task)
    lacking = {worker["_id"]: _lacks(worker, task, task_class, context.now()) for worker in active}
    avoided = set(task.get("avoid", ()))
    fit = [worker for worker in active if not lacking[worker["_id"]] and worker["_id"] not in avoided]
    if not fit:
        yield from _closed(context, task_class)
        able = [worker for worker in active if not lacking[worker["_id"]]]
        yield _avoided(context, task, able) if able else _closest(active, lacking)
    elif not blocked and task["state"] == State.AVAILABLE and "class_key" in task:
        yield _before(context, task, len(fit))


def _lacks(worker: Document, task: Document, task_class: TaskClass, now: datetime) -> dict[str, tuple[Any, Any]]:
    """Why a worker can never take the task: what it is, and the time that it has left."""
    lacks = Offer.of(worker).missing(task_class)
    if worker.get("available_until") is not None:
        left = (worker["available_until"] - now).total_seconds()
        if task.get("timeout") is None or task["timeout"] > left:
            wanted = f"of {task['timeout']:g} s" if task.get("timeout") else "(it has none)"
            lacks["timeout"] = (wanted, f"{left:.0f} s left")
    return lacks


def _closed(context: Context, task_class: TaskClass) -> Iterable[Document]:
    """A worker that could run it, but gets nothing new."""
    for worker in context.storage.workers.in_states([DRAINING, QUARANTINED]):
        if Offer.of(worker).accepts(task_class):
            text = f"worker {worker['name']} on {worker['host']} could run it, but is {worker['state']}"
            if worker["state"] == QUARANTINED:
                text += _quarantine(worker)
            yield _reason(worker["state"], text, worker=worker["_id"])
            return


def _quarantine(worker: Document) -> str:
    """Why a worker is in quarantine, and how it gets out of it."""
    told = worker.get("quarantine") or {}
    why = f": {told['reason']}" if told else ""
    until = f"; it may try again after {format_date(told['until'])}, or" if told.get("until") else "; it works again"
    return f"{why}{until} when an administrator sets the state of worker {worker['_id']} to active"


def _avoided(context: Context, task: Document, able: list[Document]) -> Document:
    """All workers that could run it have failed it; what each said, and what helps."""
    attempts = {attempt["worker"]: attempt for attempt in context.storage.executions.of_task(task["_id"])}
    said = [
        f"{worker['name']} on {worker['host']}: {attempts[worker['_id']].get('exit_status')}"
        for worker in able
        if worker["_id"] in attempts
    ]
    which = "the only worker that could run it has" if len(able) == 1 else "all workers that could run it have"
    until = task.get("avoid_until")
    again = f"tried there again after {format_date(until)}" if until and until > context.now() else "tried again soon"
    remedy = "to have it run elsewhere, start another worker"
    message = f"{which} failed it by the machine's own fault ({'; '.join(said)}); it is {again}; {remedy}"
    return _reason("avoided", message, workers=[worker["_id"] for worker in able], again=until)


def _closest(active: list[Document], lacking: dict[ObjectId, dict[str, tuple[Any, Any]]]) -> Document:
    closest = min(active, key=lambda worker: (len(lacking[worker["_id"]]), str(worker["name"])))
    missing = lacking[closest["_id"]]
    wants = ", ".join(
        f"{name} {_amount(name, want)} (it has {_amount(name, has)})" for name, (want, has) in missing.items()
    )
    message = f"no active worker can run it; {closest['name']} on {closest['host']} comes closest but lacks {wants}"
    details = {name: {"wanted": want, "there": has} for name, (want, has) in missing.items()}
    return _reason("no_fit", message, closest=closest["_id"], missing=details)


def _amount(name: str, amount: Any) -> str:
    return format_size(amount) if name in ("memory", "scratch", "gpu_memory") else str(amount)


def _before(context: Context, task: Document, workers: int) -> Document:
    before: Document = {
        "class_key": {"$gt": ""},
        "queue": task["queue"],
        "$or": [
            {"priority": {"$gt": task["priority"]}},
            {"priority": task["priority"], "order": {"$lt": task["order"]}},
        ],
    }
    count = context.storage.tasks.count(before)
    tasks = {0: "no task comes", 1: "1 task comes"}.get(count, f"{count} tasks come")
    busy = "the worker that fits is" if workers == 1 else f"the {workers} workers that fit are"
    return _reason("waiting", f"{tasks} before it in queue {task['queue']!r}, and {busy} busy", before=count)
