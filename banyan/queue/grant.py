"""Grants of chosen tasks to workers: the guarded write, the attempts' records, the limits of queues."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass
from banyan.domain.task import LIVE, Task
from banyan.domain.transitions import Change, Claim, decide
from banyan.errors import Conflict, IllegalTransition, NotFound
from banyan.queue.choose import Choice, Wanted, choose
from banyan.queue.context import Context
from banyan.queue.pool import Pool
from banyan.storage.mongo import Session
from banyan.storage.tasks import view
from banyan.storage.workers import ACTIVE

Document = dict[str, Any]

GRANTED = (
    "_id state execution attempt_count task_class name queue owner priority order command model inputs input_refs env "
    "directory stdin result_from workdir timeout max_shutdown_time estimated_runtime requested_resources sweep index "
    "host_deaths disk_fills time_claimed"
).split()
"""The fields of a task in the response to a claim, or from which the response is made."""

_ROUNDS = 50
_MOST_CROWDED = 5

_Pick = tuple[Wanted, Document]
"""A claim and a task that was chosen for it."""


def grant(context: Context, wanted: Wanted) -> list[Document]:
    """Grant the best fitting tasks to the worker; return their documents as they are now, each with a new `execution`.

    Concurrent claims are chosen and written together.
    """
    granted: list[Document] = context.claims(partial(grant_all, context), wanted)
    return granted


def grant_all(context: Context, claims: Sequence[Wanted]) -> list[list[Document]]:
    """The grants of each of several claims, in order; earlier claims choose first.

    Tasks that claims of other servers took first are replaced by others; only the returned tasks are granted.
    """
    granted: list[list[Document]] = [[] for _ in claims]
    left, crowd = list(enumerate(claims)), 0
    for _ in range(_ROUNDS):
        pool = _pool(context, [wanted for _, wanted in left], crowd)
        choices = [choose(context, wanted, pool) for _, wanted in left]
        written = _claim(context, pool, [(wanted, choice) for (_, wanted), choice in zip(left, choices, strict=True)])
        again = []
        for (index, wanted), choice, documents in zip(left, choices, written, strict=True):
            granted[index] = documents
            if not documents and (choice.tasks or choice.missed):
                again.append((index, wanted))
                crowd = min(pool.crowd + bool(choice.tasks), _MOST_CROWDED)
        if not again:
            break
        left = again
    return granted


def _pool(context: Context, claims: Sequence[Wanted], crowd: int) -> Pool:
    patient = all(wanted.patient for wanted in claims)
    heads = context.heads.current(context.storage.tasks.class_heads, fresh=not patient)
    demand = sum(wanted.max_tasks + (wanted.ahead.most if wanted.ahead else 0) for wanted in claims)
    pool = Pool(context, heads, demand, crowd)
    context.weights.update(pool.weights)
    return pool


def _claim(context: Context, pool: Pool, chosen: Sequence[tuple[Wanted, Choice]]) -> list[list[Document]]:
    """Write the claims; return the written tasks of each, as documents, with their attempts recorded."""
    granted: list[Document] = []
    unlimited: list[_Pick] = []
    for wanted, choice in chosen:
        picks = [(wanted, task) for task in choice.tasks]
        limits = {task["queue"]: pool.limits[task["queue"]] for task in choice.tasks if task["queue"] in pool.limits}
        if limits:
            granted += _write_within(context, limits, picks)
        else:
            unlimited += picks
    granted += _write(context, unlimited, None)
    context.heads.changed({task["class_key"] for _, choice in chosen for task in choice.tasks})
    by_id = {each["_id"]: each | {"weight": pool.weights[each["queue"]]} for each in granted}
    return [[by_id[task["_id"]] for task in choice.tasks if task["_id"] in by_id] for _, choice in chosen]


def _write_within(context: Context, limits: Mapping[str, int], picks: Sequence[_Pick]) -> list[Document]:
    """Write a claim in queues with limits, one such claim after the other."""

    def write(session: Session) -> list[Document]:
        return _write(context, _within(context, limits, picks, session), session)

    return context.storage.transaction(write)


def _within(context: Context, limits: Mapping[str, int], picks: Sequence[_Pick], session: Session) -> list[_Pick]:
    """The chosen tasks that their queues' limits allow now; other claims in these queues wait."""
    room = {}
    for queue, limit in limits.items():
        now = context.storage.queues.touch(queue, session)
        allowed = limit if now is None or now["max_running"] is None else now["max_running"]
        allowed = 0 if now is None or now["paused"] else allowed
        room[queue] = allowed - context.storage.tasks.running_in(queue, session)
    taken: Counter[str] = Counter()
    kept = []
    for wanted, task in picks:
        taken[task["queue"]] += 1
        if task["queue"] not in room or taken[task["queue"]] <= room[task["queue"]]:
            kept.append((wanted, task))
    return kept


