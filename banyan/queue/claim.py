"""Claiming: a worker asks for work, and waits here until there is some, or news of what it holds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer
from banyan.domain.resources import Resources
from banyan.domain.roles import Role
from banyan.domain.task import WORKER_UNREACHABLE, State
from banyan.errors import Conflict
from banyan.queue.actor import Actor
from banyan.queue.choose import Ahead, Wanted
from banyan.queue.context import Context
from banyan.queue.grant import GRANTED, attempt, grant
from banyan.queue.hub import Waiter
from banyan.queue.inputs import Resolved, resolve
from banyan.queue.recall import take_over
from banyan.queue.register import owned_worker
from banyan.queue.report import give_back, lose
from banyan.storage.tasks import Holding
from banyan.storage.workers import ACTIVE, ALIVE, DRAINING, QUARANTINED

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One claim: `request` names the question, so that repeating it gets the same answer.

    `unanswered` names earlier questions whose answers may still be on their way.
    """

    request: str
    free: Resources
    max_tasks: int
    held: frozenset[ObjectId] = frozenset()
    cancelling: frozenset[ObjectId] = frozenset()
    unanswered: frozenset[str] = frozenset()
    draining: bool = False
    """The worker drains by itself: it finishes what it has and takes nothing new."""
    number: int | None = None
    """Counts the worker's questions, so that one that was held up on its way is not taken for the newest."""
    wait_seconds: float = 0.0
    ahead: Ahead | None = None
    """What may wait at the worker besides."""
    forgotten: Sequence[str] = ()
    """Directories that the worker has removed, as it was told."""
    listening: Callable[[], bool] = lambda: True
    """Whether somebody still waits for the answer: a worker that was killed is given nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The answer: new work, attempts to cancel, those to give back if they have not begun, and more."""

    tasks: Sequence[Document] = ()
    cancel: Sequence[ObjectId] = ()
    take_back: Sequence[ObjectId] = ()
    drain: bool = False
    forget: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.tasks or self.cancel or self.take_back or self.drain or self.forget)


def claim(context: Context, worker_id: ObjectId, ask: Ask, actor: Actor | None = None) -> News:
    """Renew the worker's lease, take back what it does not know of, and grant it work or wait for some.

    Raises `Conflict` if the worker is lost or gone: it must stop all that it holds and register anew; `NotFound` if it
    is unknown, and `Forbidden` if there is an `actor` and it is not the actor's.
    """
    waiter = Waiter(worker_id)
    context.hub.enter(waiter)
    try:
        return _claim(context, ask, waiter, actor)
    finally:
        context.hub.leave(waiter)


def _claim(context: Context, ask: Ask, waiter: Waiter, actor: Actor | None) -> News:
    """Having entered the hub: whoever becomes the newest claim after us finds and wakes us."""
    worker_id = waiter.worker
    worker = _enter(context, worker_id, ask, actor)
    if worker is None:
        return News()
    context.storage.forget.done(worker, ask.forgotten)
    # An older claim may wait here, and in another server if the worker has not heard its answer.
    context.hub.worker(worker_id, but=waiter, everywhere=bool(ask.unanswered))
    idle = context.quiet.holds_nothing(worker_id, worker.get("claim_request"), ask.request)
    held = {} if idle else context.storage.tasks.holdings(worker_id)
    replayed, on_their_way = _sort_out(context, worker, ask, held)
    if replayed:
        return News(tasks=replayed)
    if on_their_way:
        ask = _without(context, ask, on_their_way)
    news = _wait(context, worker, ask, waiter, _news(context, worker, ask, held))
    context.quiet.note(worker_id, ask.request, holds_nothing=not held and not news.tasks)
    return news


