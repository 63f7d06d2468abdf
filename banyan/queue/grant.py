"""Making chosen tasks a worker's own: the guarded write, the attempts' records, the limits of queues."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass
from banyan.domain.task import LIVE, Task
from banyan.domain.transitions import Change, Claim, decide
from banyan.errors import Conflict, IllegalTransition
from banyan.queue.choose import Choice, Wanted, choose
from banyan.queue.context import Context
from banyan.storage.mongo import Session
from banyan.storage.tasks import view
from banyan.storage.workers import ACTIVE

Document = dict[str, Any]

_ROUNDS = 50


def grant(context: Context, wanted: Wanted) -> list[Document]:
    """Make the best fitting tasks the worker's; their documents as they are now, each with a fresh `execution`.

    Tasks that other claims took first are replaced by others; nothing is promised beyond what is returned.
    """
    with context.heads.claiming():
        for crowd in range(_ROUNDS):
            with context.taken.taking() as taking:
                choice = choose(context, wanted, taking, min(crowd, 5))
                granted = _claim(context, wanted, choice) if choice.tasks else []
                taking.grant(document["_id"] for document in granted)
            if granted or not (choice.tasks or choice.missed):
                return granted
    return []


def _claim(context: Context, wanted: Wanted, choice: Choice) -> list[Document]:
    """Write the claims; those that were written, as documents, with their attempts recorded."""
    chosen = choice.tasks
    limited = {name: choice.limits[name] for name in {task["queue"] for task in chosen} if name in choice.limits}
    if not limited:
        return _write(context, wanted, chosen, None)
    return context.storage.transaction(
        lambda session: _write(context, wanted, _within(context, limited, chosen, session), session)
    )


def _within(
    context: Context, limited: Mapping[str, int], chosen: Sequence[Document], session: Session
) -> list[Document]:
    """Those of the chosen tasks that their queues' limits allow now; other claims in these queues wait."""
    room = {}
    for queue, limit in limited.items():
        context.storage.queues.touch(queue, session)
        room[queue] = limit - context.storage.tasks.running_in(queue, session)
    taken: Counter[str] = Counter()
    kept = []
    for task in chosen:
        taken[task["queue"]] += 1
        if task["queue"] not in room or taken[task["queue"]] <= room[task["queue"]]:
            kept.append(task)
    return kept


def _write(context: Context, wanted: Wanted, chosen: Sequence[Document], session: Session | None) -> list[Document]:
    now = context.now()
    worker = wanted.worker
    changes: list[tuple[Task, Change]] = []
    documents = {task["_id"]: task for task in chosen}
    for document in chosen:
        task = view(document)
        change = decide(task, Claim(ObjectId(), worker["_id"], wanted.request), now)
        if change is not None:
            changes.append((task, change))
    if not changes:
        return []
    written = context.storage.tasks.commit(changes, now, session)
    granted = [
        {**documents[task.id], **change.fields, "state": change.state} for task, change in changes if task.id in written
    ]
    context.storage.executions.begin([attempt(document, worker) for document in granted], session)
    return _still_ours(context, granted, session)


def _still_ours(context: Context, granted: Sequence[Document], session: Session | None) -> list[Document]:
    """Those of the tasks that no later claim gave back before their attempts were recorded; the others' records go."""
    current = context.storage.tasks.current({d["_id"]: d["execution"] for d in granted}, session)
    ours = [document for document in granted if document["execution"] in current]
    if len(ours) < len(granted):
        kept = {document["execution"] for document in ours}
        context.storage.executions.withdraw(d["execution"] for d in granted if d["execution"] not in kept)
    return ours


def attempt(task: Document, worker: Document) -> Document:
    """The record of an attempt that begins with a claim."""
    return {
        "_id": task["execution"],
        "task": task["_id"],
        "owner": task["owner"],
        "attempt": task["attempt_count"],
        "worker": worker["_id"],
        "host": worker["host"],
        "files_root": worker.get("files_root"),
        "time_claimed": task["time_claimed"],
        "last_update": task["time_claimed"],
        "_created": task["time_claimed"],
        "_updated": task["time_claimed"],
    }


def claim_one(context: Context, worker: Document, task: Document) -> Document:
    """Make one named task the worker's; raises `IllegalTransition`, or `Conflict` when someone else was first."""
    now = context.now()
    seen = view(task)
    _check_by_hand(context, worker, task, now)
    if task["state"] in LIVE:
        raise Conflict(f"task {task['_id']} is {task['state']} already; another worker was first")
    if "class_key" not in task:
        reason = "only an available task that is neither held nor waiting for its time can be claimed"
        raise IllegalTransition({"state": f"task {task['_id']} is {task['state']}; {reason}"})
    change = decide(seen, Claim(ObjectId(), worker["_id"], f"by-hand-{ObjectId()}"), now)
    if change is None or not context.storage.tasks.commit([(seen, change)], now):
        raise Conflict(f"task {task['_id']} was changed meanwhile; read it again")
    granted = {**task, **change.fields, "state": change.state}
    context.storage.executions.begin([attempt(granted, worker)])
    if not _still_ours(context, [granted], None):
        raise Conflict(f"task {task['_id']} was given back meanwhile, because its claim took too long; try again")
    return granted


def _check_by_hand(context: Context, worker: Document, task: Document, now: datetime) -> None:
    """Refuse what no claim would be granted: to a worker that is not active, of a queue that is closed, or unfit."""
    current = context.storage.workers.renew(worker["_id"], now)
    if current is None or current["state"] != ACTIVE:
        state = "lost or gone" if current is None else current["state"]
        raise Conflict(f"worker {worker['_id']} is {state}; only an active worker claims tasks")
    queue = context.storage.queues.all()[task["queue"]]
    limit = queue.get("max_running")
    if queue["paused"] or (limit is not None and context.storage.tasks.running_in(task["queue"]) >= limit):
        raise IllegalTransition({"state": f"queue {task['queue']!r} is paused or full; task {task['_id']} has to wait"})
    lacks = Offer.of(current).missing(TaskClass.of(task))
    if lacks:
        wants = ", ".join(f"{name} {wanted} (it has {there})" for name, (wanted, there) in lacks.items())
        raise IllegalTransition({"state": f"worker {worker['_id']} cannot run task {task['_id']}: it lacks {wants}"})