def _write(context: Context, picks: Sequence[_Pick], session: Session | None) -> list[Document]:
    now = context.now()
    changes: list[tuple[Task, Change]] = []
    picked = {task["_id"]: (wanted, task) for wanted, task in picks}
    for wanted, document in picks:
        task = view(document)
        change = decide(task, Claim(ObjectId(), wanted.worker["_id"], wanted.request), now)
        if change is not None:
            changes.append((task, change))
    if not changes:
        return []
    written = context.storage.tasks.commit(changes, now, session)
    begun = {task.id: change.fields["execution"] for task, change in changes if task.id in written}
    attempts = [
        attempt({**picked[task.id][1], **change.fields}, picked[task.id][0].worker)
        for task, change in changes
        if task.id in written
    ]
    context.storage.executions.begin(attempts, session)
    return _still_ours(context, begun, session)


def _still_ours(context: Context, begun: Mapping[ObjectId, ObjectId], session: Session | None) -> list[Document]:
    """The tasks (with their attempts) that no later claim gave back before the attempts were recorded.

    The records of the other attempts are deleted. The documents have the fields that a worker is sent.
    """
    current = context.storage.tasks.current(begun, GRANTED, session)
    if withdrawn := [execution for execution in begun.values() if execution not in current]:
        context.storage.executions.withdraw(withdrawn)
    return list(current.values())


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


def claim_one(context: Context, worker: ObjectId, task: ObjectId) -> Document:
    """Grant one named task to a worker; raises `IllegalTransition`, or `Conflict` when another process was first.

    All conditions of a claim are checked in the transaction that writes it, so that of many concurrent ones no more
    than the queue's limit are granted.
    """

    def write(session: Session) -> Document:
        document = context.storage.tasks.document(task, session)
        if document is None:
            raise NotFound(f"there is no task {task}")
        _check_by_hand(context, worker, document, session)
        return _claim_by_hand(context, worker, document, session)

    context.storage.workers.renew(worker, context.now())
    granted = context.storage.transaction(write)
    context.heads.changed([granted["task_class"]])
    return granted


def _claim_by_hand(context: Context, worker_id: ObjectId, document: Document, session: Session) -> Document:
    now, seen = context.now(), view(document)
    change = decide(seen, Claim(ObjectId(), worker_id, f"by-hand-{ObjectId()}"), now)
    if change is None or not context.storage.tasks.commit([(seen, change)], now, session):
        raise Conflict(f"task {document['_id']} was changed meanwhile; read it again")
    granted = {**document, **change.fields, "state": change.state}
    worker = context.storage.workers.by_id([worker_id])[worker_id]
    context.storage.executions.begin([attempt(granted, worker)], session)
    return granted


def _check_by_hand(context: Context, worker_id: ObjectId, task: Document, session: Session) -> None:
    """Refuse a claim by hand to a worker that is not active or does not fit, or from a closed queue.

    Worker and queue are written to, so that concurrent changes of them conflict.
    """
    worker = context.storage.workers.claims_by_hand(worker_id, session)
    if worker is None or worker["state"] != ACTIVE:
        state = "lost or gone" if worker is None else worker["state"]
        raise Conflict(f"worker {worker_id} is {state}; only an active worker claims tasks")
    if task["state"] in LIVE:
        raise Conflict(f"task {task['_id']} is {task['state']} already; another worker was first")
    if "class_key" not in task:
        reason = "only an available task that is neither held nor waiting for its time can be claimed"
        raise IllegalTransition({"state": f"task {task['_id']} is {task['state']}; {reason}"})
    queue = context.storage.queues.touch(task["queue"], session)
    limit = None if queue is None else queue["max_running"]
    full = limit is not None and context.storage.tasks.running_in(task["queue"], session) >= limit
    if queue is None or queue["paused"] or full:
        raise IllegalTransition({"state": f"queue {task['queue']!r} is paused or full; task {task['_id']} has to wait"})
    lacks = Offer.of(worker).missing(TaskClass.of(task))
    if lacks:
        wants = ", ".join(f"{name} {wanted} (it has {there})" for name, (wanted, there) in lacks.items())
        raise IllegalTransition({"state": f"worker {worker_id} cannot run task {task['_id']}: it lacks {wants}"})