def _wait(context: Context, worker: Document, ask: Ask, waiter: Waiter, news: News) -> News:
    """Answer when there is news or work, when the time is up, or (with nothing) when a newer claim has come."""
    deadline = time.monotonic() + min(ask.wait_seconds, context.settings.leases.heartbeat)
    while True:
        waiter.accepts, waiter.lines_up = _could_take(context, worker, ask)
        if not ask.listening():
            context.hub.leave(waiter)
            return News()
        granted = _granted(context, worker, ask)
        left = deadline - time.monotonic()
        if granted or news or left <= 0 or context.hub.closed:
            if granted:
                waiter.looking = None
            context.hub.decline(waiter)
            return replace(news, tasks=granted)
        asked = _look_elsewhere(context, worker, ask, waiter)
        called = waiter.wait(min(left, _ANSWERED_SECONDS) if asked else left)
        if called is None and asked:
            continue
        if called is None:
            return News()  # whatever came has woken it, or else is found by the next claim, which comes at once
        current = context.storage.workers.load(worker["_id"])
        if current is None or current.get("claim_request") != ask.request or current["state"] not in ALIVE:
            context.hub.leave(waiter)
            return News()
        worker = current
        if called:
            news = _news(context, worker, ask, context.storage.tasks.holdings(worker["_id"]))


_ANSWERED_SECONDS = 0.5
"""After so long other workers have answered whether they give something back."""


def _look_elsewhere(context: Context, worker: Document, ask: Ask, waiter: Waiter) -> bool:
    """Nothing can be claimed: wake another claim for what this one was woken for, and ask for what waits elsewhere.

    Whether a worker was asked.
    """
    woken = waiter.looking is not None
    context.hub.decline(waiter)
    if worker["state"] != ACTIVE or ask.max_tasks == 0 or not (woken or context.quiet.may_wait_elsewhere()):
        return False
    return take_over(context, worker, ask.free, ask.max_tasks)


def _could_take(
    context: Context, worker: Document, ask: Ask
) -> tuple[Callable[[str], bool], Callable[[str, float], bool]]:
    """Tests on class keys: would this claim start such a task, and would one of this priority wait at the worker?

    A class that is not known yet is worth a look.
    """
    offer, ahead = Offer.of(worker), ask.ahead
    active = worker["state"] == ACTIVE

    def could_start(key: str) -> bool:
        if not active or ask.max_tasks == 0:
            return False
        known = context.classes.known(key)
        return known is None or (offer.accepts(known) and known.least.fits(ask.free))

    def could_wait(key: str, priority: float) -> bool:
        if not active or ahead is None:
            return False
        known = context.classes.known(key)
        if known is None:
            return True
        place = ahead.line(context.weights).place(known.queue, priority, _LAST)
        return place.seconds < ahead.seconds and offer.accepts(known) and known.least.fits(ahead.soon)

    return could_start, could_wait


_LAST = "~"
"""Behind all tasks of the same priority."""


def _enter(context: Context, worker_id: ObjectId, ask: Ask, actor: Actor | None) -> Document | None:
    """Renew the lease and become the newest claim; the worker as it was before, None if a later claim has come."""
    now = context.now()
    fields: Document = {"claim_request": ask.request, "free": ask.free.to_document(), "held_count": len(ask.held)}
    fields["waiting_seconds"] = ask.ahead.waiting_seconds if ask.ahead else 0.0
    if ask.draining:
        fields["drain_told"] = ask.request
    owner = None if actor is None or actor.role == Role.ADMIN else actor.name
    worker = context.storage.workers.renew(worker_id, now, fields, ask.number, owner)
    if worker is None and actor is not None:
        owned_worker(context, worker_id, actor)  # it says what is wrong, if that is not the state or the number
    if worker is not None and ask.draining and worker["state"] == ACTIVE:
        context.storage.workers.move(worker_id, DRAINING, now)
        worker = context.storage.workers.renew(worker_id, now, fields, ask.number)
    if worker is None and context.storage.workers.renew(worker_id, now) is None:
        raise Conflict(f"worker {worker_id} is lost, gone or unknown; stop what it holds and register anew")
    return worker


def _sort_out(
    context: Context, worker: Document, ask: Ask, held: Mapping[ObjectId, Holding]
) -> tuple[list[Document], list[ObjectId]]:
    """Give back what an earlier answer granted and the worker will never hear of.

    Answers with the grants that this request got before, and with the tasks whose grants are on their way.
    """
    unheard = {execution: holding for execution, holding in held.items() if execution not in ask.held}
    if not unheard:
        return [], []
    tasks = context.storage.tasks.of_attempts(worker["_id"], unheard)
    on_their_way: list[ObjectId] = []
    unknown: dict[ObjectId, ObjectId] = {}
    granted: list[ObjectId] = []
    for execution, task in tasks.items():
        request = unheard[execution].claim_request
        if request == ask.request:
            granted.append(task)
        elif request in ask.unanswered:
            on_their_way.append(task)
        else:
            unknown[execution] = task
    if unknown:
        started = give_back(context, unknown)
        lose(context, started, WORKER_UNREACHABLE)
    return replay(context, worker, granted) if granted else [], on_their_way


def _without(context: Context, ask: Ask, tasks: Sequence[ObjectId]) -> Ask:
    """The same question, less the resources of tasks that the worker has yet to hear of."""
    free = ask.free
    for task in context.storage.tasks.documents(tasks, ["requested_resources"]).values():
        free = free.minus(Resources.from_document(task.get("requested_resources") or {}))
    return replace(ask, free=free)


def replay(context: Context, worker: Document, granted: Sequence[ObjectId]) -> list[Document]:
    """The grants of a request whose answer was lost, their attempts recorded if that was interrupted."""
    running = [d for d in context.storage.tasks.documents(granted).values() if d["state"] == State.RUNNING]
    recorded = context.storage.executions.load(document["execution"] for document in running)
    missing = [attempt(document, worker) for document in running if document["execution"] not in recorded]
    context.storage.executions.begin(missing)
    return grants_of(context, running)


def _news(context: Context, worker: Document, ask: Ask, held: Mapping[ObjectId, Holding]) -> News:
    """What the worker is to hear besides work."""
    cancel = [
        execution
        for execution, holding in held.items()
        if holding.state == State.PENDING_CANCELLATION and execution not in ask.cancelling
    ]
    take_back = [execution for execution, holding in held.items() if holding.recalled and execution in ask.held]
    stopped = worker["state"] in (DRAINING, QUARANTINED) and not ask.draining  # else it knows
    drain = stopped and _tell_drain(context, worker, ask)
    forget = context.storage.forget.tell(worker, context.now())
    return News(cancel=cancel, take_back=take_back, drain=drain, forget=forget)


def _granted(context: Context, worker: Document, ask: Ask) -> list[Document]:
    if worker["state"] != ACTIVE or (ask.max_tasks <= 0 and ask.ahead is None):
        return []
    wanted = Wanted(
        worker=worker,
        offer=Offer.of(worker),
        free=ask.free,
        max_tasks=ask.max_tasks,
        ahead=ask.ahead,
        request=ask.request,
        timeout_seconds=_seconds_left(worker, context.now()),
        patient=ask.wait_seconds > 0,
    )
    return grants_of(context, grant(context, wanted))


def _tell_drain(context: Context, worker: Document, ask: Ask) -> bool:
    """Whether it has yet to hear that it gets nothing more: it is told once, and again if it repeats the question."""
    if worker.get("drain_told") is not None:
        return bool(worker["drain_told"] == ask.request)
    context.storage.workers.renew(worker["_id"], context.now(), {"drain_told": ask.request})
    return True


def _seconds_left(worker: Document, now: datetime) -> float | None:
    until = worker.get("available_until")
    return None if until is None else float((until - now).total_seconds())


_SENT = tuple(
    name for name in GRANTED if name not in ("state", "attempt_count", "task_class", "input_refs", "time_claimed")
)
"""The fields of a task that the worker gets as they are."""


def grants_of(context: Context, documents: Sequence[Document]) -> list[Document]:
    """What the worker gets of tasks that it was granted, the attempts' tokens with them.

    `inputs` then have what was taken from parents; where that is not there, `input_error` says what is missing.
    """
    inputs = resolve(context, documents)
    return [_grant_of(context, document, inputs.get(document["_id"])) for document in documents]


def _grant_of(context: Context, document: Document, inputs: Resolved | None) -> Document:
    granted = {name: document[name] for name in _SENT if document.get(name) is not None}
    if not document["priority"]:
        del granted["priority"]
    if inputs is not None:
        granted |= {"inputs": inputs.inputs} if inputs.error is None else {"input_error": inputs.error}
    granted["attempt"] = document["attempt_count"]
    granted["class"] = document["task_class"]
    if document.get("weight", 1.0) != 1.0:
        granted["weight"] = document["weight"]
    granted["token"] = context.storage.meta.attempt_token(document["execution"])
    return granted
